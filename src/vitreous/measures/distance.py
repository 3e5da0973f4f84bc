"""Mean attention distance: how far, in pixels, each head looks (figure 7 right, figure 11)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vitreous.capture.operator import RowStatistics
from vitreous.tokens import TokenLayout


def attention_distance(rows: RowStatistics, layout: TokenLayout) -> Tensor:
    """Expected distance from each patch to the patches it attends to, in pixels of the input: (..., patches).

    Its mean over patches and images is the paper's mean attention distance. As in the authors' code prefix tokens are
    left out as queries and as keys, the patch itself counts with distance 0, and rows are *not* rescaled to sum to 1,
    so a head that gives half of its attention to the class token shows half of its distance.

    0 where every patch looks at itself; for uniform attention over 14 x 14 patches of 16 pixels, 116.49 on average.

    Args:
        rows: statistics with `layout.token_distances` as cost and `layout.prefix` as prefix.
        layout: which token is which.

    Source: Dosovitskiy et al. 2021, figure 7 right and appendix D.7; the definition is the authors' own, given in
    google-research/vision_transformer issue 162.
    """
    assert rows.cost is not None
    return layout.patch_tokens(rows.cost)


def renormalized_distance(rows: RowStatistics, layout: TokenLayout) -> Tensor:
    """The same with each row's patches rescaled to sum to 1: (..., patches); 0 for a row wholly on prefix tokens."""
    distance = attention_distance(rows, layout)
    return distance / layout.patch_tokens(rows.rest_mass).clamp_min(torch.finfo(distance.dtype).tiny)


def longest_distance(layout: TokenLayout) -> float:
    """Distance between the patches of opposite corners, in pixels."""
    return math.hypot(layout.image_height - layout.patch_height, layout.image_width - layout.patch_width)


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
