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
REGISTERS = re.compile(r"(^|_)(reg|register|registers|storage)(_|$)")
POSITIONS = re.compile(r"pos(ition|_|emb|itional)")


@dataclass(frozen=True)
class Positions:
    """Position embeddings of the patches, prefix tokens left out: `table` is (rows, columns, width)."""

    name: str
    table: Tensor


class ImageReader:
    """Watches how one forward pass reads its image, up to its first attention."""

    CALLS = frozenset({
        torch.conv2d, F.linear, F.unfold, F.interpolate, torch.Tensor.reshape, torch.Tensor.view, torch.reshape,
        torch.Tensor.permute, torch.permute, torch.gather, torch.Tensor.gather, torch.index_select,
    })  # fmt: skip

    def __init__(self) -> None:
        self.batch: int | None = None
        self.image: tuple[int, int] | None = None  # (image_height, image_width)
        self.grid: tuple[int, int] | None = None  # (rows, columns) of the newest patch-like map
        self.kernel: Tensor | None = None  # (width, channels, height, width) of the first layer
        self.width: int | None = None  # of a token
        self.table_grid: tuple[int, int] | None = None  # of a position table that was resampled in this pass
        self.reordered = False  # tokens were picked by index before the first attention
        self._first_weight: Tensor | None = None
        self._patches: Tensor | None = None  # (batch, channels, rows, height, columns, width), until a linear takes it
        self._order = (1, 3, 5)  # of channels, height, width in a flattened patch
        self._patch_shape: tuple[int, int, int] | None = None  # (channels, height, width)

    def see(self, call: Any, args: tuple[Any, ...], kwargs: dict[str, Any], returned: Any) -> None:
        """Notes what a call tells about the image; most calls tell nothing."""
        if call is torch.conv2d:
            self._convolution(args[0], args[1] if len(args) > 1 else kwargs["weight"], returned)
        elif call is F.linear and self._patch_shape is not None and self.kernel is None:
            self._linear(args[1] if len(args) > 1 else kwargs["weight"])
        elif call in (torch.Tensor.reshape, torch.Tensor.view, torch.reshape) and self.image is None:
            self._reshape(args[0], returned)
        elif call in (torch.Tensor.permute, torch.permute) and args[0] is self._patches:
            axes = args[1] if isinstance(args[1], (tuple, list)) else args[1:]
            self._order = tuple(axis for axis in axes if axis in (1, 3, 5))
        elif call is F.unfold and self.image is None:
            self._unfold(returned, args, kwargs)
        elif call in (torch.gather, torch.Tensor.gather, torch.index_select) and returned.ndim == 3:
            self.reordered = self.reordered or self.image is not None
        elif call is F.interpolate and args and args[0].ndim == 4 and self.table_grid is None:
            self.table_grid = (args[0].shape[-2], args[0].shape[-1])

    def refuse_second_image(self, args: tuple[Any, ...]) -> None:
        """Raises CaptureError if the layer that read the image is called again."""
        if len(args) > 1 and self._first_weight is not None and args[1] is self._first_weight:
            raise CaptureError(
                "a second image was read in one watch\nopen watch_attention() anew for each forward pass"
            )

    def _starts(self, image: Tensor) -> None:
        self.batch, self.image = image.shape[0], (image.shape[-2], image.shape[-1])

    def _convolution(self, image: Tensor, kernel: Tensor, returned: Tensor) -> None:
        if image.ndim != 4:
            return
        if self.image is None:
            self._starts(image)
            self.kernel, self._first_weight = kernel.detach(), kernel
            self.table_grid = None  # an interpolation before this resized the image
        self.grid, self.width = (returned.shape[-2], returned.shape[-1]), returned.shape[1]

    def _reshape(self, image: Tensor, patches: Tensor) -> None:
        if image.ndim != 4 or patches.ndim != 6 or patches.shape[1] != image.shape[1]:
            return
        rows, height, columns, width = patches.shape[2:]
        if (rows * height, columns * width) == tuple(image.shape[-2:]):
            self._starts(image)
            self.grid, self._patches = (rows, columns), patches
            self._patch_shape = (image.shape[1], height, width)

    def _unfold(self, returned: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        image = args[0]
        size = args[1] if len(args) > 1 else kwargs["kernel_size"]
        height, width = (size, size) if isinstance(size, int) else size
        rows, columns = image.shape[-2] // height, image.shape[-1] // width
        if rows * columns == returned.shape[-1]:  # stride equals kernel
            self._starts(image)
            self.grid, self._patch_shape = (rows, columns), (image.shape[1], height, width)

    def _linear(self, weight: Tensor) -> None:
        assert self._patch_shape is not None
        if weight.shape[1] != math.prod(self._patch_shape):
            return
        self._first_weight, self.width = weight, weight.shape[0]
        sizes = dict(zip((1, 3, 5), self._patch_shape, strict=True))
        kernel = weight.detach().unflatten(1, [sizes[axis] for axis in self._order])
        self.kernel = kernel.permute(0, *(1 + self._order.index(axis) for axis in (1, 3, 5)))

    def layout(self, model: nn.Module, tokens: int) -> TokenLayout:
        """The layout of `tokens` tokens, or CaptureError with what is missing."""
        if self.image is None or self.grid is None:
            raise CaptureError(
                "attention was seen, but not how the image becomes patches (no convolution, unfold or reshape into "
                "patches read it)\n"
                "pass layout=TokenLayout(prefix, rows, columns, patch_height, patch_width, class_token)"
            )
        rows, columns = self.grid
        if self.reordered:
            raise CaptureError(
                "tokens are picked or shuffled by index before the first attention, so their places are not known\n"
                "switch random masking off, or pass layout= if the order is row by row all the same"
            )
        prefix = tokens - rows * columns
        if prefix < 0:
            raise CaptureError(
                f"the image became {rows} x {columns} patches, but the first attention has only {tokens} tokens: "
                "patches were dropped or merged\npass layout= if each token still has a place in a grid"
            )
        heights, widths = self.image[0] // rows, self.image[1] // columns
        return TokenLayout(prefix, rows, columns, heights, widths, _class_token(model, prefix))


def _class_token(model: nn.Module, prefix: int) -> int | None:
    """Index of the class token among the prefix tokens, told by the names of the model's single-token tables."""
    if prefix == 0:
        return None
    tables = [(name.rpartition(".")[2].lower(), table) for name, table in _tensors(model)]
    if any(CLASS_TOKEN.search(name) and table.numel() == table.shape[-1] for name, table in tables if table.ndim):
        return 0
    registers = {table.shape[-2] for name, table in tables if REGISTERS.search(name) and table.ndim > 1}
    if prefix in registers:
        return None
    raise CaptureError(
        f"{prefix} token(s) stand before the patches, and no parameter named like a class token or registers "
        "tells what they are\npass layout=TokenLayout(prefix, rows, columns, patch_height, patch_width, class_token)"
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
        if table.numel() == rows * columns * width:  # (rows, columns, width) or (1, patches, width)
            return Positions(name, table.detach().reshape(rows, columns, width))
        entries = table.numel() // width
        if rows * columns < entries <= rows * columns + layout.prefix:  # prefix rows come first
            return Positions(
                name, table.detach().reshape(entries, width)[-rows * columns :].unflatten(0, (rows, columns))
            )
    return None


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters, buffers and plain tensor attributes, each with its dotted name."""
    yield from model.named_parameters()
    yield from model.named_buffers()
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                yield f"{path}.{name}", value
