"""Few-shot linear evaluation: least squares from frozen features to {-1, 1}, in closed form.

For each number of shots so many training images of every class are drawn; their features are whitened (the mean taken
off, divided by the standard deviation + 1e-5) and a constant feature of 100 is added, so large that the bias is hardly
regularised. Then, with (N, D) features X and (N, C) targets Y, 1 for the image's class and -1 for all others,

    W = (X^T X + l2 I)^-1 X^T Y = X^T (X X^T + l2 I)^-1 Y,    l2 = 2^10,

and a test image is of the class with the largest x W.

Source: Dosovitskiy et al. 2021, section 4.1; google-research/big_vision, `evaluators/fewshot_lsr.py`, whose numbers
these are. It solves in float32, we in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitreous.checking import check_count
from vitreous.errors import ConfigError, InputError, NumericError
from vitreous.training.features import Features

SHOTS = (1, 5, 10, 25)
SEEDS = 3
L2 = 2.0**10
"""Weight of the squared weights; big_vision's default."""

_CONSTANT = 100.0
_STD_FLOOR = 1e-5
_ROWS = 8192  # test images that are compared at once


@dataclass(frozen=True)
class LinearReadOut:
    """Classes read from features: the largest of `features @ weights + bias`; whitening is folded into both.

    Attributes:
        weights: (width, classes) float64.
        bias: (classes,) float64.
    """

    weights: Tensor
    bias: Tensor

    def predict(self, features: Tensor) -> Tensor:
        """The class of each image, the first of several that are equal: (images, width) -> (images,) int64."""
        parts = features.split(_ROWS)
        return torch.cat([(part.double() @ self.weights + self.bias).argmax(1) for part in parts])

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Share of images whose class is right, in [0, 1]."""
        return (self.predict(features) == labels).double().mean().item()


@dataclass(frozen=True)
class FewShot:
    """How well classes are read from each layer after a few images of each.

    Attributes:
        layers: names, first layer first.
        shots: images of each class.
        accuracy: (layers, shots, seeds) float64, shares of the test images in [0, 1].
        notes: shots that were left out, and why.
    """

    layers: tuple[str, ...]
    shots: tuple[int, ...]
    accuracy: Tensor
    notes: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """How the classes were read."""
        return f"least squares, mean ± standard deviation over {self.accuracy.shape[-1]} draws"

    @property
    def lines(self) -> dict[str, Tensor]:
        """(layers, seeds) by the words for a number of shots: a column of a table, a line of a figure."""
        names = ["1 shot" if shots == 1 else f"{shots} shots" for shots in self.shots]
        return dict(zip(names, self.accuracy.unbind(1), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON: of each layer and number of shots the accuracy of every seed."""
        return {
            "how": "few-shot",
            "shots": list(self.shots),
            "accuracy": {
                name: dict(zip(map(str, self.shots), of_layer.tolist(), strict=True))
                for name, of_layer in zip(self.layers, self.accuracy, strict=True)
            },
            "notes": list(self.notes),
        }


def few_shot(
    learned: Features,
    tested: Features,
    labels: Tensor,
    classes: int,
    *,
    shots: Sequence[int] = SHOTS,
    seeds: int = SEEDS,
    l2: float = L2,
) -> FewShot:
    """Accuracy of every layer, number of shots and draw.

    Shots that a class has not enough images for take all that it has, as big_vision does; where no class has enough
    the number of shots is left out.

    Args:
        learned: of training images; at least those that `few_shot_samples` names.
        tested: of other images, from the same layers.
        labels: (images,) int64; of the whole training part, from which images are drawn.
        classes: how many there are.
        shots: images of each class.
        seeds: so many draws of images, from seed 0.
        l2: weight of the squared weights, above 0.

    Raises:
        ConfigError: if a number is too small.
        InputError: if a class has no training image.
        NumericError: if a feature is NaN or infinite.
    """
    check_count("seeds", seeds, least=1)
    kept, notes = _possible(labels, classes, shots)
    accuracy = torch.zeros(len(learned.layers), len(kept), seeds, dtype=torch.float64)
    for seed in range(seeds):
        order = few_shot_order(labels, classes, seed)
        for column, shot in enumerate(kept):
            drawn = torch.cat([of_class[:shot] for of_class in order])
            rows = learned.rows(drawn)
            for layer, (values, test_values) in enumerate(zip(learned.values, tested.values, strict=True)):
                read_out = fit_few_shot(values[rows], labels[drawn], classes, l2=l2)
                accuracy[layer, column, seed] = read_out.accuracy(test_values, tested.labels)
    return FewShot(learned.layers, kept, accuracy, notes)


def fit_few_shot(features: Tensor, labels: Tensor, classes: int, *, l2: float = L2) -> LinearReadOut:
    """The read-out of the head of this file, by the eigenvectors of the smaller of X^T X and X X^T.

    Args:
        features: (images, width).
        labels: (images,) int64.
        classes: how many there are; a class without images is possible, and unlikely to be predicted.
        l2: weight of the squared weights, above 0.

    Raises:
        ConfigError: if `l2` is not above 0.
        NumericError: if a feature is NaN or infinite.
    """
    if not l2 > 0:
        raise ConfigError(f"l2 is {l2!r}; it must be above 0, or few images have no single solution")
    if not features.isfinite().all():
        raise NumericError("a feature is NaN or infinite; the model's weights are broken")
    inputs = features.double()
    mean, deviation = inputs.mean(0), inputs.std(0, correction=0) + _STD_FLOOR
    constant = inputs.new_full((len(inputs), 1), _CONSTANT)
    inputs = torch.cat([(inputs - mean) / deviation, constant], dim=1)  # (images, width + 1)
    targets = 2 * torch.nn.functional.one_hot(labels, classes).to(inputs) - 1  # (images, classes)
    weights = _ridge(inputs, targets, l2)  # (width + 1, classes)
    scaled = weights[:-1] / deviation[:, None]
    return LinearReadOut(scaled, _CONSTANT * weights[-1] - mean @ scaled)


def few_shot_samples(labels: Tensor, classes: int, *, shots: Sequence[int] = SHOTS, seeds: int = SEEDS) -> Tensor:
    """The training images that `few_shot` draws with any seed, ascending: no other image's features are needed."""
    drawn = [of_class[: max(shots)] for seed in range(seeds) for of_class in few_shot_order(labels, classes, seed)]
    return torch.cat(drawn).unique()


def few_shot_order(labels: Tensor, classes: int, seed: int) -> list[Tensor]:
    """Indices of each class's images, shuffled: the first `shots` of them are drawn.

    Numpy's generator and order of draws are big_vision's, so that the same data set in the same order gives the same
    images.
    """
    generator = np.random.default_rng(seed)
    return [torch.from_numpy(generator.permutation(np.flatnonzero(labels.numpy() == n))) for n in range(classes)]


def _ridge(inputs: Tensor, targets: Tensor, l2: float) -> Tensor:
    """(N, D) and (N, C) -> (D, C); both forms give the same weights, the smaller matrix is taken apart."""
    if len(inputs) >= inputs.shape[1]:
        values, vectors = torch.linalg.eigh(inputs.T @ inputs)
        return (vectors / (values + l2)) @ (vectors.T @ (inputs.T @ targets))
    values, vectors = torch.linalg.eigh(inputs @ inputs.T)
    return (inputs.T @ (vectors / (values + l2))) @ (vectors.T @ targets)


def _possible(labels: Tensor, classes: int, shots: Sequence[int]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The shots that at least one class has images for, and a note on each that is left out or incomplete."""
    for shot in shots:
        check_count("shots", shot, least=1)
    images = torch.bincount(labels, minlength=classes)
    if not images.all():
        raise InputError(f"class {int(images.argmin())} has no training image; few-shot evaluation needs one of each")
    least, most = int(images.min()), int(images.max())
    kept = tuple(shot for shot in shots if shot <= most)
    notes = [f"{shot} shots are left out: no class has so many training images" for shot in shots if shot > most]
    notes += [f"{shot} shots: the smallest class has only {least} to draw from" for shot in kept if shot > least]
    return kept, tuple(notes)
