"""One number for each head against depth: the plot that distance, entropy and prefix mass share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vitreous.errors import ShapeError
from vitreous.figures import canvas

_FAN = 0.32  # of the step from one layer to the next, on either side


@dataclass(frozen=True)
class Quantity:
    """What is drawn: the words at its axis, a level to compare with and what that level is, a fixed top.

    The level is one for all models, or one for each name.
    """

    words: str
    level: float | Mapping[str, float] | None = None
    level_words: str = ""
    top: float | None = None

    def level_of(self, name: str) -> float | None:
        """The level to compare a model with."""
        return self.level.get(name) if isinstance(self.level, Mapping) else self.level


def draw_by_depth(
    values: Mapping[str, Any],
    quantity: Quantity,
    *,
    spread: Mapping[str, Any] | None = None,
    axes: Sequence[Axes] | None = None,
) -> Figure:
    """One panel a model, one dot a head, layers from left to right, all panels with one y axis from 0.

    Heads of a layer stand side by side from the smallest value to the largest, so that none hides another.
    """
    panels = {name: canvas.numbers(value, "layers", "heads") for name, value in values.items()}
    spreads = {name: canvas.numbers(value, "layers", "heads") for name, value in (spread or {}).items()}
    _check(panels, spreads, axes)
    if axes is None:
        axes = canvas.panels(len(panels), 3.2 if len(panels) > 1 else canvas.WIDTH - 0.8, 3.5)
    top = quantity.top or 1.08 * max(
        *(quantity.level_of(name) or 0 for name in panels),
        *(_highest(panels[name], spreads.get(name)) for name in panels),
    )
    for index, (name, panel) in enumerate(panels.items()):
        colour = canvas.SERIES[index % len(canvas.SERIES)]
        _draw_panel(axes[index], panel, spreads.get(name), quantity.level_of(name), colour)
        axes[index].set_ylim(0, top or 1)
        canvas.title(axes[index], canvas.shorten(name, 60 if len(panels) == 1 else 38))
        spec = axes[index].get_subplotspec()
        is_left = index == 0 or (spec is not None and spec.is_first_col())
        canvas.label(axes[index], x="layer (0 is the first)", y=quantity.words if is_left else "")
    _explain(axes, quantity, bool(spreads))
    return canvas.figure_of(axes[0])


def _draw_panel(
    axes: Axes,
    panel: NDArray[np.float64],
    spread: NDArray[np.float64] | None,
    level: float | None,
    colour: str,
) -> None:
    layers, heads = panel.shape
    order = panel.argsort(axis=1, kind="stable")  # (layers, heads), smallest first
    offsets = np.linspace(-_FAN, _FAN, heads) if heads > 1 else np.zeros(1)
    x = (np.arange(layers)[:, None] + offsets).ravel()
    y = np.take_along_axis(panel, order, axis=1).ravel()
    if level is not None:
        axes.axhline(level, color=canvas.MUTED, linewidth=1.1, linestyle=(0, (5, 3)), zorder=1)
    if spread is not None:
        half = np.take_along_axis(spread, order, axis=1).ravel()
        bars = np.stack([np.stack([x, y - half], axis=1), np.stack([x, y + half], axis=1)], axis=1)
        axes.add_collection(LineCollection(list(bars), colors=colour, linewidths=0.8, alpha=0.45, zorder=2))
    size = float(np.clip(2000 / len(x), 7, 24))
    axes.scatter(x, y, s=size, color=colour, linewidths=0, zorder=3)
    axes.set_xlim(-0.6, layers - 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=13, integer=True, steps=[1, 2, 5, 10]))
    canvas.style_plot(axes)


def _explain(axes: Sequence[Axes], quantity: Quantity, has_spread: bool) -> None:
    words = ["a dot is a head, in rising order"]
    if has_spread:
        words.append("a bar is ± 1 standard deviation over the images")
    if quantity.level is not None:
        words.append(f"dashed: {quantity.level_words}")
    lowest = min(axes, key=lambda one: (one.get_position().y0, one.get_position().x0))
    canvas.caption(lowest, *words)


def _highest(panel: NDArray[np.float64], spread: NDArray[np.float64] | None) -> float:
    return float((panel if spread is None else panel + spread).max())


def _check(panels: Mapping[str, Any], spreads: Mapping[str, Any], axes: Sequence[Axes] | None) -> None:
    if not panels:
        raise ShapeError("expected at least one model to draw, but got none")
    for name, spread in spreads.items():
        if name not in panels or spread.shape != panels[name].shape:
            wanted = panels[name].shape if name in panels else f"one of {', '.join(panels)}"
            raise ShapeError(f"the spread of {name} is {spread.shape}, expected {wanted}")
    if axes is not None and len(axes) != len(panels):
        raise ShapeError(f"expected {len(panels)} axes, one a model, but got {len(axes)}")
