"""Numbers with their intervals: a colour and a marker for each model, the same in all figures of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from vitreous.arrangement.result import Interval
from vitreous.figures import canvas

MOST_BANDS = 3  # more of them hide each other, and bars stand in their place

VARIANTS: tuple[tuple[Any, bool], ...] = (
    ("-", True),
    ((0, (4, 1.6)), False),
    ((0, (1, 1.3)), False),
    ((0, (5, 1.5, 1, 1.5)), True),
)
"""Dashes, and whether markers are filled: what tells a model's lines apart where it has several."""

_DOTTED = (0, (1, 2))
_LETTERS = 48  # of a name
_GREY = {"color": canvas.MUTED, "marker": ""}
_LINE: dict[str, Any] = {"linewidth": 1.6, "markersize": 4.5}
_FRAMELESS: dict[str, Any] = {
    "frameon": False, "borderaxespad": 0.5, "borderpad": 0.1, "handlelength": 2.4, "columnspacing": 1.4,
    "labelcolor": canvas.INK, "prop": {"size": canvas.NOTE, "family": list(canvas.families())},
}  # fmt: skip


def model_style(index: int) -> dict[str, Any]:
    """Colour, marker and, beyond six models, dashes of the model that was named at this place."""
    place = index % len(canvas.SERIES)
    dashes = "-" if index < len(canvas.SERIES) else (0, (4, 2))
    return {"color": canvas.SERIES[place], "marker": canvas.MARKERS[place], "linestyle": dashes}


def variant_style(index: int, variant: int) -> dict[str, Any]:
    """Of one of several lines of the same model."""
    dashes, is_filled = VARIANTS[variant % len(VARIANTS)]
    style = model_style(index) | {"linestyle": dashes}
    return style if is_filled else style | {"markerfacecolor": "none"}


def draw_curve(axes: Axes, x: Sequence[float], y: Sequence[Interval], index: int, *, is_band: bool = True) -> None:
    """A line through the values; around it a band, or at each value a bar, where the interval is known.

    Raises:
        NumericError: if a number is NaN or infinite.
    """
    places, values, bounds = canvas.numbers(list(x), "points"), _values(y), _bounds(y)
    style = model_style(index)
    if is_band:
        axes.fill_between(places, *bounds, color=style["color"], alpha=0.18, linewidth=0, zorder=2)
    else:
        axes.vlines(places, *bounds, color=style["color"], linewidth=1.2, zorder=2)
    axes.plot(places, values, zorder=3, clip_on=False, **_LINE, **style)


def draw_dots(axes: Axes, x: Sequence[float], y: Sequence[Interval], index: int) -> None:
    """A mark at each value, and a bar where the interval is known, its ends wider than the mark.

    Raises:
        NumericError: if a number is NaN or infinite.
    """
    style = model_style(index) | {"linestyle": "none"}
    places, bounds = canvas.numbers(list(x), "points"), _bounds(y)
    axes.vlines(places, *bounds, color=style["color"], linewidth=1.2, zorder=2)
    for ends in bounds:
        axes.plot(places, ends, color=style["color"], marker="_", markersize=11, linestyle="none", zorder=2)
    axes.plot(places, _values(y), markersize=4.5, zorder=3, clip_on=False, **style)


def scaled(intervals: Sequence[Interval], factor: float) -> list[Interval]:
    """The same in another unit; 100 makes shares percent."""
    return [
        Interval(
            factor * one.value,
            None if one.low is None else factor * one.low,
            None if one.high is None else factor * one.high,
        )
        for one in intervals
    ]


def lowest(intervals: Sequence[Interval]) -> float:
    """The least of all values and of their intervals."""
    return min(one.value if one.low is None else min(one.low, one.value) for one in intervals)


def highest(intervals: Sequence[Interval]) -> float:
    """The largest of all values and of their intervals."""
    return max(one.value if one.high is None else max(one.high, one.value) for one in intervals)


def has_bounds(intervals: Sequence[Interval]) -> bool:
    """Whether any of them is known to lie between two numbers."""
    return any(one.low is not None and one.high is not None for one in intervals)


def draw_level(axes: Axes, level: float) -> None:
    """A dotted line across, to compare with."""
    axes.axhline(level, color=canvas.MUTED, linewidth=1.1, linestyle=_DOTTED, zorder=1)


def name_models(figure: Figure, names: Mapping[str, int], variants: Sequence[str] = ()) -> Figure:
    """The figure, with the names at its top, each with the colour and the marker of its place.

    Args:
        figure: to write into.
        names: each with its place among all models.
        variants: what `VARIANTS` stand for, named below the models in grey: each model has them in its own colour.
    """
    lines = [(name, model_style(index)) for name, index in names.items()]
    dashes = [(name, variant_style(0, place) | _GREY) for place, name in enumerate(variants)]
    longest = max((len(canvas.shorten(name, _LETTERS)) for name, _ in (*lines, *dashes)), default=0)
    across = 3 if longest <= 9 else 2 if longest <= 22 else 1
    if lines and dashes and longest <= 22:
        across, rows = 2, max(len(lines), len(dashes))  # models in one column, variants in the other
        lines += [("", {"linestyle": "none"})] * (rows - len(lines))
    entries = [*lines, *dashes]
    handles = [Line2D([], [], **(_LINE | style)) for _, style in entries]
    labels = [str(place) for place in range(len(entries))]
    legend = figure.legend(handles, labels, loc="outside upper left", ncols=across, **_FRAMELESS)
    _write(legend, [canvas.shorten(name, _LETTERS) for name, _ in entries])
    return figure


def name_marks(axes: Axes, places: Sequence[int], words: Sequence[str]) -> None:
    """Words above the plot at its right, each with the marker of its model."""
    handles = [Line2D([], [], **(_LINE | model_style(index) | {"linestyle": "none"})) for index in places]
    labels = [str(index) for index in places]
    _write(
        axes.legend(
            handles, labels, loc="lower right", bbox_to_anchor=(1.01, 1.0), ncols=2,
            **(_FRAMELESS | {"handlelength": 0.8, "handletextpad": 0.3, "columnspacing": 0.9}),
        ),
        words,
    )  # fmt: skip


def _write(legend: Legend, names: Sequence[str]) -> None:
    """Foreign text into a legend; not when it is made, which leaves out what begins with an underscore."""
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(name)


def _values(intervals: Sequence[Interval]) -> NDArray[np.float64]:
    return canvas.numbers([one.value for one in intervals], "points")


def _bounds(intervals: Sequence[Interval]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper ends; NaN, which is not drawn, where they are not known."""
    known = [(one.low, one.high) for one in intervals if one.low is not None and one.high is not None]
    if known:
        canvas.numbers(known, "points", "ends")
    ends = [
        (np.nan, np.nan) if one.low is None or one.high is None else (one.low, one.high) for one in intervals
    ]  # (points, 2)
    low, high = np.asarray(ends, dtype=np.float64).T
    return low, high
