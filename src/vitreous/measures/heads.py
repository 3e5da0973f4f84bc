"""The measures that say one number for every query of every head; one pass over the scores serves them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from vitreous.capture.operator import RowStatistics
from vitreous.measures.distance import attention_distance, longest_distance, renormalized_distance
from vitreous.measures.entropy import attention_entropy, highest_entropy
from vitreous.measures.mass import prefix_mass
from vitreous.tokens import TokenLayout


class HeadMeasure(NamedTuple):
    """How a number is read off the statistics of the rows, and the largest that it can be."""

    values: Callable[[RowStatistics, TokenLayout], Tensor]
    highest: Callable[[TokenLayout], float]


HEAD_MEASURES = {
    "attention_distance": HeadMeasure(attention_distance, longest_distance),
    "attention_distance_renormalized": HeadMeasure(renormalized_distance, longest_distance),
    "attention_entropy": HeadMeasure(attention_entropy, highest_entropy),
    "prefix_mass": HeadMeasure(prefix_mass, lambda layout: 1.0),
}
"""By the name they have in an `Inspection`."""
