"""How well classes are read from each layer of a model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitreous.errors import ShapeError
from vitreous.figures import canvas
from vitreous.figures.overlay import Line, draw_lines

_MOST_NAMES = 16  # of layers below the axis


def draw_probe(
    layers: Sequence[str],
    accuracies: Mapping[str, Any],
    *,
    chance: float | None = None,
    title: str = "",
    axes: Axes | None = None,
) -> Figure:
    """Accuracy against depth, a line for each way to read the classes, the y axis from 0 % to what the lines need.

    Args:
        layers: names, first layer first, such as "embedding", "layer 0", "layer 1", "read-out".
        accuracies: for each line's name (layers,), or (layers, draws) for a mean with a band of one standard deviation
            over the draws; shares in [0, 1].
        chance: share that is right by chance, drawn as a dotted line.
        title: above the figure.
        axes: to draw into; a new figure where it is None.

    Raises:
        ShapeError: if there is no line, or a line has not one accuracy a layer.
        NumericError: if an accuracy is NaN or infinite.
    """
    if not accuracies:
        raise ShapeError("expected at least one line to draw, but got none")
    lines, has_bands = {}, False
    for name, values in accuracies.items():
        several = np.ndim(values) > 1
        shares = 100 * canvas.numbers(values, *(("layers", "draws") if several else ("layers",)))
        if len(shares) != len(layers):
            raise ShapeError(f"expected {len(layers)} accuracies of {name}, one a layer, but got {len(shares)}")
        draws = shares if several else shares[:, None]
        half = draws.std(1, ddof=1) if draws.shape[1] > 1 else None
        has_bands = has_bands or half is not None
        lines[name] = Line(np.arange(len(layers), dtype=np.float64), draws.mean(1), half)
    sheet = axes or canvas.blank(canvas.WIDTH, 3.5).add_subplot()
    draw_lines(sheet, lines)
    _name_layers(sheet, layers)
    words = ["a band is ± 1 standard deviation over the draws"] if has_bands else []
    if chance is not None:
        sheet.axhline(100 * chance, color=canvas.MUTED, linewidth=1.1, linestyle=(0, (1, 2)), zorder=1)
        words.append(f"dotted: chance, {chance:.1%}")
    canvas.caption(sheet, *words)
    figure = canvas.figure_of(sheet)
    if title:
        text = figure.suptitle("", x=0.012, ha="left", fontsize=canvas.TITLE, color=canvas.INK)
        text.set_fontfamily(list(canvas.families()))
        text.set_parse_math(False)
        text.set_text(canvas.shorten(title, 60))
    return figure


def _name_layers(axes: Axes, layers: Sequence[str]) -> None:
    """Numbers for layers and stages, the first letter for the others; what the letters mean stands below."""
    short = [
        match[1] if (match := re.fullmatch(r"(?:layer|stage) (\d+)", name)) else name[:1].upper() for name in layers
    ]
    step = -(-len(layers) // _MOST_NAMES)
    kept = [place for place in range(len(layers)) if place % step == 0 or not short[place].isdecimal()]
    axes.set_xticks(kept, labels=[short[place] for place in kept])
    unit = "stage" if any(name.startswith("stage") for name in layers) else "layer"
    letters = [f"{letter} {name}" for letter, name in zip(short, layers, strict=True) if not letter.isdecimal()]
    axes.set_xlim(-0.4, len(layers) - 0.6)
    canvas.label(axes, f"{unit} ({', '.join(letters)})" if letters else unit, "accuracy (%)")
