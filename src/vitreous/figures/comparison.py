"""Every figure of several models, as files: PDF for papers, PNG for slides, and a GIF of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from matplotlib.figure import Figure

from vitreous.atomic import write_atomically
from vitreous.compared import Compared, Measured
from vitreous.figures.depth import Quantity
from vitreous.figures.distance import draw_attention_distance
from vitreous.figures.files import write_each
from vitreous.figures.filters import draw_filter_sets
from vitreous.figures.overlay import draw_overlay
from vitreous.figures.rollouts import draw_rollouts
from vitreous.figures.similarity import draw_position_similarities
from vitreous.figures.training import draw_over_epochs, draw_training_frame, film

CHECKPOINTS = 8
"""Checkpoints of a run that are set side by side, evenly spaced; the film and the lines have all."""

_UNIFORM = "everything looked at alike"


def write_comparison_figures(compared: Compared, folder: str | Path) -> list[Path]:
    """Writes each figure of several models, as PDF and as PNG, and for a run's checkpoints the film `training.gif`.

    Args:
        compared: what to draw; see `vitreous.compared.compare`.
        folder: made if there is none; files of the same names are replaced.

    Returns:
        The files.

    Raises:
        OutputError: if a file cannot be written.
    """
    written = write_each(_figures(compared), Path(folder))
    if compared.epochs:
        written.append(Path(folder) / "training.gif")
        write_atomically(written[-1], film(list(_frames(compared))))
    return written


def draw_measured(compared: Compared, measured: Measured) -> Figure:
    """One quantity of all models in one plot: over the epochs of a run, over depth for any others."""
    if not compared.epochs:
        return draw_overlay(measured.values, Quantity(measured.words, measured.uniform, _UNIFORM))
    values, level = torch.stack(list(measured.values.values())), next(iter(measured.uniform.values()))
    return draw_over_epochs(compared.epochs, values, measured.words, level=level, level_words=_UNIFORM)


def _figures(compared: Compared) -> Iterator[tuple[str, Figure]]:
    kind = "over-training" if compared.epochs else "overlay"
    for name, measured in {
        "attention-distance": compared.distance(),
        "attention-entropy": compared.entropy(),
        "prefix-mass": compared.prefix_mass(),
    }.items():
        if measured.values:
            yield f"{name}-{kind}", draw_measured(compared, measured)
    few = compared.chosen(CHECKPOINTS) if compared.epochs else compared
    seen, distance = few.inspections.items(), few.distance()
    figure = draw_attention_distance(distance.values, uniform=distance.uniform, unit=distance.unit)
    yield "attention-distance", figure
    if few.images:
        yield "attention-rollout", draw_rollouts(few.shown(), few.images)
    similarities = {name: one.position_similarity for name, one in seen if one.position_similarity is not None}
    if similarities:
        structures = {name: few.inspections[name].position_structure for name in similarities}
        yield "position-similarity", draw_position_similarities(similarities, structures)
    filters = {name: (one.filters, one.filters_variance) for name, one in seen if one.filters is not None}
    if filters:
        yield "embedding-filters", draw_filter_sets(filters)


def _frames(compared: Compared) -> Iterator[Figure]:
    distance, shown = compared.distance(), compared.shown()
    for epoch, (name, inspection) in zip(compared.epochs, compared.inspections.items(), strict=True):
        thumbnails, rollouts = shown[name]
        yield draw_training_frame(
            epoch,
            distance.values[name],
            uniform=distance.uniform[name],
            top=distance.top,
            similarity=inspection.position_similarity,
            rollout=(thumbnails[0], rollouts[0]) if len(rollouts) else None,
        )
