"""What reaches the read-out token: figure 6 of the paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from vitreous.errors import ShapeError
from vitreous.figures import canvas

SCALING = "attention: rollout over its largest value, image by image"
_SMALL = 7.5  # points
_TOUCH = 0.04  # inches between input and attention

Prediction = Sequence[tuple[str, float]]


def draw_rollout(
    thumbnails: Any,
    rollouts: Any,
    names: Sequence[str],
    predictions: Sequence[Prediction] = (),
    *,
    style: Literal["mask", "patches"] = "mask",
    axes: Sequence[Axes] | None = None,
) -> Figure:
    """Pairs of input and attention rollout, one pair an image, in a sheet.

    Args:
        thumbnails: (images, image_height, image_width, 3) uint8.
        rollouts: (images, rows, columns), shares of 0 or more.
        names: one an image.
        predictions: for each image its most likely classes, as (name, probability), most likely first;
            empty leaves them out.
        style: "mask" darkens the image where little is looked at; "patches" is the rollout itself.
        axes: two for each image, to draw into, input first; a new figure where it is None.

    Returns:
        The figure; each rollout is divided by its own largest value, so images cannot be compared in
        brightness.

    Raises:
        ShapeError: if the numbers of images differ, or shapes do not fit.
        NumericError: if a value is NaN or infinite.

    Source: Dosovitskiy et al. 2021, arXiv 2010.11929, figures 6 and 14; rollout as in Abnar & Zuidema 2020.
    """
    images = canvas.pictures(thumbnails, "images", "image_height", "image_width", "colours")
    shares = canvas.numbers(rollouts, "images", "rows", "columns")
    counts = {"rollouts": len(shares), "names": len(names), "predictions": len(predictions) or len(images)}
    for what, count in counts.items():
        if count != len(images):
            raise ShapeError(f"expected {len(images)} {what}, one an image, but got {count}")
    if axes is None:
        axes = _sheet(len(images), images.shape[1] / images.shape[2])
    if len(axes) != 2 * len(images):
        raise ShapeError(f"expected {2 * len(images)} axes, two an image, but got {len(axes)}")
    paint: Callable[[Any, Any], NDArray[np.uint8]] = {"mask": mask_image, "patches": paint_patches}[style]
    for index, (image, share) in enumerate(zip(images, shares, strict=True)):
        left, right = axes[2 * index], axes[2 * index + 1]
        show_picture(left, image, image)
        show_picture(right, paint(image, share), image)
        _write(left, names[index], predictions[index] if predictions else ())
    return canvas.figure_of(axes[0])


def mask_image(thumbnail: Any, rollout: Any) -> NDArray[np.uint8]:
    """The image times its rollout: full brightness at the largest share, black where nothing reaches.

    The rollout is divided by its largest value and enlarged smoothly (bicubic); small images are enlarged
    without smoothing to at least 224 pixels first.

    Args:
        thumbnail: (image_height, image_width, 3) uint8.
        rollout: (rows, columns), shares of 0 or more.
    """
    image = enlarge(thumbnail)
    scaled = _scaled(rollout).astype(np.float32)
    smooth = Image.fromarray(scaled).resize((image.shape[1], image.shape[0]), Image.Resampling.BICUBIC)
    brightness = np.asarray(smooth, dtype=np.float64).clip(0, 1)[..., None]
    darkened: NDArray[np.uint8] = (image * brightness).round().astype(np.uint8)
    return darkened


def paint_patches(thumbnail: Any, rollout: Any) -> NDArray[np.uint8]:
    """The rollout over its largest value in colours, patch by patch, not smoothed: (rows, columns, 3)."""
    painted = matplotlib.colormaps[canvas.SHARES](_scaled(rollout), bytes=True)
    colours: NDArray[np.uint8] = np.asarray(painted)[..., :3]
    return colours


def enlarge(thumbnail: Any, least: int = 224) -> NDArray[np.uint8]:
    """The image, each pixel repeated as often as it takes for its shorter side to have `least` pixels."""
    image = canvas.pictures(thumbnail, "image_height", "image_width", "colours")
    times = math.ceil(least / min(image.shape[:2]))
    larger: NDArray[np.uint8] = image.repeat(times, axis=0).repeat(times, axis=1)
    return larger


def _scaled(rollout: Any) -> NDArray[np.float64]:
    share: NDArray[np.float64] = canvas.numbers(rollout, "rows", "columns").clip(0)
    return share / (share.max() or 1)


def _sheet(images: int, aspect: float) -> list[Axes]:
    """Two axes an image, up to four pairs in a row, in as few and as even rows as possible."""
    rows = math.ceil(images / (4 if images > 6 else 3))
    across = math.ceil(images / rows)
    side = {1: 2.4, 2: 1.7, 3: 1.25, 4: 1.0}[across]  # inches, of one picture; so are the next four
    step = 2 * side + _TOUCH + 0.25, side * aspect + 0.42
    left, top = 0.08, 0.3
    width, height = left + across * step[0] - 0.17, top + rows * step[1] + 0.26
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = []
    for index in range(images):
        row, column = divmod(index, across)
        for part, word in enumerate(("input", "attention")):
            x = left + column * step[0] + part * (side + _TOUCH)
            y = height - top - row * step[1] - side * aspect
            place = (x / width, y / height, side / width, side * aspect / height)
            axes.append(figure.add_axes(place))
            if row == 0:
                canvas.title(axes[-1], word, canvas.LABEL)
    figure.text(left / width, 0.08 / height, SCALING, fontsize=canvas.NOTE, color=canvas.MUTED)
    return axes


def show_picture(axes: Axes, picture: NDArray[np.uint8], image: NDArray[np.uint8]) -> None:
    """Any picture in the image's own pixel coordinates, so that a pair has one size."""
    axes.imshow(picture, extent=(-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5), interpolation="none")
    axes.set_xticks([])
    axes.set_yticks([])
    canvas.style_picture(axes)


def _write(axes: Axes, name: str, prediction: Prediction) -> None:
    inches = 2 * axes.get_position().width * canvas.figure_of(axes).get_figwidth()
    letters = max(12, int(inches * 72 / (_SMALL * 0.56)))
    lines = [canvas.shorten(name, letters)]
    if prediction:
        likely, probability = prediction[0]
        lines.append(f"{canvas.shorten(likely, letters - 6)}  {probability:.0%}")
    axes.annotate(
        "\n".join(lines), (0, 0), (0, -4), "axes fraction", "offset points", ha="left", va="top",
        fontsize=_SMALL, color=canvas.INK, fontfamily=list(canvas.families()), linespacing=1.3,
        annotation_clip=False, parse_math=False,
    )  # fmt: skip
