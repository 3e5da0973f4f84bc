"""Mean and standard deviation over images, for every head of every layer, in a few numbers that can be merged."""

from __future__ import annotations

import torch
from torch import Tensor


class HeadMoments:
    """Count, mean and sum of squared differences over images, in float64.

    Images can come one by one, in batches, or on several processes whose moments are merged: the result is the
    same up to the order of float64 sums (Chan, Golub & LeVeque 1983, equations 1.5).
    """

    def __init__(self) -> None:
        self._layers: list[tuple[int, Tensor, Tensor]] = []  # count, mean (heads,), squares (heads,)

    def update(self, layer: int, per_image: Tensor) -> None:
        """Takes one layer's numbers: `per_image` (images, heads). Layers come in order, first layer first."""
        values = per_image.cpu().double()
        mean = values.mean(0)
        new = (len(values), mean, (values - mean).square().sum(0))
        if layer == len(self._layers):
            self._layers.append(new)
        else:
            self._layers[layer] = _merged(self._layers[layer], new)

    def merge(self, other: HeadMoments) -> None:
        """Takes what another process saw."""
        if not other._layers:
            return
        if not self._layers:
            self._layers = list(other._layers)
        else:
            self._layers = [_merged(a, b) for a, b in zip(self._layers, other._layers, strict=True)]

    def mean(self) -> Tensor:
        """Mean over images: (layers, heads)."""
        return torch.stack([mean for _, mean, _ in self._layers])

    def spread(self) -> Tensor:
        """Standard deviation over images, of the population: (layers, heads); 0 for one image."""
        return torch.stack([(squares / count).sqrt() for count, _, squares in self._layers])


def _merged(a: tuple[int, Tensor, Tensor], b: tuple[int, Tensor, Tensor]) -> tuple[int, Tensor, Tensor]:
    count = a[0] + b[0]
    step = b[1] - a[1]
    return count, a[1] + step * (b[0] / count), a[2] + b[2] + step.square() * (a[0] * b[0] / count)
