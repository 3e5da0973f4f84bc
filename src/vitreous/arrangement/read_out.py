"""Whether a token's features tell where in the image it stands: a linear regression, in closed form."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from vitreous.errors import ConfigError, NumericError, ShapeError

CONSTANT = torch.finfo(torch.float32).eps ** 2
"""A feature whose variance is less than this share of its mean square varies by rounding only."""


class ReadOut:
    """Linear least squares from the features of a token, and a constant, to the (row, column) of its centre in [0, 1].

    Only float64 sums are kept, (width, width) and (patches, width) twice, so that memory does not grow with the images.
    Where features are not independent, many regressions fit equally well; the smallest is taken, after features are
    scaled to equal deviation.

    Args:
        grid: (rows, columns) of the maps.

    Raises:
        ConfigError: if it has a single position.
    """

    def __init__(self, grid: tuple[int, int]) -> None:
        rows, columns = grid
        if rows < 1 or columns < 1 or rows * columns == 1:
            raise ConfigError(f"the grid is {rows} x {columns}; a position can be told from 2 positions on")
        self.grid = grid
        centres = torch.cartesian_prod(_centres(rows), _centres(columns))  # (patches, 2)
        self._targets = centres - centres.mean(dim=0)
        self._origin: Tensor | None = None  # near the features' mean: sums of squares keep their digits
        self._fitted, self._held_out = _Sums(), _Sums()

    def add(self, features: Tensor, held_out: Tensor) -> None:
        """Counts more images in.

        Args:
            features: (batch, rows, columns, width).
            held_out: (batch,) bool; whether the R^2 is told on the image, and not fitted to it.

        Raises:
            ShapeError: if the maps have another grid.
        """
        if features.ndim != 4 or tuple(features.shape[1:3]) != self.grid:
            rows, columns = self.grid
            raise ShapeError(f"features are {tuple(features.shape)}, but must be (batch, {rows}, {columns}, width)")
        if not len(features):
            return
        tokens = features.detach().flatten(1, 2).double()  # (batch, patches, width)
        if self._origin is None:
            self._origin = tokens.mean(dim=(0, 1))
        tokens = tokens - self._origin
        chosen = held_out.to(tokens.device)
        self._fitted.add(tokens[~chosen])
        self._held_out.add(tokens[chosen])

    def r_squared(self) -> float:
        """Share of the position's variance that is read out of held-out images, mean of rows and columns; at most 1.

        1 if features tell the position exactly, 0 if no more than its mean, below 0 if the regression misleads. The
        axis of a grid of one row or column is left out.

        Raises:
            ConfigError: if no image was held out, or none was fitted to.
            NumericError: if features are NaN or infinite.
        """
        fitted, held_out = self._fitted, self._held_out
        if not fitted.images or not held_out.images:
            raise ConfigError(
                f"a read-out was fitted to {fitted.images} images and held-out images are {held_out.images}; "
                "both must be at least 1: take 2 images or more"
            )
        targets = self._targets.to(fitted.products.device)
        mean = fitted.by_position.sum(dim=0) / (fitted.images * len(targets))  # (width,)
        products = fitted.products_around(mean)  # (width, width)
        if not products.isfinite().all():
            raise NumericError("features are NaN or infinite, so no position can be read out; the weights are broken")
        assert self._origin is not None
        size = products.diagonal() + fitted.images * len(targets) * (self._origin + mean).square()
        scale = torch.where(products.diagonal() > CONSTANT * size, products.diagonal().rsqrt(), 0)  # (width,)
        weights = _least_squares(products, fitted.by_position.T @ targets, scale)  # (width, 2)
        explained = (weights * (held_out.by_position.T @ targets)).sum(dim=0)
        squared = ((held_out.products_around(mean) @ weights) * weights).sum(dim=0)
        total = held_out.images * targets.square().sum(dim=0)  # about the mean; (2,), of rows and of columns
        axes = [axis for axis in (0, 1) if self.grid[axis] > 1]
        return float(((2 * explained - squared) / total)[axes].mean())


@dataclass(eq=False)
class _Sums:
    """Over images: of features at each position, (patches, width), and of their products, (width, width)."""

    images: int = 0
    by_position: Tensor = field(default_factory=lambda: torch.zeros(()))
    products: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add(self, tokens: Tensor) -> None:
        """(batch, patches, width)."""
        if not len(tokens):
            return
        self.images += len(tokens)
        self.by_position = self.by_position.to(tokens) + tokens.sum(dim=0)
        every = tokens.flatten(0, 1)  # (batch * patches, width)
        self.products = self.products.to(tokens) + every.T @ every

    def products_around(self, mean: Tensor) -> Tensor:
        """The products of features less a mean, (width,) -> (width, width)."""
        crossed = torch.outer(self.by_position.sum(dim=0), mean)
        return self.products - crossed - crossed.T + self.images * len(self.by_position) * torch.outer(mean, mean)


def _centres(length: int) -> Tensor:
    return (torch.arange(length, dtype=torch.float64) + 0.5) / length


def _least_squares(products: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
    """The smallest solution of products @ weights = targets, with features times `scale`: (width, 2).

    Directions that features do not take, but for rounding, have no weight.
    """
    values, vectors = torch.linalg.eigh(products * scale[:, None] * scale)
    least = values[-1] * len(values) * torch.finfo(torch.float64).eps
    inverse = torch.where(values > least, 1 / values, 0)
    weights: Tensor = scale[:, None] * (vectors @ (inverse[:, None] * (vectors.T @ (scale[:, None] * targets))))
    return weights
