"""How much attention goes to the tokens that stand for no place in the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitreous.figures.depth import Quantity, draw_by_depth


def draw_prefix_mass(
    masses: Mapping[str, Any], *, uniform: float | None = None, axes: Sequence[Axes] | None = None
) -> Figure:
    """Share of the patches' attention that goes to prefix tokens, for every head against depth.

    At 0 the patches look only at patches, at 1 only at the class token and the registers.

    Args:
        masses: for each model's name (layers, heads), each in [0, 1].
        uniform: prefix / tokens, the share where all tokens are looked at alike; no line where it is None.
        axes: one for each model, to draw into; a new figure where it is None.

    Returns:
        The figure; the y axis goes from 0 to 1.

    Raises:
        ShapeError: if there is no model, or shapes do not fit.
        NumericError: if a value is NaN or infinite.
    """
    words = f"all tokens alike, {uniform:.3f}" if uniform is not None else ""
    quantity = Quantity("attention on prefix tokens (share, 0 to 1)", uniform, words, top=1.0)
    return draw_by_depth(masses, quantity, axes=axes)
