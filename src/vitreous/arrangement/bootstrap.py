"""How far a mean over images would be from itself with other images: a bootstrap that never holds the images.

An ordinary resample draws each of n images about once, some never, some several times. Each image's count is nearly a
Poisson number of mean 1, so that counts can be drawn image by image, while images go by. Here they are a function of
(seed, sample): all models and changes are weighed alike, and a difference of two of their means is one of pairs.

Source: Hanley & MacGibbon 2006, Computer Methods and Programs in Biomedicine 83(1); Chamandy et al. 2012, "Estimating
uncertainty for massive data streams".
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from vitreous.arrangement.result import Interval
from vitreous.checking import check_count
from vitreous.data.order import keyed_seed, uniform
from vitreous.errors import ShapeError

RESAMPLES = 1000

DIGITS = 12
"""Behind the point, of numbers and their ends: differences of equal numbers are 0, and not a rounding error."""

_PURPOSE = 100  # so that the weights have nothing to do with the changes drawn from the same seed
_LARGEST = 12  # a Poisson number of mean 1 is above this once in 10^10


@dataclass(frozen=True)
class Weights:
    """How often each image is in each resample.

    Attributes:
        seed: of the run.
        resamples: how many; at least 1.
    """

    seed: int
    resamples: int = RESAMPLES

    def __post_init__(self) -> None:
        check_count("resamples", self.resamples, least=1)

    def of(self, samples: Tensor) -> Tensor:
        """Counts of some images, (batch,) int64 -> (batch, resamples) float64: Poisson numbers of mean 1."""
        chance = torch.tensor([math.exp(-1) / math.factorial(n) for n in range(_LARGEST)], dtype=torch.float64)
        numbers = uniform(samples, self.resamples, seed=keyed_seed(self.seed, _PURPOSE), epoch=0).double()
        return torch.searchsorted(chance.cumsum(0), numbers, right=True).double()


@dataclass(frozen=True, eq=False)
class Resampled:
    """A number, and what it is in each resample of the images.

    Attributes:
        value: of all images, each counted once.
        replicates: (resamples,) float64; none of a single image, NaN for a resample that has no image.
    """

    value: float
    replicates: Tensor

    def interval(self) -> Interval:
        """The number between the 2.5th and 97.5th percentile of its resamples; without ends where there are none."""
        told = self.replicates[self.replicates.isfinite()]
        ends = torch.quantile(told, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist() if len(told) else []
        return Interval(*(round(number, DIGITS) + 0.0 for number in (self.value, *ends)))  # + 0: never -0


def combined(terms: Iterable[tuple[float, Resampled]], *, added: float = 0.0) -> Resampled:
    """The sum of some numbers, each times a factor: all of the same resamples, so that pairs stay pairs.

    Args:
        terms: (factor, number); at least one.
        added: a constant.
    """
    factors, numbers = zip(*terms, strict=True)
    return Resampled(
        added + math.fsum(factor * number.value for factor, number in zip(factors, numbers, strict=True)),
        added + sum(factor * number.replicates for factor, number in zip(factors, numbers, strict=True)),
    )


class Means:
    """Means over images of some measures, and of all their resamples; only sums are kept."""

    def __init__(self) -> None:
        self.images = 0
        self._sums = self._weighted = self._weight = torch.zeros((), dtype=torch.float64)

    def add(self, values: Tensor, weights: Tensor) -> None:
        """Counts more images in.

        Args:
            values: (batch, measures); NaN where something cannot be told makes the mean NaN.
            weights: (batch, resamples), of `Weights`.

        Raises:
            ShapeError: if they are not of the same images.
        """
        if values.ndim != 2 or weights.ndim != 2 or len(values) != len(weights):
            raise ShapeError(
                f"values are {tuple(values.shape)}, weights {tuple(weights.shape)}; they must be (batch, measures) "
                "and (batch, resamples)"
            )
        values = values.double()
        self.images += len(values)
        self._sums = self._sums + values.sum(0)  # (measures,)
        self._weighted = self._weighted + values.T @ weights  # (measures, resamples)
        self._weight = self._weight + weights.sum(0)  # (resamples,)

    def measure(self, index: int) -> Resampled:
        """The mean of one measure.

        Raises:
            ShapeError: if no image was counted in.
        """
        if not self.images:
            raise ShapeError("there is no mean of no image; add some first")
        replicates = self._weighted[index] / self._weight
        return Resampled(float(self._sums[index]) / self.images, replicates if self.images > 1 else replicates[:0])
