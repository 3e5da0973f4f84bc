"""Several models in one plot: means over heads against depth, one line a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vitreous.errors import ShapeError
from vitreous.figures import canvas
from vitreous.figures.depth import Quantity

_MOST_BANDS = 3  # more of them hide each other


@dataclass(frozen=True)
class Line:
    """What `draw_lines` draws: points, half the height of the band around them, a level to compare with."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    half: NDArray[np.float64] | None = None
    level: float | None = None


def draw_overlay(values: Mapping[str, Any], quantity: Quantity, *, axes: Axes | None = None) -> Figure:
    """Mean over the heads of every layer against depth, all models in one plot, the y axis from 0.

    Models of equally many layers are drawn over the layer's index, others over relative depth: 0 is a model's first
    layer, 1 its last. Up to three models have a band of one standard deviation over the heads on either side.

    Args:
        values: for each model's name (layers, heads).
        quantity: the y axis in words, with the level of each model, drawn as a dotted line, and a fixed top.
        axes: to draw into; a new figure where it is None.

    Raises:
        ShapeError: if there is no model, or a shape does not fit.
        NumericError: if a value is NaN or infinite.
    """
    heads = {name: canvas.numbers(value, "layers", "heads") for name, value in values.items()}
    if not heads:
        raise ShapeError("expected at least one model to draw, but got none")
    is_same_depth = len({len(value) for value in heads.values()}) == 1
    has_bands = len(heads) <= _MOST_BANDS
    lines = {}
    for name, value in heads.items():
        x = np.arange(len(value), dtype=np.float64) if is_same_depth else np.linspace(0, 1, len(value))
        lines[name] = Line(x, value.mean(1), value.std(1) if has_bands else None, quantity.level_of(name))
    sheet = axes or canvas.blank(canvas.WIDTH, 3.5 + 0.16 * len(lines)).add_subplot()
    draw_lines(sheet, lines, quantity.top)
    if is_same_depth:
        sheet.xaxis.set_major_locator(MaxNLocator(nbins=13, integer=True, steps=[1, 2, 5, 10]))
    canvas.label(sheet, "layer (0 is the first)" if is_same_depth else "relative depth (0 first, 1 last layer)")
    canvas.label(sheet, sheet.get_xlabel(), quantity.words)
    words = ["a line is the mean over heads"]
    if has_bands:
        words.append("the band is ± 1 standard deviation over heads")
    if any(line.level is not None for line in lines.values()):
        words.append(f"dotted: {quantity.level_words}")
    canvas.caption(sheet, *words)
    return canvas.figure_of(sheet)


def draw_lines(axes: Axes, lines: Mapping[str, Line], top: float | None = None) -> None:
    """Lines told apart by colour, marker and, beyond six, dashes, with their names above the plot."""
    peak = 0.0
    for index, line in enumerate(lines.values()):
        style = index % len(canvas.SERIES)
        colour = canvas.SERIES[style]
        half = np.zeros_like(line.y) if line.half is None else line.half
        peak = max(peak, line.level or 0, float((line.y + half).max()))
        if line.half is not None:
            axes.fill_between(line.x, line.y - half, line.y + half, color=colour, alpha=0.16, linewidth=0, zorder=2)
        if line.level is not None:
            axes.axhline(line.level, color=colour, linewidth=1.1, linestyle=(0, (1, 2)), zorder=1)
        axes.plot(
            line.x, line.y, color=colour, linewidth=1.6, marker=canvas.MARKERS[style], markersize=4.5, zorder=3,
            linestyle="-" if index < len(canvas.SERIES) else (0, (4, 2)), label=str(index),
        )  # fmt: skip
    axes.set_ylim(0, top or 1.08 * peak or 1)
    canvas.style_plot(axes)
    names = [canvas.shorten(name, 40) for name in lines]
    longest = max(map(len, names))
    short = 4 if len(names) == 4 else 3  # a row of its own for few-shot's four numbers, in their order
    across = short if longest <= 9 else 2 if longest <= 20 else 1
    legend = axes.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=across, frameon=False, borderaxespad=0.2,
        handlelength=2.4, columnspacing=1.4, labelcolor=canvas.INK,
        prop={"size": canvas.NOTE, "family": list(canvas.families())},
    )  # fmt: skip
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(name)  # not before: a label that begins with an underscore would be left out
