"""`flex_attention`: what its score and mask functions add to the scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vitreous.capture.calls import Attention, as_bias, attended, in_autocast
from vitreous.errors import CaptureError

ARGUMENTS = ("query", "key", "value", "score_mod", "block_mask", "scale", "kernel_options", "score_buffers")


def from_flex(args: tuple[Any, ...], kwargs: dict[str, Any], returned: tuple[Tensor, ...]) -> Attention:
    """The operator below `flex_attention`, called without a compiler: its functions are evaluated on all indices.

    They become a bias, as large as the scores that torch makes itself when it is not compiled.

    Raises:
        CaptureError: if the score function does more than add something, as a soft cap does.
    """
    given = dict(zip(ARGUMENTS, args, strict=False)) | kwargs
    query, key, value = (in_autocast(given[name].detach()) for name in ARGUMENTS[:3])
    shape = (*query.shape[:3], key.shape[2])
    buffers = given.get("score_buffers", ())
    bias = _added(lambda *scalars: given["score_mod"](*scalars, *buffers), shape, query)
    kept = _kept(given["block_mask"][-1], shape, query)
    bias = bias if kept is None else bias + kept
    return attended(query, key, value, returned[0].detach(), float(given["scale"]), _smallest(bias))


def _kept(mask_mod: Any, shape: tuple[int, ...], query: Tensor) -> Tensor | None:
    from torch.nn.attention.flex_attention import create_mask

    batch, heads, queries, keys = shape
    kept = create_mask(mask_mod, batch, heads, queries, keys, device=str(query.device))
    return None if bool(kept.all()) else as_bias(kept, query)


def _added(score_mod: Any, shape: tuple[int, ...], query: Tensor) -> Tensor:
    """What a score function adds to every score: (batch, heads, queries, keys)."""
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    zeros = torch.zeros(shape, dtype=dtype, device=query.device)
    some = torch.linspace(-9, 9, 7, dtype=dtype, device=query.device)[torch.arange(shape[3]) % 7].expand(shape)
    added, added_to_some = _on_all_indices(score_mod, zeros), _on_all_indices(score_mod, some) - some
    if not torch.allclose(added, added_to_some, rtol=1e-4, atol=1e-4):
        raise CaptureError(
            "the score_mod of flex_attention does more than add a bias to the scores (a soft cap, a factor?)\n"
            "such attention is not softmax(q k^T * scale + bias), so it is not shown"
        )
    return added


def _on_all_indices(score_mod: Any, scores: Tensor) -> Tensor:
    from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex  # as torch's own evaluation does

    for axis in (3, 2, 1, 0):  # keys innermost
        score_mod = torch.vmap(score_mod, in_dims=(0, *(0 if other == axis else None for other in range(4))))
    indices = (torch.arange(length, device=scores.device) for length in scores.shape)
    with TransformGetItemToIndex():
        changed: Tensor = score_mod(scores, *indices)
    return changed.detach()


def _smallest(bias: Tensor) -> Tensor | None:
    """The same bias without axes along which it does not change; None where it is zero."""
    for axis in (0, 1):
        if bool((bias == bias.narrow(axis, 0, 1)).all()):
            bias = bias.narrow(axis, 0, 1).clone()
    return bias if bool(bias.any()) else None
