"""How far each head looks: figure 7, right, and figure 11 of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitreous.figures.depth import Quantity, draw_by_depth


def draw_attention_distance(
    distances: Mapping[str, Any],
    *,
    spread: Mapping[str, Any] | None = None,
    uniform: float | Mapping[str, float] | None = None,
    unit: str = "pixels",
    top: float | None = None,
    axes: Sequence[Axes] | None = None,
) -> Figure:
    """Mean attention distance of every head against depth, one panel a model, with one y axis.

    A head at 0 looks only at its own patch; one at the dashed line is as far-sighted as one that looks
    everywhere alike.

    Args:
        distances: for each model's name (layers, heads) in the unit.
        spread: for some of the names (layers, heads) in the unit, drawn as ± around the dots.
        uniform: the distance of uniform attention over the grid, one for all models or one for each name; no line
            where it is None.
        unit: of all that is given, in words.
        top: of the y axis; what the values need where it is None.
        axes: one for each model, to draw into; a new figure where it is None.

    Returns:
        The figure; the y axis is in the unit and starts at 0.

    Raises:
        ShapeError: if there is no model, or shapes do not fit.
        NumericError: if a value is NaN or infinite.

    Source: Dosovitskiy et al. 2021, arXiv 2010.11929, figures 7 and 11. There the heads of a layer share
        a vertical line; here they fan out in rising order.
    """
    number = f", {uniform:.{1 if unit == 'pixels' else 3}f} {unit}" if isinstance(uniform, float) else ""
    words = f"attention spread evenly over the grid{number}"
    quantity = Quantity(f"mean attention distance ({unit})", uniform, words, top)
    return draw_by_depth(distances, quantity, spread=spread, axes=axes)
