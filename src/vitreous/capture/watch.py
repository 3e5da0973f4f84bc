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
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._ops import HigherOrderOperator, OpOverload, OpOverloadPacket
from torch.overrides import TorchFunctionMode

from vitreous.capture import calls, kernels, proof
from vitreous.capture.compiled import NOTE, compiled_parts_run_eagerly, has_compiled_part
from vitreous.capture.embedding import ImageReader, Positions, find_positions, in_order
from vitreous.capture.flex import from_flex
from vitreous.capture.operator import AttentionOperator
from vitreous.capture.running import is_in_compiled_function, overlooked_modules, running_modules
from vitreous.capture.softmax import SoftmaxTracker
from vitreous.capture.torch_modules import seeing_torch_modules
from vitreous.capture.unwatchable import refuse_unreal, refuse_unwatchable
from vitreous.errors import CaptureError, NumericError
from vitreous.tokens import TokenLayout

OnAttention = Callable[[int, AttentionOperator, TokenLayout], None]
"""Called for each layer as it happens: (layer, operator, layout)."""


NAMED = 4
"""Modules without attention that a note names."""


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
        self._modules, self._attending = set(model.modules()), set[nn.Module]()
        self._attends_elsewhere = False
        self._in_compiled_function = False

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

    def _finish(self) -> None:
        """Says at the end of a watch what was not seen."""
        name = type(self._model).__name__
        if self._tracker.too_many_axes:
            self.notes.append(f"left out: {self._tracker.too_many_axes} softmax(es) over more than four axes")
        if self._tracker.unapplied:
            raise CaptureError(
                f"{self._tracker.unapplied} softmax(es) over tokens were seen in {name}, but their "
                "result was changed before it met the values (heads mixed or weights edited)\n"
                "such attention is no single matrix a head, so it is not shown"
            )
        if not self.errors:
            seen = f" ({'; '.join(self.notes)})" if self.notes else ""
            elsewhere = ", but some in modules that are not its own" if self._attends_elsewhere else ""
            raise CaptureError(
                f"no attention among tokens was seen in {name}{seen}{elsewhere}\n"
                "it has none, was not run inside the context (and in its thread), or runs in a kernel that torch does "
                "not know: switch the model to F.scaled_dot_product_attention"
            )
        overlooked = overlooked_modules(self._model, self._attending)
        if overlooked:
            more = f" and {len(overlooked) - NAMED} more" if len(overlooked) > NAMED else ""
            self.notes.append(
                f"no attention was seen in {', '.join(overlooked[:NAMED])}{more}, though built like modules in "
                "which it was: skipped in this pass, or run in a kernel that torch does not know; the layers' numbers "
                "count only what was seen"
            )
        if self._in_compiled_function or has_compiled_part(self._model):
            self.notes.append(NOTE)

    def _see_call(self, call: Any, args: tuple[Any, ...], kwargs: dict[str, Any], returned: Any) -> None:
        if torch._C._current_graph_task_id() != -1:  # backward, where checkpointed blocks run once more
            return
        given = in_order(call, args, kwargs)
        if _may_attend(call) and not self._is_inside(running_modules()):
            self._attends_elsewhere = True
        elif call is F.scaled_dot_product_attention:
            refuse_unreal(returned)
            self._see_attention(calls.from_sdpa(args, kwargs, returned, self._reader.batch or returned.shape[0]))
        elif call is F.multi_head_attention_forward:
            refuse_unreal(returned[0])
            self._see_attention(calls.from_multi_head(args, kwargs, returned))
        elif isinstance(call, HigherOrderOperator):
            refuse_unreal(returned[0])
            self._see_attention(from_flex(args, kwargs, returned))
        elif kernels.is_kernel(call):
            self._see_kernel(call, args, kwargs, returned)
        elif call is F.embedding:
            self._reads_text = bool(self.errors)  # position embeddings come before the first attention
        else:
            self._read(call, given, returned)
            self._see_softmax(call, given, returned)

    def _read(self, call: Any, given: tuple[Any, ...], returned: Any) -> None:
        if not self.errors:
            if not self._reader.may_begin(call) or self._is_inside(running_modules()):
                self._reader.see(call, given, returned)
        elif self._reader.reads_again(call, given) and self._is_inside(running_modules()):
            raise CaptureError(
                "a second image was read in one watch\nopen watch_attention() anew for each forward pass"
            )

    def _see_kernel(self, call: Any, args: tuple[Any, ...], kwargs: dict[str, Any], returned: Any) -> None:
        attention = kernels.from_kernel(call, args, kwargs, returned, self._reader.batch)
        if attention is not None:
            self._see_attention(attention)
        elif kernels.looks_like_attention(args, kwargs):
            note = f"{kernels.name_of(call)} got three tensors like queries, keys and values, but is no plain attention"
            self.notes += [note] * (note not in self.notes)

    def _is_inside(self, running: list[nn.Module]) -> bool:
        """Whether a call is the watched model's; calls outside all modules are taken for it."""
        return not running or not self._modules.isdisjoint(running)

    def _see_softmax(self, call: Any, given: tuple[Any, ...], returned: Any) -> None:
        if call in SoftmaxTracker.SOFTMAXES:
            refuse_unreal(returned)
        attention = self._tracker.see(call, given, returned, self._reader.batch)
        if attention is not None:
            self._see_attention(attention)

    def _see_attention(self, attention: calls.Attention) -> None:
        self._attending |= self._modules.intersection(running_modules())
        self._in_compiled_function |= is_in_compiled_function()
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
            raise _nan_in(operator, layer)
        proof.check(attention.error, attention.dtype, layer)
        self.errors.append(attention.error)
        if self._on_attention is None:
            self.layers.append(operator.compact())
        else:
            self._on_attention(layer, operator, self._layout)


def _may_attend(call: Any) -> bool:
    plain = call is F.scaled_dot_product_attention or call is F.multi_head_attention_forward
    operator = isinstance(call, (HigherOrderOperator, OpOverload, OpOverloadPacket))
    return plain or operator or call in SoftmaxTracker.SOFTMAXES


def _nan_in(operator: AttentionOperator, layer: int) -> NumericError:
    rows = operator.rows(proof.rows_to_try(operator.shape[2]))  # (batch, heads, chosen, keys)
    images = rows.isnan().flatten(1).any(1).nonzero()
    what, image = ("attention is NaN", int(images[0])) if len(images) else ("attention applied to values is NaN", None)
    where = f"layer {layer}" if image is None else f"layer {layer}, image {image} of the batch"
    return NumericError(f"{where}: {what}\ncheck the weights, the images and the precision", image=image)


class _Mode(TorchFunctionMode):
    """Lets every call through unchanged, then shows it to the watch."""

    SEEN = frozenset(
        {F.scaled_dot_product_attention, F.multi_head_attention_forward}
        | ImageReader.CALLS | SoftmaxTracker.CALLS
    )  # fmt: skip
    BY_NAME: ClassVar[dict[str, Any]] = {f"aten::{call.__name__}": call for call in SEEN}  # as in exported programs

    def __init__(self, watched: Watched) -> None:
        super().__init__()
        self._watched = watched

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        returned = func(*args, **kwargs)
        if func in self.SEEN:
            self._watched._see_call(func, args, kwargs, returned)
        elif isinstance(func, (OpOverload, OpOverloadPacket)):
            call = self.BY_NAME.get(kernels.name_of(func), func)
            if call is not func or kernels.is_kernel(func):
                self._watched._see_call(call, args, kwargs, returned)
        elif isinstance(func, HigherOrderOperator) and func.name() == "flex_attention":
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

    Also seen: `flex_attention`, exported programs, and kernels of other libraries that are registered with torch
    (flash-attn, xformers). Compiled parts run eagerly while they are watched. `docs/exotic.md` has the rest.
    `nn.TransformerEncoder` with a padding mask takes its path without nested tensors while it is watched.

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
    refuse_unwatchable(model)
    watched = Watched(model, layout, on_attention)
    with compiled_parts_run_eagerly(), seeing_torch_modules(model, watched._see_attention), _Mode(watched):
        yield watched
    watched._finish()
