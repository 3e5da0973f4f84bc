"""What is kept of every head of every layer over any number of images: a few numbers that can be merged."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

BINS = 64
"""Bins of a histogram, equal in width, from 0 to the largest value that is possible."""


class HeadMoments:
    """Mean and standard deviation over images, and a histogram over tokens and images, for every head of every layer.

    Images can come one by one, in batches, or on several processes whose moments are merged: the result is the
    same up to the order of float64 sums (Chan, Golub & LeVeque 1983, equations 1.5).
    """

    def __init__(self) -> None:
        self._images = 0
        self._mean = self._squares = torch.zeros(())  # each (layers, heads) float64
        self._counts = torch.zeros((), dtype=torch.int64)  # (layers, heads, BINS)

    def update(self, values: Tensor, highest: float) -> None:
        """Takes a batch of images.

        Args:
            values: (layers, images, heads, queries), from 0 to `highest`.
            highest: upper end of the histogram, the same for every batch.
        """
        self.merge(_of_batch(values.cpu(), highest))

    def merge(self, other: HeadMoments) -> None:
        """Takes what another process saw."""
        if not other._images:
            return
        images = self._images + other._images
        step = other._mean - self._mean
        self._squares = self._squares + other._squares + step.square() * (self._images * other._images / images)
        self._mean = self._mean + step * (other._images / images)
        self._counts = self._counts + other._counts
        self._images = images

    def mean(self) -> Tensor:
        """Mean over queries and images: (layers, heads)."""
        return self._mean

    def spread(self) -> Tensor:
        """Standard deviation over images, of the population, of the mean over queries: (layers, heads); 0 for one."""
        return (self._squares / self._images).sqrt()

    def histogram(self) -> Tensor:
        """How many queries of all images fell into each bin: (layers, heads, BINS) int64."""
        return self._counts

    def state(self) -> dict[str, Tensor]:
        """Everything, as tensors."""
        return {
            "images": torch.tensor(self._images),
            "mean": self._mean,
            "squares": self._squares,
            "counts": self._counts,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> HeadMoments:
        """What `state` gave."""
        moments = cls()
        moments._images = int(state["images"])
        moments._mean, moments._squares, moments._counts = state["mean"], state["squares"], state["counts"]
        return moments


def _of_batch(values: Tensor, highest: float) -> HeadMoments:
    layers, images, heads, _ = values.shape
    moments = HeadMoments()
    of_images = values.mean(-1, dtype=torch.float64)  # (layers, images, heads)
    moments._images = images
    moments._mean = of_images.mean(1)
    moments._squares = (of_images - moments._mean[:, None]).square().sum(1)
    bins = (values * (BINS / highest if highest else 0.0)).nan_to_num_(0, 0, 0).to(torch.int64).clamp_(0, BINS - 1)
    head = torch.arange(layers * heads).view(layers, 1, heads, 1)
    moments._counts = torch.bincount((head * BINS + bins).flatten(), minlength=layers * heads * BINS)
    moments._counts = moments._counts.view(layers, heads, BINS)
    return moments
