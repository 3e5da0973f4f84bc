"""How a model changed in training: lines over epochs, and a film of one frame a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from vitreous.errors import ShapeError
from vitreous.figures import canvas
from vitreous.figures.distance import draw_attention_distance
from vitreous.figures.overlay import Line, draw_lines
from vitreous.figures.rollout import mask_image, show_picture
from vitreous.figures.similarity import draw_position_similarity

_DOTS_PER_INCH = 100
_SECONDS, _SECONDS_AT_END = 0.7, 2.1


def draw_over_epochs(
    epochs: Sequence[int], values: Any, words: str, *, level: float | None = None, level_words: str = ""
) -> Figure:
    """Mean over the heads of the first, the middle and the last layer against the epochs seen, the y axis from 0.

    Args:
        epochs: one a checkpoint, rising.
        values: (checkpoints, layers, heads).
        words: the y axis, with its unit.
        level: a value to compare with, drawn as a dotted line.
        level_words: what that is.

    Raises:
        ShapeError: if there is not one epoch a checkpoint.
        NumericError: if a value is NaN or infinite.
    """
    heads = canvas.numbers(values, "checkpoints", "layers", "heads")
    checkpoints, layers = heads.shape[:2]
    if len(epochs) != checkpoints:
        raise ShapeError(f"expected {checkpoints} epochs, one a checkpoint, but got {len(epochs)}")
    x = np.asarray(epochs, dtype=np.float64)
    lines = {f"layer {layer}": Line(x, heads[:, layer].mean(1)) for layer in sorted({0, layers // 2, layers - 1})}
    axes = canvas.blank(canvas.WIDTH, 3.4).add_subplot()
    draw_lines(axes, lines)
    if level is not None:
        axes.axhline(level, color=canvas.MUTED, linewidth=1.1, linestyle=(0, (1, 2)), zorder=1)
        axes.set_ylim(0, max(axes.get_ylim()[1], 1.08 * level))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True))
    canvas.label(axes, "epochs of training", words)
    canvas.caption(axes, "means over heads", *([f"dotted: {level_words}"] if level is not None else []))
    return canvas.figure_of(axes)


def draw_training_frame(
    epoch: int,
    distance: Any,
    *,
    uniform: float | None = None,
    top: float | None = None,
    similarity: Any | None = None,
    rollout: tuple[Any, Any] | None = None,
) -> Figure:
    """One frame of the film: distance by depth, position similarity, and one image with its rollout.

    Args:
        epoch: epochs seen, in the title.
        distance: (layers, heads) pixels.
        uniform: pixels, the distance of uniform attention.
        top: of the distance axis, in pixels; the same for all frames of a film.
        similarity: (rows, columns, rows, columns); left out where it is None.
        rollout: thumbnail (image_height, image_width, 3) uint8 and rollout (rows, columns); left out where it is None.
    """
    widths = [4.6, *([4.4] if similarity is not None else []), *([1.9] if rollout is not None else [])]
    figure = canvas.blank(sum(widths), 4.4)
    figure.suptitle(f"epoch {epoch}", x=0.012, ha="left", fontsize=13, color=canvas.INK)
    grid = figure.add_gridspec(2, len(widths), width_ratios=widths)
    draw_attention_distance({"": distance}, uniform=uniform, top=top, axes=[figure.add_subplot(grid[:, 0])])
    if similarity is not None:
        draw_position_similarity(similarity, axes=figure.add_subplot(grid[:, 1]))
    if rollout is not None:
        pictures = {"input": np.asarray(rollout[0]), "attention": mask_image(*rollout)}
        for row, (words, picture) in enumerate(pictures.items()):
            axes = figure.add_subplot(grid[row, -1])
            show_picture(axes, picture, pictures["input"])
            canvas.title(axes, words, canvas.LABEL)
    return figure


def film(frames: Sequence[Figure]) -> bytes:
    """The frames as one animated GIF that repeats, each for 0.7 seconds, the last for 2.1.

    Args:
        frames: of one size.
    """
    pictures = []
    for frame in frames:
        file = BytesIO()
        frame.savefig(file, format="png", dpi=_DOTS_PER_INCH)
        pictures.append(
            Image.open(file).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        )
    seconds = [_SECONDS] * (len(pictures) - 1) + [_SECONDS_AT_END]
    whole = BytesIO()
    pictures[0].save(
        whole, "gif", save_all=True, append_images=pictures[1:], duration=[int(1000 * one) for one in seconds], loop=0
    )
    return whole.getvalue()
