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
    rows, columns = similarity.shape[:2]
    values = similarity.double().flatten(2).flatten(0, 1)  # (patches, patches)
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).double()
    down, across = (places[:, None] - places[None]).abs().unbind(-1)
    distance = (down.square() + across.square()).sqrt()
    others = distance > 0
    found: dict[str, float] = {}
    if int(others.sum()) > 2 and float(values[others].std()) > 0 and float(distance[others].std()) > 0:
        found["locality"] = -float(torch.corrcoef(torch.stack([values[others], distance[others]]))[0, 1])
    on_axis = others & ((down == 0) | (across == 0))
    differences = _differences_at_equal_distance(values, distance, on_axis, others & ~on_axis)
    if differences is not None:
        found["row_column"] = differences
    profiles = [
        torch.stack([values[(down == 0) & (across == step)].mean() for step in range(columns)]),
        torch.stack([values[(across == 0) & (down == step)].mean() for step in range(rows)]),
    ]
    regained = [_regained(profile) for profile in profiles if len(profile) > 2]
    if regained:
        found["periodicity"] = sum(regained) / len(regained)
    return found


def _differences_at_equal_distance(values: Tensor, distance: Tensor, on_axis: Tensor, off_axis: Tensor) -> float | None:
    """Mean over on-axis pairs of their similarity less that of off-axis pairs within half a patch of their distance."""
    total, pairs = 0.0, 0
    for step in distance[on_axis].unique():
        here = on_axis & (distance == step)
        beside = off_axis & ((distance - step).abs() <= 0.5)
        if beside.any():
            count = int(here.sum())
            total += float(values[here].mean() - values[beside].mean()) * count
            pairs += count
    return total / pairs if pairs else None


def _regained(profile: Tensor) -> float:
    """Share of the fall from a profile's first value to its lowest that is regained after the lowest."""
    lowest = int(profile.argmin())
    fall = float(profile[0] - profile[lowest])
    return float(profile[lowest:].max() - profile[lowest]) / fall if fall > 0 else 0.0
