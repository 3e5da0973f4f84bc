"""Position-embedding similarity: cosine tiles (figure 7 centre), and what one sees in them as three numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from vitreous.errors import ShapeError


def position_similarity(table: Tensor) -> Tensor:
    """Cosine similarity of each patch's position embedding with all others.

    Args:
        table: (rows, columns, width), prefix tokens left out.

    Returns:
        (rows, columns, rows, columns) float32 in [-1, 1]; tile [i, j] is the map of patch (i, j), 1 at (i, j) itself.

    Raises:
        ShapeError: if the table does not have three axes.

    Source: Dosovitskiy et al. 2021, figure 7 centre; cosine, as confirmed in google-research/vision_transformer
    issue 138.
    """
    if table.ndim != 3:
        raise ShapeError(f"a position table is (rows, columns, width), not {tuple(table.shape)}")
    rows, columns, _ = table.shape
    flat = table.detach().double().cpu().flatten(0, 1)
    length = flat.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    unit = flat / length
    return (unit @ unit.T).clamp(-1, 1).reshape(rows, columns, rows, columns).float()


def position_structure(similarity: Tensor) -> dict[str, float]:
    """The three observations of the paper's section 4.5 as numbers, so that two checkpoints can be compared.

    - `locality`: nearer patches are more similar. Minus the correlation of similarity with distance on the grid
      over all pairs of different patches, in [-1, 1]; about 0 for random embeddings.
    - `row_column`: patches of one row or column are more similar than others equally far away. Mean similarity of
      pairs in one row or column, less that of other pairs at the same distance (to half a patch), in [-2, 2]; 0
      for none.
    - `periodicity`: going away along a row or column, similarity falls and rises again. The share of its fall that it
      regains after its lowest point, in [0, 1]; 0 for a steady fall, 1 for a sinusoid of which a whole period fits.

    Args:
        similarity: (rows, columns, rows, columns), from `position_similarity`.

    Returns:
        The three numbers; a grid too small for one of them (a single patch, a single row and column) leaves it out.
    """
    pairs, total, squares = _by_offset(similarity.double().cpu())
    rows, columns = pairs.shape
    down, across = torch.arange(rows).double()[:, None], torch.arange(columns).double()[None]
    distance = (down.square() + across.square()).sqrt()
    found: dict[str, float] = {}
    others = pairs.clone()
    others[0, 0] = 0  # a patch and itself
    locality = _correlation(others, distance, total, squares)
    if locality is not None:
        found["locality"] = -locality
    row_column = _excess_on_axes(others, distance, total)
    if row_column is not None:
        found["row_column"] = row_column
    mean = total / pairs
    regained = [_regained(profile) for profile in (mean[0], mean[:, 0]) if len(profile) > 2]
    if regained:
        found["periodicity"] = sum(regained) / len(regained)
    return found


def _by_offset(similarity: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of patches, sum and sum of squares of their similarities, by offset down and across: (rows, columns)."""
    rows, columns = similarity.shape[:2]
    tables = torch.zeros(3, rows * columns, dtype=torch.float64)
    across = (torch.arange(columns)[:, None] - torch.arange(columns)[None]).abs()  # (columns, columns)
    for row in range(rows):  # all patches of a row at once: never patches x patches of anything new
        down = (torch.arange(rows) - row).abs()
        offsets = (down[None, :, None] * columns + across[:, None, :]).flatten()  # (columns * rows * columns)
        values = similarity[row].flatten()
        for table, weights in zip(tables, (torch.ones_like(values), values, values.square()), strict=True):
            table += torch.bincount(offsets, weights, minlength=rows * columns)
    pairs, total, squares = tables.unflatten(1, (rows, columns))
    return pairs, total, squares


def _correlation(pairs: Tensor, distance: Tensor, total: Tensor, squares: Tensor) -> float | None:
    """Pearson's correlation of similarity with distance over the pairs; None where one of them does not vary."""
    counted, count = pairs > 0, pairs.sum()
    if int(count) < 2:
        return None
    mean_value, mean_distance = total[counted].sum() / count, (pairs * distance).sum() / count
    product = (total * distance)[counted].sum() / count - mean_value * mean_distance
    spread_value = squares[counted].sum() / count - mean_value.square()
    spread_distance = (pairs * distance.square()).sum() / count - mean_distance.square()
    if float(spread_value) <= 1e-12 or float(spread_distance) <= 1e-12:
        return None
    return float(product / (spread_value * spread_distance).sqrt())


def _excess_on_axes(pairs: Tensor, distance: Tensor, total: Tensor) -> float | None:
    """Similarity of pairs in one row or column, less that of others within half a patch of their distance; a mean."""
    axes = torch.zeros_like(pairs, dtype=torch.bool)
    axes[0], axes[:, 0] = True, True
    excess, counted = 0.0, 0.0
    for step in range(1, max(pairs.shape)):
        here = axes & (distance == step) & (pairs > 0)
        beside = ~axes & ((distance - step).abs() <= 0.5)
        if here.any() and beside.any():
            count = float(pairs[here].sum())
            excess += (float(total[here].sum()) / count - float(total[beside].sum() / pairs[beside].sum())) * count
            counted += count
    return excess / counted if counted else None


def _regained(profile: Tensor) -> float:
    """Share of the fall from a profile's first value to its lowest that is regained after the lowest."""
    lowest = int(profile.argmin())
    fall = float(profile[0] - profile[lowest])
    return float(profile[lowest:].max() - profile[lowest]) / fall if fall > 0 else 0.0
