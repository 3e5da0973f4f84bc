"""Which classes a model takes for which: a row for each true class, a column for each that it named."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitreous.errors import ShapeError
from vitreous.figures import canvas

COLOURS = "Blues"  # white is none, so that numbers can be read on it; one hue, told apart by lightness alone
LARGEST_WITH_SHARES = 12
LARGEST_WITH_COUNTS = 30
"""Classes; beyond it cells have no numbers, and the most frequent mistakes are listed."""

_MOST_CELLS = 250  # on a side; more would be thinner than a screen's dots
_MISTAKES = 14
_LETTERS = 20  # of a name in their list
_ROOT, _ROOT_OF_MANY = 1 / 2, 1 / 3  # colours go with a root of a share: a mistake in a hundred is seen
_TICKS = (0, 0.01, 0.05, 0.25, 0.5, 1)


def draw_confusion(counts: Any, class_names: Sequence[str]) -> Figure:
    """The confusion matrix: rows are true classes, columns named ones, colours shares of a row.

    Up to 12 classes each cell has its count and its share, up to 30 its count. Of more classes the picture shows where
    mistakes lie, the largest of a few neighbours standing for all, and a list beside it names the most frequent.

    Args:
        counts: (classes, classes) images, by true class (rows) and named class (columns).
        class_names: one for each class.

    Returns:
        The figure; colours go from 0 to 100 % whatever the values. A class without images has an empty row.

    Raises:
        ShapeError: if the shape is not (classes, classes) or there is not one name for each.
        NumericError: if a count is not finite.
    """
    matrix = canvas.numbers(counts, "true classes", "named classes")
    classes = len(matrix)
    if matrix.shape[1] != classes or len(class_names) != classes:
        raise ShapeError(
            f"expected counts (classes, classes) and a name for each class, but got {matrix.shape} "
            f"and {len(class_names)} names"
        )
    totals = matrix.sum(1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.zeros_like(matrix), where=totals > 0)
    if classes <= LARGEST_WITH_COUNTS:
        return _draw_cells(matrix, shares, class_names)
    return _draw_overview(matrix, shares, class_names)


def _draw_cells(matrix: NDArray[np.float64], shares: NDArray[np.float64], class_names: Sequence[str]) -> Figure:
    classes = len(matrix)
    has_shares = classes <= LARGEST_WITH_SHARES
    side = classes * (0.5 if has_shares else 0.3)
    names = [canvas.shorten(name, 18) for name in class_names]
    room = 0.085 * max(map(len, names))
    axes = canvas.blank(max(side, 2.2) + room + 1.7, max(side, 2.2) + room + 1.1).add_subplot()
    image = _show(axes, shares, _ROOT)
    style: dict[str, Any] = {"fontfamily": list(canvas.families()), "parse_math": False}
    axes.set_xticks(range(classes), names, rotation=90 if room > 0.4 else 0, **style)
    axes.set_yticks(range(classes), names, **style)
    axes.tick_params(length=0, labelsize=canvas.NOTE, labelcolor=canvas.INK, pad=3)
    for row, column in np.argwhere(matrix > 0):
        words = f"{matrix[row, column]:,.0f}"
        if has_shares:
            words += f"\n{_percent(shares[row, column])}"
        dark = image.norm(shares[row, column]) > 0.55
        size = 7.5 if len(words.split("\n")[0]) < 5 else 6.0
        colour = "white" if dark else canvas.INK
        axes.text(column, row, words, ha="center", va="center", fontsize=size, color=colour, linespacing=1.1)
    canvas.label(axes, x="class named by the model", y="true class")
    canvas.colour_bar(axes, image, "share of the true class's images", _TICKS)
    _finish_shares(axes)
    canvas.title(axes, _right(matrix))
    below = "above, and its share of the row below" if has_shares else "of images"
    canvas.caption(axes, f"a cell: count {below}; an empty one: none")
    figure = canvas.figure_of(axes)
    canvas.fit_height(figure)
    return figure


def _draw_overview(matrix: NDArray[np.float64], shares: NDArray[np.float64], class_names: Sequence[str]) -> Figure:
    classes = len(matrix)
    step = math.ceil(classes / _MOST_CELLS)
    figure = canvas.blank(10.2, 5.2)
    axes, listed = figure.subplots(1, 2, width_ratios=[4.7, 4.5])
    image = _show(axes, _largest_of(shares, step), _ROOT_OF_MANY)
    axes.set_xlim(-0.5, classes / step - 0.5)
    axes.set_ylim(classes / step - 0.5, -0.5)
    apart = next(one for one in (5, 10, 20, 50, 100, 200, 500, 10**9) if classes / one <= 10)
    names = list(range(0, classes, apart))
    for set_ticks in (axes.set_xticks, axes.set_yticks):
        set_ticks([(name + 0.5) / step - 0.5 for name in names], [str(name) for name in names])
    axes.tick_params(length=2, labelsize=canvas.NOTE, colors=canvas.MUTED)
    canvas.label(axes, x="class named by the model (index)", y="true class (index)")
    canvas.colour_bar(axes, image, "share of the true class's images", _TICKS)
    _finish_shares(axes)
    canvas.title(axes, _right(matrix))
    if step > 1:
        canvas.caption(axes, f"a dot is the largest share among {step} x {step} pairs of classes")
    _list_mistakes(listed, matrix, shares, class_names)
    return figure


def _show(axes: Axes, shares: NDArray[np.float64], root: float) -> Any:
    canvas.style_picture(axes)
    norm = PowerNorm(root, 0, 1)
    return axes.imshow(shares, cmap=colormaps[COLOURS], norm=norm, interpolation="none", aspect="equal")


def _finish_shares(axes: Axes) -> None:
    bar = axes.child_axes[-1]
    bar.set_yticks(_TICKS, [f"{100 * tick:g} %" for tick in _TICKS])


def _largest_of(shares: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    """(classes, classes) -> the largest of each `step` x `step` cells, what is missing at the ends being none."""
    cells = math.ceil(len(shares) / step)
    missing = cells * step - len(shares)
    framed = np.pad(shares, (0, missing)).reshape(cells, step, cells, step)
    largest: NDArray[np.float64] = framed.max(axis=(1, 3))
    return largest


def _list_mistakes(
    axes: Axes, matrix: NDArray[np.float64], shares: NDArray[np.float64], class_names: Sequence[str]
) -> None:
    """The most frequent mistakes, most images first: what it is, what it was taken for, count and share."""
    axes.set_axis_off()
    canvas.title(axes, "most frequent mistakes: true class, taken for")
    wrong = matrix * (1 - np.eye(len(matrix)))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MISTAKES]
    style: dict[str, Any] = {
        "fontsize": canvas.NOTE, "color": canvas.INK, "va": "top", "transform": axes.transAxes, "parse_math": False,
        "fontfamily": list(canvas.families()),
    }  # fmt: skip
    for line, place in enumerate(order):
        row, column = divmod(int(place), len(matrix))
        if not wrong[row, column]:
            break
        y = 0.985 - line / (_MISTAKES + 0.5)
        axes.text(0, y, f"{wrong[row, column]:,.0f}", **style)
        axes.text(0.1, y, _percent(shares[row, column]), **style | {"color": canvas.MUTED})
        axes.text(0.24, y, canvas.shorten(class_names[row], _LETTERS), **style)
        axes.text(0.64, y, canvas.shorten(class_names[column], _LETTERS), **style)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if 0 < share < 0.095 else f"{100 * share:.0f} %"


def _right(matrix: NDArray[np.float64]) -> str:
    images = matrix.sum()
    return f"{100 * np.trace(matrix) / images:.1f} % of {images:,.0f} images right" if images else "no images"
