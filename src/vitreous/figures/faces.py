"""The faces task: examples of every kind with each model's answer, and how often models of several seeds are right."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from numpy.typing import NDArray
from torch import Tensor

from vitreous.arrangement.face_places import RIGHT
from vitreous.arrangement.result import Faces, Interval
from vitreous.errors import ShapeError
from vitreous.figures import canvas

CHANCE = 0.5  # as many of the test's images are right as are not
_BLOCKS = 2  # examples of a kind
_LEFT = 1.36  # inches, room for names
_ACROSS = canvas.WIDTH - _LEFT - 0.08
_ROW, _WIDE_ROW = 0.19, 0.27  # inches a model, below examples and beside accuracies
_HEAD, _GAP, _AXIS, _LINE = 0.34, 0.12, 0.46, 0.163  # inches: kinds' names, space, ticks and label, a caption's line
_LETTERS = 74  # of a line of the caption
_KIND, _NAME = 7.5, 8.0  # points; names of kinds are no wider than their pictures
_WRONG = canvas.SERIES[1]


def draw_faces_task(faces: Faces, pictures: Tensor) -> Figure:
    """Two examples of each kind above what every model says of them; below, accuracies by kind of test, a dot a seed.

    A number is the probability, in percent, that a model gives to "the arrangement is right"; a box marks a wrong
    answer. Bars are 95 % t-intervals over the seeds.

    Args:
        faces: what came out.
        pictures: (examples, 3, image_height, image_width) in [0, 1], in the order of `faces.example_kinds`.

    Raises:
        ShapeError: if there is no model or example, or not one picture and one answer an example.
        NumericError: if a number is NaN or infinite.
    """
    shown = _as_colours(faces, pictures)
    kinds = list(dict.fromkeys(faces.example_kinds))
    most = max(faces.example_kinds.count(kind) for kind in kinds)
    blocks = [_nth(faces, kinds, nth) for nth in range(min(most, _BLOCKS))]
    words = _caption(faces)
    unit = _ACROSS / len(kinds)  # inches a side of a picture
    block = unit + _ROW * len(faces.models)
    tests = _WIDE_ROW * len(faces.models)
    figure = canvas.blank(
        canvas.WIDTH, _HEAD + len(blocks) * (block + _GAP) + _HEAD + tests + _AXIS + _LINE * len(words) + 0.08
    )
    figure.set_layout_engine("none")  # every inch is given
    below = figure.get_figheight() - _HEAD  # inches from the bottom
    for chosen in blocks:
        below -= block
        axes = _place(figure, _LEFT, below, _ACROSS, block)
        _draw_examples(axes, faces, shown, chosen, _ROW / unit)
        if chosen is blocks[0]:
            _name_kinds(axes, kinds)
        below -= _GAP
    below -= _HEAD + tests
    _draw_tests(figure, faces, below, tests)
    _write(figure, 0.06, below - _AXIS, "\n".join(words))
    return figure


def _as_colours(faces: Faces, pictures: Tensor) -> NDArray[np.uint8]:
    """(examples, image_height, image_width, 3) uint8, after everything was counted."""
    if not faces.models or not faces.example_kinds:
        raise ShapeError("expected at least one model and one example of the faces task to draw, but got none")
    colours = canvas.numbers(pictures, "examples", "channels", "image_height", "image_width")
    wanted = len(faces.example_kinds)
    if len(colours) != wanted:
        raise ShapeError(f"expected {wanted} pictures, one an example, but got {len(colours)}")
    for model in faces.models:
        canvas.numbers([one for values in model.accuracies.values() for one in values], "accuracies")
        if len(canvas.numbers(list(model.answers), "answers")) != wanted:
            raise ShapeError(f"expected {wanted} answers of {model.name}, one an example, but got {len(model.answers)}")
    return np.rint(255 * colours.clip(0, 1)).astype(np.uint8).transpose(0, 2, 3, 1)


def _nth(faces: Faces, kinds: Sequence[str], nth: int) -> list[int | None]:
    """The n-th example of each kind; None where there are fewer."""
    places = [[place for place, one in enumerate(faces.example_kinds) if one == kind] for kind in kinds]
    return [found[nth] if nth < len(found) else None for found in places]


def _draw_examples(
    axes: Axes, faces: Faces, shown: NDArray[np.uint8], chosen: Sequence[int | None], row: float
) -> None:
    """A picture a column, one unit wide and high, and below it a row a model."""
    axes.set_axis_off()
    models = len(faces.models)
    axes.set_xlim(0, len(chosen))
    axes.set_ylim(-row * models, 1)
    middles = [-row * (place + 0.5) for place in range(models)]
    for column, example in enumerate(chosen):
        if example is None:
            continue
        edge = 0.04
        box = (column + edge, column + 1 - edge, edge, 1 - edge)
        axes.imshow(shown[example], extent=box, interpolation="none", aspect="auto")
        for model, middle in zip(faces.models, middles, strict=True):
            is_right = (model.answers[example] > 0.5) == (faces.example_kinds[example] == RIGHT)
            _draw_answer(axes, column + 0.5, middle, model.answers[example], row, is_right=is_right)
    for model, middle in zip(faces.models, middles, strict=True):
        _draw_name(axes, model.name, middle)
    axes.set_xlim(0, len(chosen))  # a picture moves them
    axes.set_ylim(-row * models, 1)


def _draw_answer(axes: Axes, x: float, y: float, answer: float, row: float, *, is_right: bool) -> None:
    if not is_right:
        corner = (x - 0.36, y - 0.42 * row)
        axes.add_patch(Rectangle(corner, 0.72, 0.84 * row, facecolor=_WRONG, alpha=0.3, linewidth=0))
        axes.add_patch(Rectangle(corner, 0.72, 0.84 * row, facecolor="none", edgecolor=_WRONG, linewidth=1.1))
    axes.text(
        x, y, f"{100 * answer:.0f}", fontsize=canvas.NOTE, color=canvas.INK, ha="center", va="center_baseline",
        fontweight="normal" if is_right else "bold",
    )  # fmt: skip


def _draw_name(axes: Axes, name: str, y: float) -> None:
    """A model's name at the left of its row."""
    axes.annotate(
        canvas.shorten(name, 20), (0, y), (-5, 0), ("axes fraction", "data"), "offset points", ha="right", va="center",
        fontsize=_NAME, color=canvas.INK, fontfamily=list(canvas.families()), annotation_clip=False,
        parse_math=False,
    )  # fmt: skip


def _name_kinds(axes: Axes, kinds: Sequence[str]) -> None:
    for column, kind in enumerate(kinds):
        axes.annotate(
            _in_lines(kind, round(62 / len(kinds))), (column + 0.5, 1), (0, 3), "data", "offset points", ha="center",
            va="bottom", fontsize=_KIND, color=canvas.INK, fontfamily=list(canvas.families()),
            annotation_clip=False, parse_math=False, linespacing=1.05,
        )  # fmt: skip


def _draw_tests(figure: Figure, faces: Faces, bottom: float, height: float) -> None:
    """A panel a kind of test, all with one axis; a row a model."""
    tests = list(dict.fromkeys(kind for model in faces.models for kind in model.accuracies))
    width = _ACROSS / max(len(tests), 1)
    is_above = min(share for model in faces.models for shares in model.accuracies.values() for share in shares) > 0.46
    for column, kind in enumerate(tests):
        axes = _place(figure, _LEFT + column * width + 0.09, bottom, width - 0.18, height)
        for row, model in enumerate(faces.models):
            if column == 0:
                _draw_name(axes, model.name, row)
            if kind in model.accuracies:
                _draw_accuracy(axes, row, model.accuracies[kind], model.interval(kind))
        axes.axvline(100 * CHANCE, color=canvas.MUTED, linewidth=1.1, linestyle=(0, (1, 2)), zorder=1)
        axes.set_ylim(len(faces.models) - 0.4, -0.6)
        canvas.style_plot(axes)
        axes.spines["left"].set_visible(False)
        axes.set_yticks(range(len(faces.models)), [])
        axes.tick_params(axis="y", length=0)
        axes.set_xticks([50, 75, 100] if is_above else [0, 50, 100])
        axes.set_xlim(45 if is_above else -4, 104)
        axes.set_title(
            _in_lines(kind, round(60 / len(tests))), fontsize=canvas.NOTE, color=canvas.INK, pad=3,
            fontfamily=list(canvas.families()), parse_math=False, linespacing=1.05,
        )  # fmt: skip
    middle = _LEFT + _ACROSS / 2
    text = _write(figure, middle, bottom - 0.22, "accuracy (%)")
    text.set(fontsize=canvas.LABEL, color=canvas.INK, ha="center")


def _draw_accuracy(axes: Axes, row: int, shares: Sequence[float], mean: Interval) -> None:
    """The seeds, and below them their mean with its interval."""
    if len(shares) > 1:
        axes.scatter(
            [100 * share for share in shares],
            [row - 0.2] * len(shares),
            s=9,
            color=canvas.MUTED,
            linewidths=0,
            zorder=3,
        )
    if mean.low is not None and mean.high is not None:
        ends = [100 * mean.low, 100 * mean.high]
        axes.plot(ends, [row + 0.14] * 2, color=canvas.INK, linewidth=1.3, zorder=3)
        axes.plot(ends, [row + 0.14] * 2, color=canvas.INK, marker="|", markersize=8, linestyle="none", zorder=3)
    axes.plot(
        [100 * mean.value], [row + 0.14], color=canvas.INK, marker="D", markersize=3.4, linestyle="none", zorder=4
    )


def _caption(faces: Faces) -> list[str]:
    """What the numbers and marks mean, in lines."""
    seeds = len(faces.seeds)
    words = [
        "above: probability in % that the arrangement is right, as the first seed's model says; boxed: a wrong answer",
        f"below: {faces.test_images:,} images a kind, half of them right; dotted: chance",
    ]
    if seeds > 1:
        words.append(f"a dot is a seed, a diamond the mean of {seeds}, a bar its 95 % t-interval")
    else:
        words.append("one seed: no interval")
    return [part for line in words for part in textwrap.wrap(line, _LETTERS)]


def _in_lines(words: str, letters: int) -> str:
    """At most two lines."""
    parts = textwrap.wrap(canvas.readable(words), letters) or [""]
    return "\n".join(canvas.shorten(part, letters) for part in [parts[0], " ".join(parts[1:])] if part)


def _place(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at so many inches from the figure's left and bottom."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def _write(figure: Figure, left: float, top: float, words: str) -> Text:
    """A note that begins at so many inches from the figure's left and bottom."""
    across, up = figure.get_size_inches()
    return figure.text(
        left / across, top / up, words, fontsize=canvas.NOTE, color=canvas.MUTED, va="top", linespacing=1.35,
        parse_math=False,
    )  # fmt: skip
