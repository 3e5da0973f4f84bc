"""Mean attention distance: how far, in pixels, each head looks (figure 7 right, figure 11)."""

from __future__ import annotations

import torch
from torch import Tensor

from vitreous.capture.operator import AttentionOperator
from vitreous.measures.moments import HeadMoments
from vitreous.tokens import TokenLayout


class AttentionDistance:
    """Expected distance between the position of a patch and the positions it attends to, in pixels of the input.

    A mean over patch queries, then over images; for every head. As in the paper's code: prefix tokens are left out as
    queries and as keys, the patch itself counts with distance 0, and rows are *not* rescaled to sum to 1, so a
    head that gives half of its attention to the class token shows half of its distance. `renormalized` rescales them.

    0 where every patch looks at itself; for uniform attention over 14 x 14 patches of 16 pixels, 116.49.

    Source: Dosovitskiy et al. 2021, figure 7 right and appendix D.7; the definition is the authors' own, given in
    google-research/vision_transformer issue 162.
    """

    def __init__(self) -> None:
        self.as_in_paper, self.renormalized = HeadMoments(), HeadMoments()

    def update(self, layer: int, operator: AttentionOperator, layout: TokenLayout) -> None:
        """Takes one layer of a batch of images."""
        rows = operator.statistics(layout.token_distances, layout.prefix)
        assert rows.cost is not None
        distance = layout.patch_tokens(rows.cost)  # (images, heads, patches)
        on_patches = layout.patch_tokens(rows.rest_mass)
        tiny = torch.finfo(distance.dtype).tiny  # a row wholly on prefix tokens has distance 0 either way
        self.as_in_paper.update(layer, distance.mean(-1))
        self.renormalized.update(layer, (distance / on_patches.clamp_min(tiny)).mean(-1))

    def merge(self, other: AttentionDistance) -> None:
        """Takes what another process saw."""
        self.as_in_paper.merge(other.as_in_paper)
        self.renormalized.merge(other.renormalized)

    def result(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, standard deviation over images, and renormalised mean: each (layers, heads), pixels."""
        return self.as_in_paper.mean(), self.as_in_paper.spread(), self.renormalized.mean()


def uniform_distance(layout: TokenLayout) -> float:
    """Mean attention distance of a head that attends to all patches alike, in pixels: a reference line."""
    y, x = torch.arange(layout.rows).double(), torch.arange(layout.columns).double()
    pairs = torch.outer(_pairs_apart(layout.rows - y), _pairs_apart(layout.columns - x))  # (rows, columns)
    apart = torch.hypot(y[:, None] * layout.patch_height, x[None] * layout.patch_width)
    return float((pairs * apart).sum() / layout.patches**2)


def _pairs_apart(counts: Tensor) -> Tensor:
    """Pairs so many steps apart, to either side; a patch and itself are one pair."""
    return torch.cat([counts[:1], 2 * counts[1:]])


def depth_trend(distance: Tensor) -> dict[str, float]:
    """What figure 7 right shows, as numbers: with depth the distance rises and the spread over heads falls.

    Args:
        distance: (layers, heads), pixels.

    Returns:
        First and last layer's mean and standard deviation over heads, in pixels, and the slopes of both against
        depth by least squares, in pixels a layer (0 for a single layer).
    """
    mean, spread = distance.double().mean(1), distance.double().std(1, correction=0)
    depth = torch.arange(len(mean), dtype=torch.float64)
    depth = depth - depth.mean()
    over = depth.square().sum().clamp_min(1)
    return {
        "first_layer_mean": float(mean[0]),
        "last_layer_mean": float(mean[-1]),
        "mean_per_layer": float((depth * mean).sum() / over),
        "first_layer_spread": float(spread[0]),
        "last_layer_spread": float(spread[-1]),
        "spread_per_layer": float((depth * spread).sum() / over),
    }
