"""Where an image becomes tokens: seen in the calls that read it, and in the model's tables.

A ViT reads its image in one of three ways: a convolution whose stride is its kernel (a hybrid has more of them in
front), `unfold` and a linear layer, or a reshape into patches and a linear layer. All three tell the grid.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitreous.errors import CaptureError
from vitreous.tokens import TokenLayout

CLASS_TOKEN = re.compile(r"(^|_)(cls|class)(_|$)")
OTHER_PREFIX = re.compile(r"(^|_)(dist|distillation|reg|register|registers|storage)(_|$)")
POSITIONS = re.compile(r"pos(ition|_|emb|itional)")
ROTARY = re.compile(r"(^|[._])(rope|rot|rotary)([._]|$)")


@dataclass(frozen=True)
class Positions:
    """Position embeddings of the patches, prefix tokens left out: `table` is (rows, columns, width)."""

    name: str
    table: Tensor


def in_order(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """All arguments of a call; of a convolution input, weight, bias and stride, however they were given."""
    if call is not torch.conv2d:
        return (*args, *kwargs.values())
    named = dict(zip(("input", "weight", "bias", "stride"), args, strict=False)) | kwargs
    return named["input"], named["weight"], named.get("bias"), named.get("stride", 1)


class ImageReader:
    """Watches how one forward pass reads its image, up to its first attention."""

    PICKS = frozenset({torch.gather, torch.Tensor.gather, torch.index_select, torch.Tensor.index_select,
                       torch.take_along_dim, torch.flip, torch.Tensor.flip})  # fmt: skip
    JOINS = frozenset({torch.cat, torch.concat, torch.concatenate})
    RESHAPES = frozenset({torch.Tensor.reshape, torch.Tensor.view, torch.reshape})
    CALLS = PICKS | JOINS | RESHAPES | {torch.conv2d, F.linear, F.unfold, F.interpolate, torch.Tensor.permute,
                                        torch.permute, torch.Tensor.__getitem__}  # fmt: skip

    def __init__(self) -> None:
        self.batch: int | None = None
        self.image: tuple[int, ...] | None = None  # (channels, image_height, image_width)
        self.grid: tuple[int, int] | None = None  # (rows, columns) of the smallest map so far
        self.kernel: Tensor | None = None  # (width, channels, height, width) of the first layer
        self.width: int | None = None  # of a token
        self.table_grid: tuple[int, int] | None = None  # of a position table that was resampled in this pass
        self._patch: tuple[int, int] | None = None  # pixels that one place of the grid stands for, both ways
        self._reordered = False  # tokens were picked by index before the first attention
        self._weight: Tensor | None = None  # what `kernel` is a copy of
        self._joined: tuple[int, ...] = ()  # tokens in each part of the newest sequence that was put together
        self._patches: Tensor | None = None  # (batch, channels, rows, height, columns, width), before a linear
        self._order = (1, 3, 5)  # of channels, height, width in a flattened patch
        self._patch_shape: tuple[int, int, int] | None = None  # (channels, height, width)

    def see(self, call: Any, given: tuple[Any, ...], returned: Any) -> None:
        """Notes what a call tells about the image; most calls tell nothing. `given` are all its arguments in order."""
        first = given[0] if given else None
        if call in self.JOINS:
            self._join(first, returned)
        elif not isinstance(first, Tensor):
            return
        elif call is torch.conv2d:
            self._convolution(first, given[1], given[3], returned)
        elif call is F.linear and self._patch_shape is not None and self.kernel is None:
            self._linear(given[1])
        elif call in self.RESHAPES and self.image is None:
            self._reshape(first, returned)
        elif call in (torch.Tensor.permute, torch.permute) and first is self._patches:
            axes = given[1] if isinstance(given[1], (tuple, list)) else given[1:]
            self._order = tuple(axis for axis in axes if axis in (1, 3, 5))
        elif call is F.unfold and self.image is None:
            self._unfold(first, given[1], returned)
        elif call is F.interpolate and first.ndim == 4 and self.table_grid is None:
            self.table_grid = (first.shape[-2], first.shape[-1])
        elif self.image is not None and returned.ndim == 3:
            by_index = call is torch.Tensor.__getitem__ and _has_tensor(given[1])
            self._reordered = self._reordered or call in self.PICKS or by_index

    def may_begin(self, call: Any) -> bool:
        """Whether the image may be read in this call."""
        return self.image is None or call is torch.conv2d

    def reads_again(self, call: Any, given: tuple[Any, ...]) -> bool:
        """Whether something like the image is read, or embedded by the same weights, in this call."""
        if call in (torch.conv2d, F.linear) and given[1] is self._weight:
            return True
        reads = call is torch.conv2d or call is F.unfold or call in self.RESHAPES
        return reads and isinstance(given[0], Tensor) and given[0].ndim == 4 and given[0].shape[1:] == self.image

    def _starts(self, image: Tensor) -> None:
        self.batch, self.image = image.shape[0], tuple(image.shape[1:])
        self.grid, self._patch = (image.shape[-2], image.shape[-1]), (1, 1)

    def _convolution(self, image: Tensor, kernel: Tensor, stride: Any, returned: Tensor) -> None:
        if image.ndim != 4:
            return
        if self.image is None:
            self._starts(image)
            self._weight, self.kernel = kernel, kernel.detach().clone()  # a sharded weight is gone after the pass
            self.table_grid = None  # an interpolation before this resized the image
        before, after = (int(image.shape[-2]), int(image.shape[-1])), (int(returned.shape[-2]), int(returned.shape[-1]))
        assert self.grid is not None and self._patch is not None
        if before < self.grid:  # pooled in between
            self._shrink(before, (round(self.grid[0] / before[0]), round(self.grid[1] / before[1])))
        if before == self.grid and after < before:  # not the shorter way around a block that has shrunk already
            self._shrink(after, (stride, stride) if isinstance(stride, int) else (stride[0], stride[-1]))
        self.width = returned.shape[1]

    def _shrink(self, grid: tuple[int, int], by: tuple[int, int]) -> None:
        assert self._patch is not None
        self.grid, self._patch = grid, (self._patch[0] * by[0], self._patch[1] * by[1])

    def _reshape(self, image: Tensor, patches: Tensor) -> None:
        if image.ndim != 4 or patches.ndim != 6 or patches.shape[1] != image.shape[1]:
            return
        rows, height, columns, width = patches.shape[2:]
        if (rows * height, columns * width) == tuple(image.shape[-2:]):
            self._starts(image)
            self.grid, self._patches, self._patch = (rows, columns), patches, (height, width)
            self._patch_shape = (image.shape[1], height, width)

    def _unfold(self, image: Tensor, size: Any, returned: Tensor) -> None:
        height, width = (size, size) if isinstance(size, int) else size
        rows, columns = image.shape[-2] // height, image.shape[-1] // width
        if rows * columns == returned.shape[-1]:  # stride equals kernel
            self._starts(image)
            self.grid, self._patch = (rows, columns), (height, width)
            self._patch_shape = (image.shape[1], height, width)

    def _join(self, parts: Any, returned: Tensor) -> None:
        if self.image is not None and isinstance(parts, (tuple, list)) and returned.ndim == 3:
            lengths = tuple(part.shape[1] for part in parts if part.ndim == 3)
            if sum(lengths) == returned.shape[1]:
                self._joined = lengths

    def _linear(self, weight: Tensor) -> None:
        assert self._patch_shape is not None
        if weight.shape[1] != math.prod(self._patch_shape):
            return
        self._weight, self.width = weight, weight.shape[0]
        sizes = dict(zip((1, 3, 5), self._patch_shape, strict=True))
        kernel = weight.detach().clone().unflatten(1, [sizes[axis] for axis in self._order])
        self.kernel = kernel.permute(0, *(1 + self._order.index(axis) for axis in (1, 3, 5)))

    def layout(self, model: nn.Module, tokens: int) -> TokenLayout:
        """The layout of `tokens` tokens.

        Raises:
            CaptureError: if it cannot be told, with what is missing.
        """
        if self.image is None or self.grid is None:
            raise _untold(
                "attention was seen, but not how the image becomes patches (no convolution, unfold or reshape into "
                "patches read it)"
            )
        rows, columns = self.grid
        if self._reordered:
            raise _untold("tokens are picked or shuffled by index before the first attention, so their places are lost")
        prefix = tokens - rows * columns
        if prefix < 0:
            raise _untold(
                f"the image became {rows} x {columns} patches, but the first attention has only {tokens} tokens: "
                "patches were dropped or merged"
            )
        if prefix and sum(self._joined) == tokens and self._joined[-1] != rows * columns:
            raise _untold(
                f"the sequence was put together from {' + '.join(map(str, self._joined))} tokens, "
                f"and its {rows * columns} patches are not the last part"
            )
        assert self._patch is not None
        return TokenLayout(prefix, rows, columns, *self._patch, _class_token(model, prefix))


def _untold(what: str) -> CaptureError:
    remedy = "pass layout=TokenLayout(prefix, rows, columns, patch_height, patch_width, class_token)"
    return CaptureError(f"{what}\n{remedy}")


def _has_tensor(index: Any) -> bool:
    return any(isinstance(part, Tensor) for part in (index if isinstance(index, tuple) else (index,)))


def _class_token(model: nn.Module, prefix: int) -> int | None:
    """Index of the class token: every prefix token is accounted for by a table of the model that is named like one."""
    if prefix == 0:
        return None
    classes, others = 0, 0
    for name, table in _tensors(model):
        leaf = name.rpartition(".")[2].lower()
        if table.ndim and table.is_floating_point() and "mask" not in leaf:
            count = table.numel() // table.shape[-1]
            if CLASS_TOKEN.search(leaf) and count == 1:
                classes = 1
            elif OTHER_PREFIX.search(leaf) and count <= prefix:
                others += count
    if classes + others == prefix:
        return 0 if classes else None
    raise _untold(
        f"{prefix} token(s) stand before the patches, but parameters named like a class token, distillation token or "
        f"registers account for {classes + others}"
    )


def find_positions(
    model: nn.Module, layout: TokenLayout, width: int, table_grid: tuple[int, int] | None
) -> Positions | None:
    """Position embeddings of the patches, by name and shape; None where the model has no such table.

    Args:
        model: any ViT.
        layout: of the pass that was watched.
        width: of a token.
        table_grid: (rows, columns) of the table where it was seen to be resampled, else None: it fits the layout.
    """
    rows, columns = table_grid or (layout.rows, layout.columns)
    for name, table in _tensors(model):
        if table.ndim < 2 or table.shape[-1] != width or not POSITIONS.search(name.lower()):
            continue
        if ROTARY.search(name.lower()):  # sines and cosines for queries and keys; of two heads, as wide as a token
            continue
        entries = table.numel() // width
        if rows * columns <= entries <= rows * columns + layout.prefix:  # prefix rows come first
            whole = table.full_tensor() if hasattr(table, "full_tensor") else table  # sharded over processes
            patches = whole.detach().reshape(entries, width)[entries - rows * columns :]
            return Positions(name.replace("_orig_mod.", ""), patches.unflatten(0, (rows, columns)))
    return None


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters, buffers and plain tensor attributes, each with its dotted name."""
    yield from model.named_parameters()
    yield from model.named_buffers()
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                yield f"{path}.{name}", value
