"""How widely each head spreads its attention, in bits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitreous.figures.depth import Quantity, draw_by_depth


def draw_entropy(
    entropies: Mapping[str, Any], *, tokens: int | None = None, axes: Sequence[Axes] | None = None
) -> Figure:
    """Attention entropy of every head against depth, one panel a model, with one y axis.

    A head at 0 bits looks at a single token; one at log2(tokens) looks at all tokens alike.

    Args:
        entropies: for each model's name (layers, heads) in bits.
        tokens: number of keys, for the line at log2(tokens); no line where it is None.
        axes: one for each model, to draw into; a new figure where it is None.

    Returns:
        The figure; the y axis is in bits and starts at 0.

    Raises:
        ShapeError: if there is no model, or shapes do not fit.
        NumericError: if a value is NaN or infinite.
    """
    level = math.log2(tokens) if tokens is not None else None
    words = f"all {tokens} tokens alike, log2({tokens}) = {level:.2f} bits" if level is not None else ""
    return draw_by_depth(entropies, Quantity("attention entropy (bits)", level, words), axes=axes)
