"""How far a mean of a few runs may be from the mean of all: Student's t."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vitreous.checking import check_count
from vitreous.errors import ConfigError

CONFIDENCE = 0.95
"""Share of such intervals that hold the true mean, if results scatter as a normal distribution does."""


@dataclass(frozen=True)
class Estimate:
    """What several runs of one kind gave.

    Attributes:
        values: one a run.
        mean: of them.
        half_width: of the interval around the mean; None for a single run, which tells nothing of its scatter.
    """

    values: tuple[float, ...]
    mean: float
    half_width: float | None


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and 95 % t-interval: t s / sqrt(n), s with n - 1 below the squares.

    Raises:
        ConfigError: if there is no value.
    """
    count = len(values)
    if not count:
        raise ConfigError("there is no run to take the mean of; make at least one")
    mean = math.fsum(values) / count
    if count == 1:
        return Estimate(tuple(values), mean, None)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    quantile = student_quantile((1 + CONFIDENCE) / 2, count - 1)
    return Estimate(tuple(values), mean, quantile * deviation / math.sqrt(count))


def student_quantile(share: float, freedom: int) -> float:
    """What a t-distributed number stays below in this share of cases; 0 at one half.

    Args:
        share: above 0 and below 1.
        freedom: degrees of freedom, at least 1.

    Raises:
        ConfigError: if one of them is not.

    Source: Abramowitz & Stegun 1964, equations 26.7.3 and 26.7.4, halved until no number lies between.
    """
    check_count("freedom", freedom, least=1)
    if not 0 < share < 1:
        raise ConfigError(f"share is {share!r}; it is above 0 and below 1")
    if share < 0.5:
        return -student_quantile(1 - share, freedom)
    lowest, highest = 0.0, math.pi / 2  # of the angle, whose tangent grows without end
    while lowest < (middle := (lowest + highest) / 2) < highest:
        if (1 + _within(middle, freedom)) / 2 < share:
            lowest = middle
        else:
            highest = middle
    return math.sqrt(freedom) * math.tan(middle)


def _within(angle: float, freedom: int) -> float:
    """Probability that t is between -sqrt(freedom) tan(angle) and the same above 0: a finite sum for whole degrees."""
    sine, cosine = math.sin(angle), math.cos(angle)
    is_odd = freedom % 2
    term = cosine if is_odd else 1.0
    total = term if freedom > 1 else 0.0
    for step in range(2 + is_odd, freedom - 1, 2):
        term *= cosine * cosine * (step - 1) / step
        total += term
    return (angle + sine * total) * 2 / math.pi if is_odd else sine * total
