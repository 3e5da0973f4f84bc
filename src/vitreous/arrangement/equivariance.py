"""How far a layer's features move with the image: the error of "the map of a moved image is the moved map"."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vitreous.errors import ShapeError

Sides = tuple[tuple[slice, float], ...]
"""Of an axis of a map, the pieces and their weights whose sum is the moved map."""


class Equivariance:
    """Compares the features of moved images with the moved features of the images themselves.

        error = sum |moved - T still|^2 / (sum |moved - mean|^2 + sum |T still - mean|^2)

    T moves a map by offset / stride positions, between positions by bilinear interpolation; only positions whose
    origin lies inside of the map are compared. The mean is of each channel, over both and all that is compared. So the
    error is 0 for equal and 1 for unrelated features, and at most 2. Only float64 sums are kept.

    Args:
        stride: image pixels from one position of the map to the next, (down, right).

    Source: the condition is that of Zhang 2019, arXiv 1904.11486, section 3.1; the scale, by what varies, is ours.
    """

    def __init__(self, stride: tuple[float, float]) -> None:
        self.stride = stride
        self._origin: Tensor | None = None  # near the features: sums of squares keep their digits
        self._difference = self._squares = 0.0
        self._vectors = 0  # that were compared, two for each position
        self._sum = torch.zeros((), dtype=torch.float64)  # (width,)

    def add(self, still: Tensor, moved: Tensor, offsets: Tensor) -> None:
        """Counts more images in.

        Args:
            still: (batch, rows, columns, width), of the images.
            moved: of the images moved.
            offsets: (batch, 2) pixels, down and right, by which each was moved.

        Raises:
            ShapeError: if the maps differ in shape.
        """
        if still.shape != moved.shape or still.ndim != 4 or len(offsets) != len(still):
            raise ShapeError(
                f"maps {tuple(still.shape)} and {tuple(moved.shape)} with {len(offsets)} offsets cannot be compared; "
                "both must be (batch, rows, columns, width), with an offset for each image"
            )
        if not len(still):
            return
        if self._origin is None:
            self._origin = still[0, 0, 0].detach().double()
        for offset in torch.unique(offsets, dim=0).tolist():
            chosen = (offsets == torch.tensor(offset).to(offsets)).all(dim=1).to(still.device)
            before, after = (maps[chosen].detach().double() - self._origin for maps in (still, moved))
            self._compare(before, after, offset)

    def error(self) -> float | None:
        """0 if maps move with the image, about 1 if unrelated; None where nothing can be compared or varies."""
        if not self._vectors:
            return None
        variation = self._squares - float(self._sum.square().sum()) / self._vectors
        if variation <= 1e-13 * self._squares:  # rounding
            return None
        return self._difference / variation

    def _compare(self, still: Tensor, moved: Tensor, offset: list[int]) -> None:
        down = _origins(offset[0] / self.stride[0], still.shape[1])
        right = _origins(offset[1] / self.stride[1], still.shape[2])
        if down is None or right is None:
            return
        (rows, from_rows), (columns, from_columns) = down, right
        seen = moved[:, rows, columns]  # (batch, compared rows, compared columns, width)
        expected = torch.zeros_like(seen)
        for row, down_share in from_rows:
            for column, right_share in from_columns:
                expected += still[:, row, column] * (down_share * right_share)
        self._difference += float((seen - expected).square().sum())
        self._squares += float(seen.square().sum() + expected.square().sum())
        self._sum = self._sum.to(seen) + (seen + expected).sum(dim=(0, 1, 2))
        self._vectors += 2 * seen[..., 0].numel()


def _origins(steps: float, length: int) -> tuple[slice, Sides] | None:
    """Which positions of an axis have an origin on it when a map moves by so many steps, and where these lie."""
    whole = math.floor(steps + 1e-9)
    share = steps - whole
    if share < 1e-9:
        share = 0.0
    reach = whole + (1 if share else 0)  # origin of position n lies between n - reach and n - whole
    first, last = max(0, reach), min(length, length + whole)  # last is one past the end
    if first >= last:
        return None
    sides = [(slice(first - whole, last - whole), 1 - share)]
    if share:
        sides.append((slice(first - reach, last - reach), share))
    return slice(first, last), tuple(sides)
