"""torch's own attention modules have fused paths that any function mode would switch off.

`nn.MultiheadAttention` and `nn.TransformerEncoderLayer` take a native kernel in eval mode without gradients, unless a
function mode or a hook is about; that kernel rounds differently. So that a watched model keeps every bit, their
`forward` is wrapped for the time of the watch: it runs with the mode out of the way and is seen from outside, by
its inputs, its weights and its output.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vitreous.capture.calls import Attention, from_projections
from vitreous.capture.proof import error_of, rows_to_try
from vitreous.errors import CaptureError

See = Callable[[Attention], None]

WATCHED = "_vitreous_watched"
"""Marks a wrapped `forward`."""


@contextmanager
def seeing_torch_modules(model: nn.Module, see: See) -> Iterator[None]:
    """Shows `see` the attention of torch's own modules inside `model`, and puts everything back."""
    with ExitStack() as undo:
        for module in model.modules():
            if isinstance(module, nn.MultiheadAttention):
                _wrap(module, _watch_attention_module, see, undo)
            elif getattr(type(module), "forward", None) is nn.TransformerEncoderLayer.forward:
                _wrap(module, _watch_encoder_layer, see, undo)
        yield


def _wrap(module: nn.Module, watcher: Callable[..., Any], see: See, undo: ExitStack) -> None:
    had, forward = module.__dict__.get("forward"), module.forward
    thread = threading.get_ident()
    if hasattr(forward, WATCHED):
        raise CaptureError("the model is being watched already\nclose the other watch_attention() first")

    def watched(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != thread:  # another thread's pass is not ours to see
            return forward(*args, **kwargs)
        return watcher(module, forward, see, args, kwargs)

    setattr(watched, WATCHED, True)

    def restore() -> None:
        if had is None:
            module.__dict__.pop("forward", None)
        else:
            module.__dict__["forward"] = had

    undo.callback(restore)
    module.__dict__["forward"] = watched


def _unseen(module: nn.Module) -> bool:
    """Whether the module may take its native kernel: what the function mode would see must be seen from outside."""
    return not module.training and not torch.is_grad_enabled() and not torch.is_autocast_enabled()


def _watch_attention_module(module: Any, forward: Any, see: See, args: Any, kwargs: Any) -> Any:
    given = (
        dict(zip(("query", "key", "value", "key_padding_mask", "need_weights", "attn_mask"), args, strict=False))
        | kwargs
    )
    query = given["query"]
    plain = query is given["key"] is given["value"] and module._qkv_same_embed_dim and module.batch_first
    if not _unseen(module) or not plain or query.ndim != 3:
        return forward(*args, **kwargs)
    with torch._C.DisableTorchFunction():
        returned = forward(*args, **kwargs)
        masks = (given.get("attn_mask"), given.get("key_padding_mask"))
        see(_attention_of(module, query, masks, returned[0]))
    return returned


def _watch_encoder_layer(layer: Any, forward: Any, see: See, args: Any, kwargs: Any) -> Any:
    given = dict(zip(("src", "src_mask", "src_key_padding_mask"), args, strict=False)) | kwargs
    source, attention = given["src"], layer.self_attn
    masks = (given.get("src_mask"), given.get("src_key_padding_mask"))
    if not _unseen(layer) or not attention.batch_first or source.ndim != 3 or any(mask is not None for mask in masks):
        return forward(*args, **kwargs)
    inner, attention.forward = attention.__dict__["forward"], type(attention).forward.__get__(attention)
    try:
        with torch._C.DisableTorchFunction():
            returned = forward(*args, **kwargs)
            normed = layer.norm1(source) if layer.norm_first else source
            mixed = attention(normed, normed, normed, need_weights=False)[0]
            seen = _attention_of(attention, normed, (None, None), mixed)
            see(Attention(seen.operator, max(seen.error, _layer_error(layer, source, mixed, returned)), seen.dtype))
    finally:
        attention.forward = inner
    return returned


def _layer_error(layer: Any, source: Tensor, mixed: Tensor, returned: Tensor) -> float:
    """Error of a whole encoder layer rebuilt on a few tokens from its attention's output."""
    chosen = rows_to_try(source.shape[1]).to(source.device)
    tokens = source[:, chosen] + mixed[:, chosen]
    if layer.norm_first:
        tokens = tokens + layer._ff_block(layer.norm2(tokens))
    else:
        tokens = layer.norm1(tokens)
        tokens = layer.norm2(tokens + layer._ff_block(tokens))
    return error_of(tokens.float(), returned[:, chosen])


def _attention_of(
    module: Any, query: Tensor, masks: tuple[Tensor | None, Tensor | None], returned: Tensor
) -> Attention:
    return from_projections(
        (query, query, query),
        (module.in_proj_weight, module.in_proj_bias),
        (module.out_proj.weight, module.out_proj.bias),
        module.num_heads,
        masks,
        returned,
    )
