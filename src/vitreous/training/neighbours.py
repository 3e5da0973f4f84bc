"""k nearest neighbours: an image is of the class that the training images most like it vote for.

Likeness is the cosine of the features. In the weighted vote a neighbour counts exp(cosine / 0.07); in the plain one,
1. Where two classes have as many votes, the first is taken.

Source: Caron et al. 2021, arXiv 2104.14294 (DINO), `eval_knn.py`; the weights are those of Wu et al. 2018, arXiv
1805.01978.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.checking import check_count
from vitreous.errors import ConfigError
from vitreous.training.features import Features

NEIGHBOURS = (10, 20, 100, 200)
TEMPERATURE = 0.07
"""DINO's."""

_ROWS = 256  # test images that are compared at once: (256, training images) cosines are in memory


@dataclass(frozen=True)
class NearestNeighbours:
    """How well classes are read from each layer by the nearest training images.

    Attributes:
        layers: names, first layer first.
        neighbours: how many vote.
        weighted: (layers, neighbours) float64, shares of the test images that are right, in [0, 1].
        plain: the same where all votes count alike.
        notes: numbers of neighbours that were left out, and why.
    """

    layers: tuple[str, ...]
    neighbours: tuple[int, ...]
    weighted: Tensor
    plain: Tensor
    notes: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """How the classes were read."""
        return "nearest by cosine, weighted votes"

    @property
    def lines(self) -> dict[str, Tensor]:
        """(layers,) of the weighted vote by the words for a number of neighbours: a column, a line of a figure."""
        return dict(zip([f"k = {count}" for count in self.neighbours], self.weighted.unbind(1), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON: of each layer and number of neighbours the accuracy of both votes."""
        counts = list(map(str, self.neighbours))
        return {
            "how": "k-nn",
            "neighbours": list(self.neighbours),
            "weighted": {n: dict(zip(counts, v, strict=True)) for n, v in _rows(self.layers, self.weighted)},
            "plain": {n: dict(zip(counts, v, strict=True)) for n, v in _rows(self.layers, self.plain)},
            "notes": list(self.notes),
        }


def nearest_neighbours(
    learned: Features, tested: Features, classes: int, *, neighbours: Sequence[int] = NEIGHBOURS
) -> NearestNeighbours:
    """Accuracy of every layer, for each number of neighbours that there are training images for.

    Args:
        learned: of the images that vote.
        tested: of other images, from the same layers.
        classes: how many there are.
        neighbours: how many vote.

    Raises:
        ConfigError: if a number is below 1, or above the number of training images in all cases.
    """
    for count in neighbours:
        check_count("neighbours", count, least=1)
    images = len(learned.labels)
    kept = tuple(count for count in neighbours if count <= images)
    if not kept:
        raise ConfigError(f"neighbours is {tuple(neighbours)!r}, but there are only {images} training images")
    more = [count for count in neighbours if count > images]
    notes = [f"{count} neighbours are left out: there are only {images} training images" for count in more]
    found = torch.zeros(2, len(learned.layers), len(kept), dtype=torch.float64)
    for layer, (values, test_values) in enumerate(zip(learned.values, tested.values, strict=True)):
        answers = vote(values, learned.labels, test_values, classes, neighbours=kept)  # (2, neighbours, images)
        found[:, layer] = (answers == tested.labels).double().mean(-1)
    return NearestNeighbours(learned.layers, kept, found[0], found[1], tuple(notes))


def possible_neighbours(images: int) -> tuple[int, ...]:
    """DINO's numbers; where there are too few training images for the smallest of them, the nearest one before them."""
    return NEIGHBOURS if images >= min(NEIGHBOURS) else (1, *NEIGHBOURS)


def vote(
    features: Tensor, labels: Tensor, asked: Tensor, classes: int, *, neighbours: Sequence[int] = NEIGHBOURS
) -> Tensor:
    """The class of each image by its nearest neighbours: (2, neighbours, images) int64, weighted votes first.

    Args:
        features: (training images, width); a vector of zeros is as unlike every image as a right angle.
        labels: (training images,) int64.
        asked: (images, width).
        classes: how many there are.
        neighbours: how many vote, each at most the number of training images.
    """
    known = F.normalize(features.float(), dim=1).T.contiguous()  # (width, training images)
    answers = []
    for part in F.normalize(asked.float(), dim=1).split(_ROWS):
        cosines, nearest = (part @ known).topk(max(neighbours), dim=1)  # (images, most neighbours), nearest first
        weights = (cosines.double() / TEMPERATURE).exp()
        ballots = torch.stack([weights, torch.ones_like(weights)])  # (2, images, most neighbours)
        named = labels[nearest].expand_as(ballots)
        votes = [
            ballots.new_zeros(2, len(part), classes).scatter_add(2, named[..., :count], ballots[..., :count])
            for count in neighbours
        ]
        answers.append(torch.stack(votes, dim=1).argmax(-1))  # (2, neighbours, images)
    return torch.cat(answers, dim=2)


def _rows(layers: tuple[str, ...], values: Tensor) -> list[tuple[str, list[float]]]:
    return list(zip(layers, values.tolist(), strict=True))
