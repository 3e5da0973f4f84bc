"""How runs learned: loss, accuracy and learning rate over the steps of the optimizer, run beside run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from vitreous.errors import ShapeError
from vitreous.figures import canvas

Lines = Sequence[Mapping[str, Any]]
"""Of a run's `metrics.jsonl`, in their order: numbers by name, `step` among them."""

_HEIGHT, _HEIGHT_OF_RATE = 2.5, 1.5  # inches
_DOTS = 40  # tests of a run that are shown as dots; more would be a thick line
_LETTERS = 60  # of a run's name, before its middle is left out
_CAPTION = ("thin: while it learned, images changed and mixed by chance", "thick: on the test part, after each epoch")


def draw_curves(runs: Mapping[str, Lines]) -> Figure:
    """Loss, accuracy on the test part and learning rate against the step, one colour for each run.

    What was learned from is a thin line, a mean over the steps since the one before; the test part's, after each epoch,
    a line with dots. A panel of which no run has a number is left out.

    Args:
        runs: lines of metrics, by the run's name.

    Raises:
        ShapeError: if there is no run, or none has a line with a loss.
        NumericError: if a number is NaN or infinite.
    """
    if not any("train_loss_nats" in line for lines in runs.values() for line in lines):
        raise ShapeError("expected a run with at least one line of metrics, but got none; train for a step first")
    kinds = ("train_loss_nats", "test_top1", "learning_rate")
    shown = [kind for kind in kinds if any(kind in line for lines in runs.values() for line in lines)]
    heights = [_HEIGHT_OF_RATE if kind == "learning_rate" else _HEIGHT for kind in shown]
    figure = canvas.blank(canvas.WIDTH * 1.2, sum(heights) + 0.4)
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False, height_ratios=heights).ravel()
    draw = {"train_loss_nats": _draw_loss, "test_top1": _draw_accuracy, "learning_rate": _draw_rate}
    for axes, kind in zip(panels, shown, strict=True):
        for index, lines in enumerate(runs.values()):
            draw[kind](axes, lines, canvas.SERIES[index % len(canvas.SERIES)], str(index))
        axes.set_xlim(left=0)
        if kind == "learning_rate":
            axes.set_ylim(bottom=0)
        canvas.style_plot(axes)
    panels[-1].xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    canvas.label(panels[-1], "step of the optimizer", panels[-1].get_ylabel())
    canvas.caption(panels[-1], *_CAPTION)
    if len(runs) > 1:
        _name(panels[0], list(runs))
    return figure


def _draw_loss(axes: Axes, lines: Lines, colour: str, name: str) -> None:
    """Means of each stretch between two lines: an epoch's own line repeats what its stretches said."""
    stretches = [line for line in lines if "epoch" not in line]
    fine = len(stretches) > 1
    _draw(axes, stretches if fine else lines, "train_loss_nats", {"color": colour, "linewidth": 0.9, "label": name})
    _draw(axes, lines, "test_loss_nats", _tested(lines, colour))
    canvas.label(axes, "", "loss (nats)")


def _draw_accuracy(axes: Axes, lines: Lines, colour: str, name: str) -> None:
    _draw(axes, lines, "test_top1", _tested(lines, colour) | {"label": name})
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    canvas.label(axes, "", "test accuracy, top-1")


def _draw_rate(axes: Axes, lines: Lines, colour: str, name: str) -> None:
    _draw(axes, lines, "learning_rate", {"color": colour, "linewidth": 1.1, "label": name})
    canvas.label(axes, "", "learning rate")


def _tested(lines: Lines, colour: str) -> dict[str, Any]:
    tests = sum("test_top1" in line for line in lines)
    return {"color": colour, "linewidth": 1.6, "marker": "o" if tests <= _DOTS else "", "markersize": 3.5}


def _draw(axes: Axes, lines: Lines, kind: str, style: Mapping[str, Any]) -> None:
    there = sorted((line for line in lines if kind in line), key=lambda line: line["step"])
    if len(there) == 1:  # a line has no length there
        style = {**style, "marker": "o", "markersize": 3.5}
    if there:
        axes.plot(_column(there, "step"), _column(there, kind), **style)


def _column(lines: Lines, kind: str) -> NDArray[np.float64]:
    return canvas.numbers(np.asarray([line[kind] for line in lines], dtype=np.float64), "lines")


def _name(axes: Axes, names: Sequence[str]) -> None:
    """Which colour is which run, above the panels."""
    legend = axes.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=1, frameon=False, borderaxespad=0.2, handlelength=2.4,
        labelcolor=canvas.INK, prop={"size": canvas.NOTE, "family": list(canvas.families())},
    )  # fmt: skip
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(canvas.shorten(name, _LETTERS))
