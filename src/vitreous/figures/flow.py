"""What can reach the read-out token beside what does: attention flow, rollout, and what limits the flow."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from vitreous.errors import ConfigError, ShapeError
from vitreous.figures import canvas
from vitreous.figures.rollout import Prediction, draw_rollout, mask_image, paint_patches
from vitreous.measures.flow import columns_warning
from vitreous.measures.flow_solver import CUTS, INTERIOR

CUT_COLOURS = ("#f0e442", "#56b4e9", "#d55e00")
"""Of each cut, by its code: Okabe and Ito, colour-blind safe, and light, middle and dark without colour."""

_MEANINGS = (
    "output: all that may leave the read-out token, which is 1",
    "input: all that the first layer lets into the patch, its column sum",
    "interior: a narrower place between",
)
_SCALING = "rollout, flow: over their largest value, image by image; limit: the cut that bounds the flow of a patch"
_WORDS = ("input", "rollout", "flow", "limit")
_SMALL = 7.5  # points
_TOUCH = 0.04  # inches between the pictures of one image
_LINE = 0.17  # inches from one line of the legend to the next

Style = Literal["mask", "patches"]


def draw_flow(
    thumbnails: Any,
    rollouts: Any,
    flows: Any,
    cuts: Any,
    names: Sequence[str],
    predictions: Sequence[Prediction] = (),
    *,
    style: Style = "mask",
    axes: Sequence[Axes] | None = None,
) -> Figure:
    """Input, attention rollout, attention flow and what limits it, four pictures an image, in a sheet.

    Args:
        thumbnails: (images, image_height, image_width, 3) uint8.
        rollouts: (images, rows, columns), shares of 0 or more.
        flows: (images, rows, columns), in [0, 1].
        cuts: (images, rows, columns), codes of `measures.flow_solver.CUTS`.
        names: one an image.
        predictions: as in `draw_rollout`.
        style: likewise.
        axes: four for each image, to draw into, in the order of the first line; a new figure where it is None, which
            also says what the colours mean, and whether the flow is little but the first layer's column sums.

    Returns:
        The figure; each rollout and each flow is divided by its own largest value, which is written below.

    Raises:
        ShapeError: if the numbers of images differ, or shapes do not fit.
        ConfigError: if a cut has no such code.
        NumericError: if a value is NaN or infinite.

    Source: Abnar & Zuidema 2020, arXiv 2005.00928, section 3.
    """
    images = canvas.pictures(thumbnails, "images", "image_height", "image_width", "colours")
    shares, capacities, codes = (canvas.numbers(v, "images", "rows", "columns") for v in (rollouts, flows, cuts))
    if not shares.shape == capacities.shape == codes.shape:
        raise ShapeError(f"rollouts {shares.shape}, flows {capacities.shape} and cuts {codes.shape} differ in shape")
    if not np.isin(codes, range(len(CUTS))).all():
        raise ConfigError(f"cuts are codes from 0 to {len(CUTS) - 1}, but {codes.min():g} to {codes.max():g} came")
    if axes is None:
        warning = columns_warning(float(np.mean(codes != INTERIOR)))
        axes = _sheet(len(images), images.shape[1] / images.shape[2], warning)
    if len(axes) != 4 * len(images):
        raise ShapeError(f"expected {4 * len(images)} axes, four an image, but got {len(axes)}")
    pairs = [one for first in range(0, len(axes), 4) for one in axes[first : first + 2]]
    letters = _letters(axes[0])
    short = [canvas.shorten(name, letters) for name in names]
    likely = [[(canvas.shorten(word, letters - 6), share) for word, share in one[:1]] for one in predictions]
    figure = draw_rollout(images, shares, short, likely, style=style, axes=pairs)
    paint = {"mask": mask_image, "patches": paint_patches}[style]
    for index, image in enumerate(images):
        _, middle, right, last = axes[4 * index : 4 * index + 4]
        _write(middle, f"up to {shares[index].max():.2g}")
        _show(right, paint(image, capacities[index]), image)
        _write(right, f"{capacities[index].min():.2f} to {capacities[index].max():.2f}")
        _show(last, paint_cuts(codes[index]), image)
        _write(last, f"{np.mean(codes[index] == INTERIOR):.0%} interior")
    return figure


def paint_cuts(cuts: Any) -> NDArray[np.uint8]:
    """The colour of each patch's cut: (rows, columns) codes -> (rows, columns, 3)."""
    colours = (255 * np.array([to_rgb(colour) for colour in CUT_COLOURS])).round().astype(np.uint8)
    painted: NDArray[np.uint8] = colours[canvas.numbers(cuts, "rows", "columns").astype(int)]
    return painted


def _letters(axes: Axes) -> int:
    """How many letters fit below one picture: the next has its own words there."""
    inches = axes.get_position().width * canvas.figure_of(axes).get_figwidth()
    return max(10, int(inches * 72 / (_SMALL * 0.6)))


def _sheet(images: int, aspect: float, warning: str) -> list[Axes]:
    """Four axes an image, one image in a row or two, and the legend below."""
    across = 1 if images <= 3 else 2
    rows = math.ceil(images / across)
    side = {1: 1.35, 2: 1.05}[across]  # inches, of one picture; so are the next four
    step = 4 * side + 3 * _TOUCH + 0.25, side * aspect + 0.42
    lines = textwrap.wrap(_SCALING, 84) + textwrap.wrap(warning, 84)
    left, top, below = 0.08, 0.3, 0.12 + _LINE * (len(CUTS) + len(lines))
    width, height = left + across * step[0] - 0.17, top + rows * step[1] + below
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = []
    for index in range(images):
        row, column = divmod(index, across)
        for part, word in enumerate(_WORDS):
            x = left + column * step[0] + part * (side + _TOUCH)
            y = height - top - row * step[1] - side * aspect
            axes.append(figure.add_axes((x / width, y / height, side / width, side * aspect / height)))
            if row == 0:
                canvas.title(axes[-1], word, canvas.LABEL)
    _explain(figure, left, below - 0.06, lines)
    return axes


def _explain(figure: Figure, left: float, top: float, lines: Sequence[str]) -> None:
    """The colours of the cuts and what they mean, then other lines; the place is in inches."""
    width, height = figure.get_size_inches()
    for index, words in enumerate([*_MEANINGS, *lines]):
        x, y = left, (top - _LINE * (index + 1)) / height
        if index < len(CUT_COLOURS):
            place = Rectangle((x / width, y), 0.1 / width, 0.1 / height, color=CUT_COLOURS[index])
            place.set_transform(figure.transFigure)
            figure.add_artist(place)
            x += 0.17
        figure.text(x / width, y, words, fontsize=canvas.NOTE, color=canvas.MUTED)


def _show(axes: Axes, picture: NDArray[np.uint8], image: NDArray[np.uint8]) -> None:
    """Any picture in the image's own pixel coordinates, so that all four have one size."""
    axes.imshow(picture, extent=(-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5), interpolation="none")
    axes.set_xticks([])
    axes.set_yticks([])
    canvas.style_picture(axes)


def _write(axes: Axes, words: str) -> None:
    axes.annotate(
        words, (0, 0), (0, -4), "axes fraction", "offset points", ha="left", va="top",
        fontsize=_SMALL, color=canvas.MUTED, fontfamily=list(canvas.families()), linespacing=1.3,
        annotation_clip=False, parse_math=False,
    )  # fmt: skip
