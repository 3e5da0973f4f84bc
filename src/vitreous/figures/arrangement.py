"""Answers to images whose parts are in another place, one figure a question; and all figures of a report as files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from vitreous.arrangement.face_task import example_images
from vitreous.arrangement.result import Answers, Arrangement, Faces, Interval, ModelArrangement
from vitreous.errors import ShapeError
from vitreous.figures import canvas, intervals
from vitreous.figures.faces import draw_faces_task
from vitreous.figures.files import write_each
from vitreous.figures.places import draw_read_out, draw_translation

ORDERS: Mapping[str, str] = {"random": "at random", "centre first": "centre first", "rollout": "by rollout"}
"""In which patches are hidden, in words; others keep their names."""

_PANEL = 1.95  # inches, the height of one of several panels below each other
_APART = 0.4  # of the step from one name to the next, for all models together


class Measure(NamedTuple):
    """One number of `Answers`, and what stands at its axis."""

    name: str
    words: str
    factor: float = 1.0


ACCURACY = Measure("accuracy", "accuracy (%)", 100.0)
AGREEMENT = Measure("agreement", "same answer (%)", 100.0)
DIVERGENCE = Measure("divergence", "divergence (nats)")
COSINE = Measure("cosine", "cosine of features")

Curve = tuple[Sequence[float], Sequence[Interval]]
"""Where numbers stand, and the numbers."""


def write_arrangement_figures(arrangement: Arrangement, faces: Faces | None, folder: str | Path) -> list[Path]:
    """Writes each figure that there are numbers for, as PDF and as PNG.

    Args:
        arrangement: what to draw.
        faces: likewise; None leaves its figure out.
        folder: made if there is none; files of the same names are replaced.

    Returns:
        The files.

    Raises:
        OutputError: if a file cannot be written.
    """
    return write_each(_figures(arrangement, faces), Path(folder))


def draw_grid_shuffle(arrangement: Arrangement) -> Figure:
    """Accuracy, divergence and cosine against k, of images cut into k x k tiles in another order; a line a model.

    Without labels the share of unchanged answers stands in the place of accuracy.

    Raises:
        ShapeError: if there is no model.
        NumericError: if a number is NaN or infinite.
    """
    measures = (answer_measure(arrangement), DIVERGENCE, COSINE)
    sheets = _stack(arrangement, len(measures))
    shuffled = [dict(sorted(model.shuffled.items())) for model in arrangement.models]
    grids = sorted({k for one in shuffled for k in one})
    for sheet, measure in zip(sheets, measures, strict=True):
        _draw_curves(sheet, arrangement, measure, [_curve(one, measure) for one in shuffled])
    last = sheets[-1]
    last.set_xscale("log", base=2)  # the axis of all
    last.xaxis.set_major_locator(FixedLocator([float(k) for k in grids]))
    last.xaxis.set_major_formatter(FixedFormatter([str(k) for k in grids]))
    last.xaxis.set_minor_locator(NullLocator())
    last.set_xlim(grids[0] / 1.15, grids[-1] * 1.15)
    canvas.label(last, "k, for k × k tiles (logarithmic; 1 is unchanged)", measures[-1].words)
    canvas.caption(last, *_notes(arrangement))
    return intervals.name_models(canvas.figure_of(last), places_of(arrangement))


def draw_positions(arrangement: Arrangement) -> Figure:
    """Accuracy and divergence by what was done to the position embeddings; models without a table are left out.

    Raises:
        ShapeError: if no model has such a table.
        NumericError: if a number is NaN or infinite.
    """
    having = {index: model for index, model in enumerate(arrangement.models) if model.positions}
    if not having:
        raise ShapeError("expected a model with a table of position embeddings, but got none")
    names = ["unchanged", *dict.fromkeys(name for model in having.values() for name in model.positions)]
    measures = (answer_measure(arrangement), DIVERGENCE)
    sheets = _stack(arrangement, len(measures))
    for sheet, measure in zip(sheets, measures, strict=True):
        drawn: list[Interval] = []
        for order, (index, model) in enumerate(having.items()):
            beside = _APART * (order / (len(having) - 1) - 0.5) if len(having) > 1 else 0.0
            answers = {"unchanged": model.shuffled.get(1), **model.positions}
            places, numbers = _curve(
                {names.index(name) + beside: one for name, one in answers.items() if one is not None}, measure
            )
            if numbers:
                intervals.draw_dots(sheet, places, numbers, index)
            drawn += numbers
        _finish(sheet, arrangement, measure, drawn)
        sheet.set_xlim(-0.5, len(names) - 0.5)
    sheets[-1].set_xticks(range(len(names)), [canvas.shorten(name, 16) for name in names])
    canvas.label(sheets[-1], "position embeddings", measures[-1].words)
    others = len(arrangement.models) - len(having)
    words = [f"not drawn: {others} without a table of position embeddings"] if others else []
    canvas.caption(sheets[-1], *_notes(arrangement, "bar"), *words)
    named = {model.name: index for index, model in having.items()}
    return intervals.name_models(canvas.figure_of(sheets[0]), named)


def draw_occlusion(arrangement: Arrangement) -> Figure:
    """Accuracy, without labels the share of unchanged answers, against the share of patches hidden; a panel an order.

    Raises:
        ShapeError: if no patches were hidden.
        NumericError: if a number is NaN or infinite.
    """
    orders = list(dict.fromkeys(order for model in arrangement.models for order in model.occluded))
    if not orders:
        raise ShapeError("expected at least one order in which patches were hidden, but got none")
    measure = answer_measure(arrangement)
    sheets = _stack(arrangement, len(orders), _PANEL + 0.16 * ((len(arrangement.models) - 1) // 2))  # lines of areas
    for sheet, order in zip(sheets, orders, strict=True):
        curves = []
        for model in arrangement.models:
            shares = dict(sorted(model.occluded.get(order, {}).items()))
            curves.append(_curve({100 * share: answers for share, answers in shares.items()}, measure))
        _draw_curves(sheet, arrangement, measure, curves)
        canvas.title(sheet, ORDERS.get(order, order), canvas.LABEL)
        _name_areas(sheet, arrangement, order)
    sheets[-1].set_xlim(-2, 102)
    sheets[-1].set_xticks(range(0, 101, 25))
    canvas.label(sheets[-1], "patches hidden (%)", measure.words)
    words = ["numbers above a panel: area under each line, as a share of the panel, with its interval"]
    if arrangement.rollout_of is not None and "rollout" in orders:
        words.append(f"rollout, for all models: that of {canvas.shorten(arrangement.rollout_of, 40)}")
    canvas.caption(sheets[-1], *_notes(arrangement), *words)
    return intervals.name_models(canvas.figure_of(sheets[0]), places_of(arrangement))


def answer_measure(arrangement: Arrangement) -> Measure:
    """What says best whether answers stay right: accuracy, and without labels whether they stay the same."""
    return ACCURACY if arrangement.has_labels else AGREEMENT


def places_of(arrangement: Arrangement) -> dict[str, int]:
    """Each model's place, which is its colour and marker."""
    return {model.name: index for index, model in enumerate(arrangement.models)}


def _figures(arrangement: Arrangement, faces: Faces | None) -> Iterator[tuple[str, Figure]]:
    models = arrangement.models
    yield "grid-shuffle", draw_grid_shuffle(arrangement)
    if any(model.read_out for model in models):
        yield "position-read-out", draw_read_out(arrangement)
    if any(model.positions for model in models):
        yield "position-embeddings", draw_positions(arrangement)
    if any(model.shifted for model in models):
        yield "translation", draw_translation(arrangement)
    if any(model.occluded for model in models):
        yield "occlusion", draw_occlusion(arrangement)
    if faces is not None:
        yield "faces", draw_faces_task(faces, example_images(faces))


def _stack(arrangement: Arrangement, count: int, height: float = _PANEL) -> list[Axes]:
    """Axes below each other with one x axis, in a figure with room for a line for each model's name."""
    if not arrangement.models:
        raise ShapeError("expected at least one model to draw, but got none")
    figure = canvas.blank(canvas.WIDTH, height * count + 0.6 + 0.16 * len(arrangement.models))
    return list(figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0])


def _curve(answers: Mapping[float, Answers] | Mapping[int, Answers], measure: Measure) -> Curve:
    """A measure's numbers, in the unit of its axis, of all answers that have it."""
    found = [(float(place), getattr(one, measure.name)) for place, one in answers.items()]
    kept = [(place, number) for place, number in found if number is not None]
    return [place for place, _ in kept], intervals.scaled([number for _, number in kept], measure.factor)


def _draw_curves(axes: Axes, arrangement: Arrangement, measure: Measure, curves: Sequence[Curve]) -> None:
    """One measure of all models, in their order."""
    is_band = len(curves) <= intervals.MOST_BANDS
    for index, (places, numbers) in enumerate(curves):
        if numbers:
            intervals.draw_curve(axes, places, numbers, index, is_band=is_band)
    _finish(axes, arrangement, measure, [number for _, numbers in curves for number in numbers])


def _finish(axes: Axes, arrangement: Arrangement, measure: Measure, drawn: Sequence[Interval]) -> None:
    """Shares from 0 to 100 %, divergence from 0, cosine to 1 and from 0 or what is less."""
    canvas.style_plot(axes)
    canvas.label(axes, y=measure.words)
    axes.set_ylim(0, 104)
    if measure is ACCURACY and arrangement.class_names:
        intervals.draw_level(axes, 100 / len(arrangement.class_names))
    elif measure is DIVERGENCE:
        axes.set_ylim(0, 1.08 * intervals.highest(drawn) or 1)
    elif measure is COSINE:
        axes.set_ylim(min(0.0, 1.08 * intervals.lowest(drawn)), 1.04)


def _name_areas(axes: Axes, arrangement: Arrangement, order: str) -> None:
    """Each model's area under its line, with its interval, above the panel."""
    areas = {index: model.areas[order] for index, model in enumerate(arrangement.models) if order in model.areas}
    words = []
    for area in areas.values():
        canvas.numbers([area.value], "areas")
        is_bounded = area.low is not None and area.high is not None
        words.append(f"{area.value:.2f}" + (f" ({area.low:.2f}–{area.high:.2f})" if is_bounded else ""))
    intervals.name_marks(axes, list(areas), words)


def _notes(arrangement: Arrangement, mark: str = "band") -> list[str]:
    """What the figure's marks mean, for the caption."""
    if mark == "band" and len(arrangement.models) > intervals.MOST_BANDS:
        mark = "bar"
    known = any(intervals.has_bounds([one.divergence for one in _all_answers(model)]) for model in arrangement.models)
    sure = f"a {mark} is a 95 % interval over {arrangement.images:,} images"
    words = [sure if known else "no intervals"]
    if arrangement.has_labels and arrangement.class_names:
        words.append(f"dotted: chance, 1 of {len(arrangement.class_names)} classes")
    return words


def _all_answers(model: ModelArrangement) -> list[Answers]:
    changed = [answers for curve in model.occluded.values() for answers in curve.values()]
    return [*model.shuffled.values(), *model.positions.values(), *model.shifted.values(), *changed]
