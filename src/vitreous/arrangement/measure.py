"""What several models make of the same parts in another place: every experiment in one pass over the images.

Each image is decoded once for each preprocessing, a batch goes through all changes and models, and only sums are kept:
memory does not grow with the images. Every change is a function of (seed, sample), so that all models see the same.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitreous.arrangement.batches import first_image
from vitreous.arrangement.bootstrap import RESAMPLES, Weights
from vitreous.arrangement.effects import effect_table
from vitreous.arrangement.inputs import ImageSet, as_loaded, check_class_counts, common_classes, open_images
from vitreous.arrangement.measured import Measured, Plan, hidden_counts
from vitreous.arrangement.one_pass import Run, look_at_all
from vitreous.arrangement.quick import quick_linear
from vitreous.arrangement.result import Arrangement
from vitreous.arrangement.subject import Subject
from vitreous.arrangement.without import PositionTable, find_position_table
from vitreous.checking import check_count, check_number
from vitreous.checkpoints.loaded import LoadedModel
from vitreous.data.images import shown as safe
from vitreous.errors import ConfigError, InputError

GRIDS = (1, 2, 4, 8)
"""Tiles a side."""

SHARES = (0.25, 0.5, 0.75)
"""Of patches that are hidden; none and all come for nothing."""

LAYER_IMAGES = 500
"""Images whose features are looked at layer by layer: each has many tokens to learn from."""


def measure_arrangement(
    models: Sequence[nn.Module | LoadedModel],
    images: ImageSet | str | Path | Sequence[str | Path],
    *,
    grids: Sequence[int] = GRIDS,
    shares: Sequence[float] = SHARES,
    seed: int = 0,
    resamples: int = RESAMPLES,
    batch_size: int = 32,
    layer_images: int = LAYER_IMAGES,
    transplant: nn.Module | LoadedModel | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> Arrangement:
    """Five experiments on every model.

    Tiles of images are shuffled, positions are read out of features, position embeddings are changed, images are
    shifted, patches are hidden. A model's numbers do not depend on which others run beside it, but for the patches that
    are hidden: their grid, and the order by rollout, are of the first model with attention.

    Args:
        models: what `vitreous.load` or `open_model` gave, each on its own device, in eval mode; of the same classes.
        images: that they are shown: the test part of a data set, or files and folders of pictures without labels; or
            what `inputs.open_images` made of these, and of how many at most.
        grids: images are cut into k x k tiles for each of these k; where an image does not divide so, the nearest.
        shares: of the patches that are hidden, above 0 and below 1.
        seed: of every change and of the bootstrap.
        resamples: of the bootstrap.
        batch_size: images in a forward pass.
        layer_images: positions are read out, and layers compared under translation, on so many at most, evenly spaced.
        transplant: a model whose position embeddings the others are given; None leaves this out.
        workers: processes that decode; None chooses.
        progress: whether to draw a bar on standard error.

    Raises:
        ConfigError: if a number is out of range, no grid divides the images, a model is in training mode, or position
            embeddings cannot be transplanted.
        CheckpointError: if models differ in their classes, or from the labels, or one has no classification head.
        CaptureError: if a model has no layer whose features have a place in the image.
        InputError: if there is no model or no image, or an image cannot be decoded.
        NumericError: if an answer is NaN or infinite.
        ShapeError: if a model refuses its images.
        WorkerError: if a process that decodes is lost.
    """
    began = time.perf_counter()
    opened = [as_loaded(model) for model in models]
    images = images if isinstance(images, ImageSet) else open_images(images)
    _check(opened, images, shares, batch_size, layer_images)
    class_names = common_classes(opened, images)
    run = Run.of(opened, images, Weights(seed, resamples), layer_images)
    check_class_counts([(subject.name, subject.classes) for subject in run.subjects], class_names)
    rows, columns = run.hidden_grid()
    plan = Plan(tuple(grids), (rows, columns), hidden_counts(shares, rows * columns), seed, run.layered > 0)
    given = None if transplant is None else as_loaded(transplant)
    donor = None if given is None else _donor(given, images)
    measured = [Measured(subject, plan, donor) for subject in run.subjects]
    batches = run.batches(batch_size)
    with quick_linear():
        look_at_all(run, measured, plan, batches, workers, progress)
    has_labels = images.labels is not None
    table = effect_table([one.sampled(has_labels=has_labels) for one in measured], has_labels=has_labels)
    return Arrangement(
        data=images.name,
        images=len(images),
        has_labels=has_labels,
        class_names=class_names,
        seed=seed,
        resamples=resamples,
        rollout_of=run.rollout_of.name if run.rollout_of else None,
        models=tuple(one.result(has_labels=has_labels) for one in measured),
        effects=table,
        notes=_notes(run, measured, given),
        provenance=_provenance(run.subjects, given, batch_size, seconds=time.perf_counter() - began),
    )


def _donor(transplant: LoadedModel, images: ImageSet) -> PositionTable:
    table = find_position_table(transplant.model, first_image(images, transplant.preprocess).to(_device(transplant)))
    if table is None:
        raise ConfigError(
            f"{safe(transplant.name)} has no table of position embeddings to transplant; name a ViT that has one"
        )
    return table


def _device(loaded: LoadedModel) -> torch.device:
    return next(loaded.model.parameters()).device


def _check(
    models: Sequence[LoadedModel], images: ImageSet, shares: Sequence[float], batch_size: int, layer_images: int
) -> None:
    if not models:
        raise ConfigError("no model was named; name at least one, two to compare them")
    if not len(images):
        raise InputError(f"{images.name}: there is no image to look at")
    check_count("batch_size", batch_size, least=1)
    check_count("layer_images", layer_images, least=2)
    for share in shares:
        check_number("a share of patches", share, above=0, below=1)


def _notes(run: Run, measured: Sequence[Measured], transplant: LoadedModel | None) -> tuple[str, ...]:
    notes = [note for one in measured for note in one.notes]
    total = len(run.images)
    if run.images.labelled is None:
        notes.append("The images have no labels, so that accuracy is left out.")
    if total == 1:
        notes.append("There is a single image: intervals and the read-out of positions are left out.")
    elif run.layered < total:
        notes.append(
            f"Positions were read out, and layers compared under translation, on {run.layered:,} of the {total:,} "
            "images, evenly spaced."
        )
    if len(run.examples) > 1:
        notes.append(
            "The models preprocess images differently, so that a pixel of shift and the colour of hidden patches need "
            "not be the same for all."
        )
    if run.rollout_of is None:
        notes.append("No model has attention, so that no patches were hidden by rollout.")
    if transplant is None and any(one.subject.table is not None for one in measured):
        notes.append("No other checkpoint was named whose position embeddings could be transplanted.")
    return tuple(dict.fromkeys(notes))


def _provenance(
    subjects: Sequence[Subject], transplant: LoadedModel | None, batch_size: int, *, seconds: float
) -> dict[str, Any]:
    return {
        "versions": {"vitreous": version("vitreous"), "torch": version("torch"), "python": platform.python_version()},
        "machine": platform.machine(),
        "device": ", ".join(dict.fromkeys(str(subject.device) for subject in subjects)),
        "threads": torch.get_num_threads(),
        "date": str(date.today()),
        "seconds": round(seconds, 1),
        "batch_size": batch_size,
        "forward_passes": sum(subject.passes for subject in subjects),
        "models": {subject.name: _source(subject.loaded) for subject in subjects},
        "transplant": None if transplant is None else _source(transplant),
    }


def _source(loaded: LoadedModel) -> dict[str, Any]:
    known: Mapping[str, Any] = getattr(loaded.model, "provenance", None) or {}
    return {
        "source": safe(str(known.get("source", "a module in memory"))),
        "format": loaded.kind,
        "file_hash": loaded.file_hash,
        "notes": list(loaded.notes),
    }
