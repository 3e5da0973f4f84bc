"""Which position embeddings are alike: figure 7, centre, and figure 10 of the paper."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitreous.errors import ShapeError
from vitreous.figures import canvas

_GAP = 1
_MOST_TILES = 20  # on a side


def draw_position_similarity(
    similarity: Any,
    structure: Mapping[str, float] | None = None,
    *,
    width: float = canvas.WIDTH,
    axes: Axes | None = None,
) -> Figure:
    """A tile for each patch: how alike its position embedding is to that of every patch of the grid.

    A tile that is bright only at its own place tells that neighbours are told apart; a bright row and column
    tell that the grid's rows and columns were learned. Of grids with more than 20 rows or columns, evenly
    spaced patches have a tile, each tile still the whole grid.

    Args:
        similarity: (rows, columns, rows, columns) cosines in [-1, 1].
        structure: named numbers for the caption, each in [-1, 1].
        width: of a new figure, in inches.
        axes: to draw into; a new figure where it is None.

    Returns:
        The figure; colours go from -1 to 1 whatever the values.

    Raises:
        ShapeError: if the shape is not (rows, columns, rows, columns).
        NumericError: if a value is NaN or infinite.

    Source: Dosovitskiy et al. 2021, arXiv 2010.11929, figures 7 and 10; the class token has no tile.
    """
    cosines = canvas.numbers(similarity, "rows", "columns", "rows", "columns")
    rows, columns = cosines.shape[:2]
    if cosines.shape[2:] != (rows, columns):
        raise ShapeError(f"expected (rows, columns, rows, columns) twice the same grid, but got {cosines.shape}")
    step = math.ceil(max(rows, columns) / _MOST_TILES)
    shown = range(step // 2, rows, step), range(step // 2, columns, step)
    picture = canvas.mosaic(cosines[np.ix_(*shown)], _GAP, np.nan)
    sheet = axes or canvas.blank(width, width * picture.shape[0] / picture.shape[1] + 1).add_subplot()
    tallest = max(3, 16 * picture.shape[0] // picture.shape[1])  # labels that fit one above the other
    image = sheet.imshow(picture, cmap=canvas.COSINES, vmin=-1, vmax=1, interpolation="none")
    canvas.tick_tiles(sheet.xaxis, shown[1], columns, _GAP)
    canvas.tick_tiles(sheet.yaxis, shown[0], rows, _GAP, most=tallest)
    canvas.style_picture(sheet)
    canvas.label(sheet, x="column of the patch", y="row of the patch")
    figure = _finish(sheet, image, structure or {}, step)
    if axes is None:
        canvas.fit_height(figure)
    return figure


def draw_position_similarities(
    similarities: Mapping[str, Any], structures: Mapping[str, Mapping[str, float]] | None = None
) -> Figure:
    """The sheets of several models side by side, up to four in a row; each as `draw_position_similarity` has it.

    Args:
        similarities: for each model's name (rows, columns, rows, columns) cosines in [-1, 1].
        structures: for some of the names, numbers for the caption.
    """
    sheets = canvas.panels(len(similarities), canvas.WIDTH, canvas.WIDTH + 0.3, sharey=False)
    for sheet, (name, similarity) in zip(sheets, similarities.items(), strict=True):
        draw_position_similarity(similarity, (structures or {}).get(name), axes=sheet)
        canvas.title(sheet, canvas.shorten(name, 50))
    return canvas.figure_of(sheets[0])


def _finish(axes: Axes, image: Any, structure: Mapping[str, float], step: int) -> Figure:
    canvas.colour_bar(axes, image, "cosine similarity", [-1, -0.5, 0, 0.5, 1])
    lines = [] if step == 1 else [f"a tile for one patch in {step}, in either direction"]
    if structure:
        lines.append(", ".join(f"{name.replace('_', '-')} {value:.2f}" for name, value in structure.items()))
    if lines:
        canvas.caption(axes, *lines)
    return canvas.figure_of(axes)
