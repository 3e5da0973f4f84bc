"""What reaches the read-out token in several models: the same images, one column a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from vitreous.errors import ShapeError
from vitreous.figures import canvas
from vitreous.figures.rollout import SCALING, mask_image, show_picture

_SIDE = 1.35  # inches, of one picture
_GAP = 0.08


def draw_rollouts(shown: Mapping[str, tuple[Any, Any]], names: Sequence[str]) -> Figure:
    """A row for each image: the input, then for each model its own input darkened where little is looked at.

    Models can cut or scale the same file differently; the first column is the first model's input.

    Args:
        shown: for each model's name its thumbnails, (images, image_height, image_width, 3) uint8, and its rollouts,
            (images, rows, columns), shares of 0 or more.
        names: of the images.

    Returns:
        The figure; each rollout is divided by its own largest value, so pictures cannot be compared in brightness.

    Raises:
        ShapeError: if there is no model, numbers of images differ, or shapes do not fit.
        NumericError: if a value is NaN or infinite.
    """
    if not shown:
        raise ShapeError("expected at least one model to draw, but got none")
    images, shares = {}, {}
    for name, (thumbnails, rollouts) in shown.items():
        images[name] = canvas.pictures(thumbnails, "images", "image_height", "image_width", "colours")
        shares[name] = canvas.numbers(rollouts, "images", "rows", "columns")
        if not len(images[name]) == len(shares[name]) == len(names):
            raise ShapeError(
                f"{name} has {len(images[name])} thumbnails and {len(shares[name])} rollouts for {len(names)} images"
            )
    first = next(iter(images.values()))
    tall = _SIDE * first.shape[1] / first.shape[2] + 0.2  # room for the image's name
    figure = Figure(figsize=(0.16 + (_SIDE + _GAP) * (1 + len(images)), 0.8 + tall * len(names)), facecolor="white")
    left, top, bottom = 0.08 / figure.get_figwidth(), 0.38, 0.4
    grid = figure.add_gridspec(
        len(names), 1 + len(images), left=left, right=1 - left, top=1 - top / figure.get_figheight(),
        bottom=bottom / figure.get_figheight(), wspace=_GAP / _SIDE, hspace=0.2 / (tall - 0.2),
    )  # fmt: skip
    for row, words in enumerate(names):
        place = figure.add_subplot(grid[row, 0])
        show_picture(place, first[row], first[row])
        place.annotate(
            canvas.shorten(words, 26), (0, 0), (0, -3), "axes fraction", "offset points", ha="left", va="top",
            fontsize=7.5, color=canvas.INK, fontfamily=list(canvas.families()), parse_math=False,
            annotation_clip=False,
        )  # fmt: skip
        for column, name in enumerate(images, 1):
            place = figure.add_subplot(grid[row, column])
            show_picture(place, mask_image(images[name][row], shares[name][row]), images[name][row])
    for place, name in zip(figure.axes, ["input", *images], strict=False):
        canvas.title(place, canvas.shorten(name, 18), canvas.LABEL)
    figure.text(left, 0.06 / figure.get_figheight(), SCALING, fontsize=canvas.NOTE, color=canvas.MUTED)
    return figure
