"""What each layer knows of places: how well they are read out, and whether features move as the image does."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitreous.arrangement.result import Arrangement, ModelArrangement
from vitreous.errors import ShapeError
from vitreous.figures import canvas, intervals

_PANEL = 2.1  # inches, the height of a row of panels
_MOST_NAMES = 9  # of layers below a panel
_LEAST = -0.5  # of R^2 on the axis: what is far below 0 is no more wrong than that
_LETTERS = 74  # of a caption across the figure
_AS_THEY_ARE, _ROLLED = "images as they are", "rolled images"


def draw_read_out(arrangement: Arrangement) -> Figure:
    """R^2 of a linear read-out of places against depth; a panel a model, a line a condition, all with one y axis.

    1 where row and column are a linear function of the features, 0 where the mean place is as good a guess.

    Raises:
        ShapeError: if no positions were read out, or a condition has not one number a layer.
        NumericError: if a number is NaN or infinite.
    """
    found = [float(one) for model in arrangement.models for values in model.read_out.values() for one in values]
    if not found:
        raise ShapeError("expected a model whose positions were read out, but got none")
    bottom = max(min(0.0, float(canvas.numbers(found, "layers").min())), _LEAST)
    figure, _, sheets = _sheets(len(arrangement.models), False)
    for index, (sheet, model) in enumerate(zip(sheets, arrangement.models, strict=True)):
        for condition, values in model.read_out.items():
            _draw_line(sheet, model, values, index, _variant(condition))
        intervals.draw_level(sheet, 0)
        _finish(sheet, model, (bottom - 0.04, 1.04))
        canvas.label(sheet, sheet.get_xlabel(), "R² of row, column" if index % 2 == 0 else "")
    words = ["1: places read exactly; 0, dotted: no better than the mean; no intervals"]
    if min(found) < _LEAST:
        words.append(f"what is below {_LEAST:g} is outside the frame")
    _caption(figure, *words)
    return intervals.name_models(figure, {}, _conditions(arrangement))


def draw_translation(arrangement: Arrangement) -> Figure:
    """Share of unchanged answers against the shift in pixels; below, by layer, how far features fail to move alike.

    Raises:
        ShapeError: if no image was shifted, or a shift has not one number a layer.
        NumericError: if a number is NaN or infinite.
    """
    shifts = sorted({pixels for model in arrangement.models for pixels in (*model.shifted, *model.equivariance)})
    if not shifts:
        raise ShapeError("expected at least one shift, but got none")
    figure, top, sheets = _sheets(len(arrangement.models), True)
    assert top is not None
    words = _draw_agreement(top, arrangement, shifts)
    errors = [
        one
        for model in arrangement.models
        for values in model.equivariance.values()
        for one in values
        if one is not None
    ]
    highest = max([1.0, *(canvas.numbers(errors, "layers") if errors else [])])
    for index, (sheet, model) in enumerate(zip(sheets, arrangement.models, strict=True)):
        for pixels, values in sorted(model.equivariance.items()):
            _draw_line(sheet, model, values, index, shifts.index(pixels))
        intervals.draw_level(sheet, 1)
        _finish(sheet, model, (-0.04, 1.08 * highest))
        canvas.label(sheet, sheet.get_xlabel(), "equivariance error" if index % 2 == 0 else "")
    words.append("below: 0 moves as the image does, 1, dotted, unrelated; no intervals")
    _caption(figure, *words)
    places = {model.name: index for index, model in enumerate(arrangement.models)}
    return intervals.name_models(figure, places, [f"shift of {pixels} px" for pixels in shifts])


def _draw_agreement(axes: Axes, arrangement: Arrangement, shifts: Sequence[int]) -> list[str]:
    """The panel of answers; returns what its marks mean."""
    is_band = len(arrangement.models) <= intervals.MOST_BANDS
    drawn = []
    for index, model in enumerate(arrangement.models):
        if model.shifted:
            answers = dict(sorted(model.shifted.items()))
            agreement = intervals.scaled([one.agreement for one in answers.values()], 100)
            intervals.draw_curve(axes, list(answers), agreement, index, is_band=is_band)
            drawn += agreement
    canvas.style_plot(axes)
    axes.set_xticks(shifts)
    axes.set_xlim(shifts[0] - 0.04 * shifts[-1], 1.04 * shifts[-1])
    bottom = max(0.0, intervals.lowest(drawn) - 4) if drawn else 0.0
    axes.set_ylim(bottom, 100 + 0.04 * (100 - bottom))
    canvas.label(axes, "shift of the image (pixels)", "same answer (%)")
    mark = "band" if is_band else "bar"
    sure = f"a {mark} is a 95 % interval over {arrangement.images:,} images"
    words = [sure if intervals.has_bounds(drawn) else "no intervals"]
    return [*words, *(["the upper axis does not begin at 0"] if bottom > 0 else [])]


def _sheets(models: int, has_top: bool) -> tuple[Figure, Axes | None, list[Axes]]:
    """A panel a model, two in a row, and above them one as wide as both."""
    if not models:
        raise ShapeError("expected at least one model to draw, but got none")
    across = 1 if models == 1 else 2
    rows = -(-models // across) + has_top
    figure = canvas.blank(canvas.WIDTH, _PANEL * rows + 0.7 + 0.16 * (models if has_top else 3))
    grid = figure.add_gridspec(rows, across)
    top = figure.add_subplot(grid[0, :]) if has_top else None
    first = int(has_top)
    return figure, top, [figure.add_subplot(grid[first + one // across, one % across]) for one in range(models)]


def _draw_line(axes: Axes, model: ModelArrangement, values: Sequence[float | None], index: int, variant: int) -> None:
    """A number a layer, in the model's colour; a gap where it is not known."""
    if len(values) != len(model.layers):
        raise ShapeError(f"expected {len(model.layers)} numbers, one a layer, but got {len(values)}")
    heights = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    style: dict[str, Any] = {"linewidth": 1.5, "markersize": 4, "zorder": 3}
    axes.plot(np.arange(len(heights)), heights, **style, **intervals.variant_style(index, variant))


def _finish(axes: Axes, model: ModelArrangement, limits: tuple[float, float]) -> None:
    canvas.style_plot(axes)
    axes.set_ylim(*limits)
    axes.set_xlim(-0.4, max(len(model.layers), 1) - 0.6)
    canvas.title(axes, canvas.shorten(model.name, 26), canvas.LABEL)
    ticks, words = _short_names(model.layers)
    axes.set_xticks(list(ticks), list(ticks.values()), parse_math=False)
    axes.set_xlabel(canvas.shorten(words, 34), fontsize=canvas.LABEL, color=canvas.INK, parse_math=False)


def _short_names(layers: Sequence[str]) -> tuple[dict[int, str], str]:
    """Names for the axis by place, numbers where layers are counted and else letters, and what they mean."""
    counted = [re.fullmatch(r"([a-z]+) (\d+)", name) for name in layers]
    kinds = list(dict.fromkeys(match[1] for match in counted if match))
    short, letters = [], {}
    for name, match in zip(layers, counted, strict=True):
        if match is None:
            letters[name[:1].upper()] = name
        short.append(name[:1].upper() if match is None else match[2] if len(kinds) == 1 else match[1][0] + match[2])
    step = -(-len(layers) // _MOST_NAMES)
    if len(kinds) > 1:
        letters = {kind[0]: kind for kind in kinds} | letters
    meaning = ", ".join(f"{letter} {name}" for letter, name in letters.items())
    words = f"{kinds[0]} ({meaning})" if len(kinds) == 1 and meaning else kinds[0] if len(kinds) == 1 else meaning
    return {place: canvas.readable(short[place]) for place in range(0, len(layers), step)}, words


def _variant(condition: str) -> int:
    return (_AS_THEY_ARE, _ROLLED).index(condition) if condition in (_AS_THEY_ARE, _ROLLED) else 2


def _conditions(arrangement: Arrangement) -> list[str]:
    """What the dashes stand for; what was taken away differs between models, and is named once for all."""
    names = dict.fromkeys(condition for model in arrangement.models for condition in model.read_out)
    without = " or ".join(name.removeprefix(f"{_ROLLED}, ") for name in names if _variant(name) == 2)
    return [_AS_THEY_ARE, _ROLLED, *([f"{_ROLLED}, {without}"] if without else [])]


def _caption(figure: Figure, *lines: str) -> None:
    """Words below all panels."""
    text = "\n".join(part for line in lines for part in textwrap.wrap(line, _LETTERS))
    figure.supxlabel(text, x=0.012, ha="left", fontsize=canvas.NOTE, color=canvas.MUTED, linespacing=1.35)
