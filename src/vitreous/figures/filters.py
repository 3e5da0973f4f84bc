"""What the first layer looks for: figure 7, left, of the paper."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from vitreous.errors import ShapeError
from vitreous.figures import canvas

_COLUMNS = 7


def draw_filters(
    filters: Any,
    variance: Any,
    *,
    components: int = 28,
    width: float = canvas.WIDTH,
    axes: tuple[Axes, Axes] | None = None,
) -> Figure:
    """The first principal components of the patch embedding's filters, and how much they explain.

    Each is scaled to its own smallest and largest value, so brightness cannot be compared between components,
    and a component and its negative are the same component.

    Args:
        filters: (components, channels, height, width), largest variance first; three channels are shown as
            red, green and blue, any other number as the mean of the channels in grey.
        variance: (components,) in [0, 1], share of the filters' variance that each explains.
        components: how many to show; all, where there are fewer.
        width: of a new figure, in inches.
        axes: two to draw into, for the components and for the variance; a new figure where it is None.

    Returns:
        The figure; explained variance is in per cent, 0 to 100, and adds up from left to right.

    Raises:
        ShapeError: if shapes do not fit.
        ValueError: if components is less than 1.
        NumericError: if a value is NaN or infinite.

    Source: Dosovitskiy et al. 2021, arXiv 2010.11929, figure 7; the scaling is ours, the paper names none.
    """
    weights = canvas.numbers(filters, "components", "channels", "height", "width")
    shares = canvas.numbers(variance, "components")
    if components < 1:
        raise ValueError(f"components is {components}; at least 1 can be shown")
    if len(shares) != len(weights):
        raise ShapeError(f"expected a variance for each of {len(weights)} filters, but got {len(shares)}")
    shown = min(components, len(weights))
    if axes is None:
        rows = math.ceil(shown / _COLUMNS)
        mosaic_height = width * rows / min(shown, _COLUMNS) * weights.shape[2] / weights.shape[3]
        mosaic_height = min(mosaic_height, 6.5)
        above, below = canvas.blank(width, mosaic_height + 1.9).subplots(
            2, 1, height_ratios=[mosaic_height + 0.25, 1.6]
        )
        panels = (above, below)
    else:
        panels = axes
    _draw_components(panels[0], weights[:shown])
    _draw_variance(panels[1], shares[:shown])
    figure = canvas.figure_of(panels[0])
    if axes is None:
        canvas.fit_height(figure)
    return figure


def draw_filter_sets(filters: Mapping[str, tuple[Any, Any]]) -> Figure:
    """The filters of several models side by side, up to four in a row; each as `draw_filters` has it.

    Args:
        filters: for each model's name filters and variance, as `draw_filters` takes them.
    """
    rows = math.ceil(len(filters) / canvas.ACROSS)
    across = math.ceil(len(filters) / rows)
    figure = canvas.blank(canvas.WIDTH * across, 5.2 * rows)
    grid = figure.add_gridspec(2 * rows, across, height_ratios=[3, 1.2] * rows)
    for index, (name, (weights, variance)) in enumerate(filters.items()):
        row, column = divmod(index, across)
        above, below = (figure.add_subplot(grid[2 * row + part, column]) for part in (0, 1))
        draw_filters(weights, variance, axes=(above, below))
        canvas.title(above, canvas.shorten(name, 50))
    return figure


def _draw_components(axes: Axes, weights: NDArray[np.float64]) -> None:
    shown, channels = weights.shape[:2]
    columns = min(shown, _COLUMNS)
    rows = math.ceil(shown / columns)
    tiles = np.zeros((rows * columns, *weights.shape[2:], 4))
    tiles[:shown] = _colours(weights)
    gap = max(1, weights.shape[-1] // 12)
    picture = canvas.mosaic(tiles.reshape(rows, columns, *tiles.shape[1:]), gap, 0.0)
    axes.imshow(picture, interpolation="none")
    axes.set_xticks([])
    axes.set_yticks([])
    canvas.style_picture(axes)
    meaning = () if channels in (1, 3) else (f"grey: mean of {channels} channels",)
    canvas.caption(axes, f"components 1 to {shown}, row by row, each scaled to its own range", *meaning)


def _draw_variance(axes: Axes, shares: NDArray[np.float64]) -> None:
    total = 100 * shares.cumsum()
    count = np.arange(1, len(shares) + 1)
    axes.plot(count, total, color=canvas.SERIES[0], linewidth=1.4, marker="o", markersize=3)
    axes.set_ylim(0, 104)
    axes.set_yticks([0, 50, 100])
    axes.set_xlim(0.4, len(shares) + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(PercentFormatter(100, 0))
    canvas.style_plot(axes)
    canvas.label(axes, x=f"first components ({len(shares)} explain {total[-1]:.1f} %)", y="variance\nexplained")


def _colours(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(components, channels, height, width) -> (components, height, width, red green blue opacity)."""
    seen = weights if weights.shape[1] == 3 else weights.mean(axis=1, keepdims=True).repeat(3, axis=1)
    low = seen.min(axis=(1, 2, 3), keepdims=True)
    reach = seen.max(axis=(1, 2, 3), keepdims=True) - low
    scaled = np.where(reach > 0, (seen - low) / np.where(reach > 0, reach, 1), 0.5)  # a flat filter is grey
    opaque = np.ones((len(scaled), *scaled.shape[2:], 1))
    return np.concatenate([scaled.transpose(0, 2, 3, 1), opaque], axis=-1)
