"""What one changed choice does to accuracy: a dot for each run, their mean, and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from vitreous.errors import ShapeError
from vitreous.figures import canvas

_APART = 0.5  # of the step from one name to the next, for all series together
_RUNS_APART = 0.08  # likewise of the runs from their mean
_WIDTH_OF_NAME = 1.25  # inches
_LETTERS = 22  # of a name, before its middle is left out


class Mean(NamedTuple):
    """One mark: the mean of several runs, half of its interval (None for a single run), and the runs themselves."""

    mean: float
    half_width: float | None
    values: Sequence[float]


Series = Mapping[str, Mapping[str, Mean]]
"""For each series of marks, what stands at which name; names that a series has not are left empty."""


def draw_ablation_by_name(
    series: Series, x: str, *, y: str = "test accuracy, top-1", axes: Axes | None = None
) -> Figure:
    """Names from left to right, the series' marks side by side over each; accuracy in %, not from 0.

    Args:
        series: shares in [0, 1].
        x: what the names are.
        y: what the shares are.
        axes: to draw into; a new figure where it is None.

    Raises:
        ShapeError: if there is nothing to draw.
        NumericError: if a number is NaN or infinite.
    """
    names = list(dict.fromkeys(name for marks in series.values() for name in marks))
    _check(series, names)
    sheet = axes or canvas.blank(max(canvas.WIDTH, 0.9 + _WIDTH_OF_NAME * len(names)), 3.6).add_subplot()
    for index, (words, marks) in enumerate(series.items()):
        places = [names.index(name) + _APART * _beside(series, name, words) for name in marks]
        runs_at = [place + _RUNS_APART for place in places]
        _draw_marks(sheet, list(marks.values()), places, runs_at, _style(index, words))
    lines = [[canvas.shorten(part, _LETTERS) for part in name.split(", ")] for name in names]
    sheet.set_xticks(range(len(names)), [",\n".join(parts) for parts in lines])
    sheet.set_xlim(-0.6, len(names) - 0.4)
    return _finish(sheet, series, x, y)


def draw_ablation_by_rate(
    series: Series, x: str = "learning rate", *, y: str = "test accuracy, top-1", axes: Axes | None = None
) -> Figure:
    """Numbers from left to right on a logarithmic axis, a line for each series; accuracy in %, not from 0.

    Args:
        series: the names are numbers above 0, such as "0.001"; shares in [0, 1].
        x: what the numbers are.
        y: what the shares are.
        axes: to draw into; a new figure where it is None.

    Raises:
        ShapeError: if there is nothing to draw, or a name is no number above 0.
        NumericError: if a number is NaN or infinite.
    """
    names = sorted({name for marks in series.values() for name in marks}, key=_number)
    _check(series, names)
    sheet = axes or canvas.blank(canvas.WIDTH, 3.6).add_subplot()
    sheet.set_xscale("log")
    span = _number(names[-1]) / _number(names[0]) if len(names) > 1 else 10.0
    for index, (words, marks) in enumerate(series.items()):
        beside = span ** (0.045 * (index - (len(series) - 1) / 2))  # so that no bar hides another
        ordered = sorted(marks, key=_number)
        places = [_number(name) * beside for name in ordered]
        runs_at = [place * span**0.024 for place in places]
        found, style = [marks[name] for name in ordered], _style(index, words)
        sheet.plot(places, [one.mean for one in found], color=style["color"], linewidth=1.3, alpha=0.6, zorder=2)
        _draw_marks(sheet, found, places, runs_at, style)
    sheet.xaxis.set_major_locator(FixedLocator([_number(name) for name in names]))
    sheet.xaxis.set_major_formatter(FixedFormatter(names))
    sheet.xaxis.set_minor_locator(NullLocator())
    return _finish(sheet, series, f"{x} (logarithmic)", y)


def _beside(series: Series, name: str, words: str) -> float:
    """Where a series stands among those that have a mark at the name, from -0.5 to 0.5."""
    present = [other for other, marks in series.items() if name in marks]
    return 0.0 if len(present) == 1 else present.index(words) / (len(present) - 1) - 0.5


def _draw_marks(
    axes: Axes, marks: Sequence[Mean], places: Sequence[float], runs_at: Sequence[float], style: Mapping[str, Any]
) -> None:
    """Means with their bars at their places; the runs beside them."""
    colour = style["color"]
    for one, place, beside in zip(marks, places, runs_at, strict=True):
        if len(one.values) > 1:
            runs = [beside] * len(one.values)
            axes.scatter(runs, one.values, s=11, color=colour, alpha=0.7, linewidths=0, zorder=3)
        if one.half_width is not None:
            axes.errorbar(place, one.mean, one.half_width, color=colour, linewidth=1.2, capsize=3.5, zorder=3)
    axes.scatter(places, [one.mean for one in marks], s=44, edgecolors="white", linewidths=0.8, zorder=4, **style)


def _finish(axes: Axes, series: Series, x: str, y: str) -> Figure:
    canvas.style_plot(axes)
    canvas.label(axes, x=x, y=f"{y} (%)")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    _fit(axes, series)
    marks = [one for named in series.values() for one in named.values()]
    runs = max(len(one.values) for one in marks)
    several = f"a small dot is a run, a large mark the mean of {runs}, a bar its 95 % t-interval"
    low, high = axes.get_ylim()
    cut = ["the axis does not begin at 0"] if low > 0 else []
    if any(one.mean - (one.half_width or 0) < low or one.mean + (one.half_width or 0) > high for one in marks):
        cut.append("bars that reach the frame are longer")
    canvas.caption(axes, several if runs > 1 else "one run each: no interval", *cut)
    if len(series) > 1:
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1.01), ncols=len(series), frameon=False, fontsize=canvas.NOTE,
            labelcolor=canvas.INK, handletextpad=0.2, columnspacing=1.2, borderaxespad=0,
        )  # fmt: skip
    return canvas.figure_of(axes)


def _fit(axes: Axes, series: Series) -> None:
    """The range of all runs and of bars no longer than thrice that: one wide bar does not flatten all others."""
    marks = [one for named in series.values() for one in named.values()]
    values = np.array([value for one in marks for value in (one.mean, *one.values)])
    spread = max(float(np.ptp(values)), 0.01)
    bars = [min(one.half_width or 0, 1.5 * spread) for one in marks]
    low = min(one.mean - bar for one, bar in zip(marks, bars, strict=True))
    high = max(one.mean + bar for one, bar in zip(marks, bars, strict=True))
    low, high = min(low, float(values.min())), max(high, float(values.max()))
    axes.set_ylim(max(low - 0.08 * (high - low + 0.01), 0), min(high + 0.08 * (high - low + 0.01), 1))


def _check(series: Series, names: Sequence[str]) -> None:
    if not names:
        raise ShapeError("expected at least one run to draw, but got none")
    for marks in series.values():
        for one in marks.values():
            canvas.numbers([one.mean, one.half_width or 0, *one.values], "numbers")


def _number(name: str) -> float:
    try:
        number = float(name)
    except ValueError:
        number = 0.0
    if not number > 0:
        raise ShapeError(f"expected numbers above 0 for the logarithmic axis, but got {name!r}")
    return number


def _style(index: int, name: str) -> dict[str, Any]:
    """Of a series' means."""
    markers, colours = canvas.MARKERS, canvas.SERIES
    return {"marker": markers[index % len(markers)], "color": colours[index % len(colours)], "label": name}
