"""Where the read-out token looks, in every head of every layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitreous.figures import canvas

_GAP = 1


def draw_class_attention(
    attention: Any, thumbnail: Any | None = None, *, name: str = "", axes: Axes | None = None
) -> Figure:
    """A sheet of maps of one image: layers from left to right, heads from top to bottom.

    Args:
        attention: (layers, heads, rows, columns), shares of 0 or more.
        thumbnail: (image_height, image_width, 3) uint8, shown beside the sheet; None leaves it out.
        name: of the image, above the sheet.
        axes: to draw the sheet into, without the thumbnail; a new figure where it is None.

    Returns:
        The figure; each map is divided by its own largest value, so maps cannot be compared in brightness.

    Raises:
        ShapeError: if shapes do not fit.
        NumericError: if a value is NaN or infinite.
    """
    shares = canvas.numbers(attention, "layers", "heads", "rows", "columns").clip(0)
    layers, heads, rows, columns = shares.shape
    largest = shares.max(axis=(2, 3), keepdims=True)
    maps = shares / np.where(largest > 0, largest, 1)
    picture = canvas.mosaic(maps.swapaxes(0, 1), _GAP, np.nan)
    sheet, bar = (axes, None) if axes is not None else _sheet(picture.shape[0] / picture.shape[1], thumbnail)
    tallest = max(3, 16 * picture.shape[0] // picture.shape[1])  # labels that fit one above the other
    image = sheet.imshow(picture, cmap=canvas.SHARES, vmin=0, vmax=1, interpolation="none")
    canvas.tick_tiles(sheet.xaxis, range(layers), columns, _GAP)
    canvas.tick_tiles(sheet.yaxis, range(heads), rows, _GAP, most=tallest)
    canvas.style_picture(sheet)
    canvas.label(sheet, x="layer (0 is the first)", y="head")
    if name:
        canvas.title(sheet, canvas.shorten(name, 60))
    figure = _add_bar(sheet, bar, image)
    if axes is None:
        canvas.fit_height(figure)
    return figure


def _sheet(aspect: float, thumbnail: Any | None) -> tuple[Axes, Axes | None]:
    """Axes for the maps, and beside a thumbnail also axes for the colour bar under it."""
    height = float(np.clip(canvas.WIDTH * aspect, 1.2, 8)) + 1.0
    if thumbnail is None:
        return canvas.blank(canvas.WIDTH, height).add_subplot(), None
    picture: NDArray[np.uint8] = canvas.pictures(thumbnail, "image_height", "image_width", "colours")
    figure = canvas.blank(canvas.WIDTH + 1.8, height)
    grid = figure.add_gridspec(1, 2, width_ratios=[1.6, canvas.WIDTH])
    left = figure.add_subplot(grid[0])
    left.imshow(picture, interpolation="none")
    left.set_anchor("N")
    left.set_xticks([])
    left.set_yticks([])
    canvas.style_picture(left)
    canvas.title(left, "input")
    return figure.add_subplot(grid[1], anchor="N"), left.inset_axes((0, -0.3, 1, 0.07))


def _add_bar(sheet: Axes, place: Axes | None, image: Any) -> Figure:
    figure = canvas.figure_of(sheet)
    if place is None:
        canvas.colour_bar(sheet, image, "attention / largest", [0, 0.5, 1])
    else:
        bar = figure.colorbar(image, cax=place, orientation="horizontal", ticks=[0, 0.5, 1])
        canvas.finish_bar(bar, "attention over the\nlargest of its map")
    return figure
