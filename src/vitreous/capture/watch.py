"""Seeing attention as it happens, in any PyTorch ViT, with nothing changed in it.

Inside the context every call of `F.scaled_dot_product_attention`, `F.multi_head_attention_forward` and of a
softmax that is then multiplied with values is seen by a `TorchFunctionMode`. The model runs the kernels it always
runs and its output keeps every bit. torch's own attention modules, which would notice, are seen from outside
(`torch_modules`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vitreous.capture import calls, proof
from vitreous.capture.embedding import ImageReader, Positions, find_positions
from vitreous.capture.operator import AttentionOperator
from vitreous.capture.softmax import SoftmaxTracker
from vitreous.capture.torch_modules import seeing_torch_modules
from vitreous.errors import CaptureError, NumericError
from vitreous.tokens import TokenLayout

OnAttention = Callable[[int, AttentionOperator, TokenLayout], None]
"""Called for each layer as it happens: (layer, operator, layout)."""


class Watched:
    """What one forward pass showed.

    Attributes:
        layers: an operator for each layer, first layer first; empty where `on_attention` took them.
        errors: for each layer, how far the operator was from the model's own output, relative to its largest value.
        notes: attention that was seen and left out, with the reason.
    """

    def __init__(self, model: nn.Module, layout: TokenLayout | None, on_attention: OnAttention | None) -> None:
        self.layers: list[AttentionOperator] = []
        self.errors: list[float] = []
        self.notes: list[str] = []
        self._model, self._layout, self._on_attention = model, layout, on_attention
        self._reader, self._tracker = ImageReader(), SoftmaxTracker()
        self._reads_text = False

    @property
    def layout(self) -> TokenLayout:
        """Which token is which; known from the first attention on."""
        if self._layout is None:
            raise CaptureError(
                "no attention was seen yet, so the layout is not known\nrun the model inside the context"
            )
        return self._layout

    @property
    def kernel(self) -> Tensor | None:
        """First layer's filters, (width, channels, height, width); None where no patch embedding was seen."""
        return self._reader.kernel

    def positions(self) -> Positions | None:
        """Position embeddings of the patches, found by name and shape; None where the model has no such table."""
        if self._reader.width is None:
            return None
        return find_positions(self._model, self.layout, self._reader.width, self._reader.table_grid)

    def _see_call(self, call: Any, args: tuple[Any, ...], kwargs: dict[str, Any], returned: Any) -> None:
        given = (*args, *kwargs.values())
        if call is F.scaled_dot_product_attention:
            self._see_attention(calls.from_sdpa(args, kwargs, returned, self._reader.batch or returned.shape[0]))
        elif call is F.multi_head_attention_forward:
            self._see_attention(calls.from_multi_head(args, kwargs, returned))
        elif call is F.embedding:
            self._reads_text = bool(self.errors)  # position embeddings come before the first attention
        elif not self.errors:
            self._reader.see(call, given, returned)
            self._see_softmax(call, given, returned)
        else:
            self._reader.refuse_second_image(call, given)
            self._see_softmax(call, given, returned)

    def _see_softmax(self, call: Any, given: tuple[Any, ...], returned: Any) -> None:
        attention = self._tracker.see(call, given, returned, self._reader.batch)
        if attention is not None:
            self._see_attention(attention)

    def _see_attention(self, attention: calls.Attention) -> None:
        operator, layer = attention.operator, len(self.errors)
        queries, keys = operator.shape[2:]
        note = attention.note
        if note is None and self._reads_text:
            note = "attention after a text was read: another tower"
        if note is None and queries != keys:
            note = f"{queries} quer{'y' if queries == 1 else 'ies'} over {keys} tokens: pooling, not self-attention"
        if note is not None:
            self.notes.append(f"left out, {f'after layer {layer - 1}' if layer else 'before the first layer'}: {note}")
            return
        if self._layout is None:
            self._layout = self._reader.layout(self._model, queries)
        if queries != self._layout.tokens:
            raise CaptureError(
                f"layer {layer} attends among {queries} tokens, but the layout has {self._layout.tokens} "
                f"({self._layout.prefix} prefix + {self._layout.rows} x {self._layout.columns} patches)\n"
                "windows, pooling between layers or another tower: watch the plain part alone, or pass layout="
            )
        if math.isnan(attention.error):
            raise NumericError(f"layer {layer}: attention is NaN\ncheck the weights, the images and the precision")
        proof.check(attention.error, attention.dtype, layer)
        self.errors.append(attention.error)
        if self._on_attention is None:
            self.layers.append(operator)
        else:
            self._on_attention(layer, operator, self._layout)


class _Mode(TorchFunctionMode):
    """Lets every call through unchanged, then shows it to the watch."""

    SEEN = frozenset(
        {F.scaled_dot_product_attention, F.multi_head_attention_forward}
        | ImageReader.CALLS | SoftmaxTracker.CALLS
    )  # fmt: skip

    def __init__(self, watched: Watched) -> None:
        super().__init__()
        self._watched = watched

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        returned = func(*args, **kwargs)
        if func in self.SEEN:
            self._watched._see_call(func, args, kwargs, returned)
        return returned


@contextmanager
def watch_attention(
    model: nn.Module, *, layout: TokenLayout | None = None, on_attention: OnAttention | None = None
) -> Iterator[Watched]:
    """Sees every attention of one forward pass of `model`, of any library.

        with vitreous.watch_attention(model) as watched:
            logits = model(images)
        watched.layers[3].entropy()      # (batch, heads, tokens), bits

    The output keeps every bit, fused kernels stay on, nothing is left behind, also when the pass fails. Each layer
    proves itself: on a few random rows softmax(q k^T) v must be what the model's kernel returned.

    Not seen: kernels that are private to a library, `flex_attention`, compiled graphs. `nn.TransformerEncoder` with a
    padding mask takes its path without nested tensors while it is watched.

    Args:
        model: any module that attends among the tokens of an image; in eval mode.
        layout: which token is which, where it cannot be seen.
        on_attention: gets (layer, operator, layout) as each layer happens; then no operator is kept.

    Yields:
        What the pass shows, filled as it happens.

    Raises:
        CaptureError: if no attention was seen, if it cannot be told which token is which, or if a proof failed.
        NumericError: if attention is NaN.
    """
    _refuse_unwatchable(model)
    watched = Watched(model, layout, on_attention)
    with seeing_torch_modules(model, watched._see_attention), _Mode(watched):
        yield watched
    if watched._tracker.too_many_axes:
        watched.notes.append(f"left out: {watched._tracker.too_many_axes} softmax(es) over more than four axes")
    if watched._tracker.unapplied:
        raise CaptureError(
            f"{watched._tracker.unapplied} softmax(es) over tokens were seen in {type(model).__name__}, but their "
            "result was changed before it met the values (heads mixed or weights edited)\n"
            "such attention is no single matrix a head, so it is not shown"
        )
    if not watched.errors:
        seen = f" ({'; '.join(watched.notes)})" if watched.notes else ""
        raise CaptureError(
            f"no attention among tokens was seen in {type(model).__name__}{seen}\n"
            "it has none, was not run inside the context, or runs in a compiled graph or private kernel: "
            "watch the eager model (for a compiled one: model._orig_mod)"
        )


def _refuse_unwatchable(model: nn.Module) -> None:
    kind = type(model)
    if not isinstance(model, nn.Module):
        raise CaptureError(f"a {kind.__name__} is not a torch.nn.Module")
    if kind.__name__ == "OptimizedModule" and kind.__module__.startswith("torch._dynamo"):
        raise CaptureError("the model is compiled: its attention is not seen\nwatch the eager model, model._orig_mod")
    if isinstance(model, torch.jit.ScriptModule):
        raise CaptureError("the model is TorchScript: its calls are not seen\nwatch the Python model it was made from")
