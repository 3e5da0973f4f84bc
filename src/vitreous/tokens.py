"""Which token is which: prefix tokens first, then patches row by row.

    tokens = [class, distillation, registers ...] + [patch (0, 0), patch (0, 1), ... patch (rows-1, columns-1)]

Nobody else in the package slices off the class token or takes the square root of a token count.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from vitreous.errors import ShapeError


@dataclass(frozen=True)
class TokenLayout:
    """Where each token of a sequence stands in the image.

    Attributes:
        prefix: tokens before the patches (class, distillation, registers); may be 0.
        rows: patches from top to bottom.
        columns: patches from left to right.
        patch_height: pixels of the model's input that one token stands for, vertically; a hybrid's whole stride.
        patch_width: the same, horizontally.
        class_token: index of the class token, or None where there is none.
    """

    prefix: int
    rows: int
    columns: int
    patch_height: int
    patch_width: int
    class_token: int | None = None

    def __post_init__(self) -> None:
        if self.prefix < 0:
            raise ShapeError(f"prefix is {self.prefix}; a layout has 0 or more tokens before the patches")
        for name in ("rows", "columns", "patch_height", "patch_width"):
            if getattr(self, name) < 1:
                raise ShapeError(f"{name} is {getattr(self, name)}; a layout needs at least 1")
        if self.class_token is not None and not 0 <= self.class_token < self.prefix:
            raise ShapeError(
                f"class_token is {self.class_token}, but only tokens 0 to {self.prefix - 1} stand before the patches"
            )

    @property
    def patches(self) -> int:
        """Tokens that stand for a place in the image."""
        return self.rows * self.columns

    @property
    def tokens(self) -> int:
        """All tokens: prefix and patches."""
        return self.prefix + self.patches

    @property
    def image_height(self) -> int:
        """Pixels that the patches cover, vertically."""
        return self.rows * self.patch_height

    @property
    def image_width(self) -> int:
        """Pixels that the patches cover, horizontally."""
        return self.columns * self.patch_width

    def patch_tokens(self, sequence: Tensor, axis: int = -1) -> Tensor:
        """Only the patches of a sequence: (..., tokens, ...) -> (..., patches, ...) along `axis`.

        Raises:
            ShapeError: if that axis is not `tokens` long.
        """
        self._check(sequence, axis, self.tokens, "tokens")
        return sequence.narrow(axis, self.prefix, self.patches)

    def to_grid(self, patches: Tensor) -> Tensor:
        """The last axis laid out as the image: (..., patches) -> (..., rows, columns).

        Raises:
            ShapeError: if the last axis is not `patches` long.
        """
        self._check(patches, -1, self.patches, "patches")
        return patches.unflatten(-1, (self.rows, self.columns))

    def centres(self) -> Tensor:
        """Centre of each patch in pixels of the model's input: (patches, 2) float64, y then x."""
        ys = (torch.arange(self.rows, dtype=torch.float64) + 0.5) * self.patch_height
        xs = (torch.arange(self.columns, dtype=torch.float64) + 0.5) * self.patch_width
        return torch.cartesian_prod(ys, xs)

    def distances(self) -> Tensor:
        """Euclidean distance between the centres of any two patches, in pixels: (patches, patches) float64."""
        offsets = self.centres()[:, None] - self.centres()[None]  # (patches, patches, 2)
        return offsets.square().sum(-1).sqrt()

    def token_distances(self, queries: slice) -> Tensor:
        """The same by rows and for all tokens, prefix rows and columns zero: (queries, tokens) float32.

        Made when asked for, so that the whole matrix never exists; `AttentionOperator.statistics` takes it as a cost.
        The newest answers are kept and shared: do not write into them.
        """
        return _token_distances(self, queries.start, queries.stop)

    @staticmethod
    def _check(tensor: Tensor, axis: int, expected: int, name: str) -> None:
        if tensor.shape[axis] != expected:
            raise ShapeError(
                f"axis {axis} of a tensor {tuple(tensor.shape)} has length {tensor.shape[axis]}, "
                f"but the layout has {expected} {name}"
            )


@lru_cache(maxsize=8)  # every layer asks for the same rows again
def _token_distances(layout: TokenLayout, start: int, stop: int) -> Tensor:
    first = max(start, layout.prefix)
    patches = torch.arange(first, max(first, stop)) - layout.prefix
    seen_from = _windows(layout)[
        layout.rows - 1 - patches // layout.columns, layout.columns - 1 - patches % layout.columns
    ]
    distances = torch.zeros(stop - start, layout.tokens)
    distances[first - start :, layout.prefix :] = seen_from.flatten(1)
    return distances


@lru_cache(maxsize=1)
def _windows(layout: TokenLayout) -> Tensor:
    """Distances by offset, each once, and all places of a grid on them: (rows, columns, rows, columns), a view.

    A distance depends on how many patches lie between, so a patch sees a window of one small table.
    """
    down = (torch.arange(2 * layout.rows - 1) - (layout.rows - 1)) * float(layout.patch_height)
    across = (torch.arange(2 * layout.columns - 1) - (layout.columns - 1)) * float(layout.patch_width)
    by_offset = torch.hypot(down[:, None], across)  # (2 * rows - 1, 2 * columns - 1)
    return by_offset.unfold(0, layout.rows, 1).unfold(1, layout.columns, 1)
