"""One pass of all models over all images; what is the same for a model and a batch is computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from vitreous.arrangement.answers import Reading
from vitreous.arrangement.batches import decoded, first_image, places_of_batches, some_first
from vitreous.arrangement.bootstrap import Weights
from vitreous.arrangement.changes import centre_order, random_order
from vitreous.arrangement.experiments import Shown
from vitreous.arrangement.inputs import ImageSet
from vitreous.arrangement.measured import Measured, Plan, hidden_grid
from vitreous.arrangement.subject import Subject
from vitreous.checkpoints.loaded import LoadedModel
from vitreous.data.images import shown as safe
from vitreous.data.preprocess import Preprocess
from vitreous.progress import progress_bar

MAP_BYTES = 256 * 2**20
"""That the features of all layers of a batch take at most."""


@dataclass(frozen=True, eq=False)
class Run:
    """What is the same for all batches.

    Attributes:
        images: in the order in which they are looked at: those whose layers are looked at come first.
        layered: how many these are.
        subjects: the models.
        rollout_of: the first that has attention.
        weights: of the bootstrap.
        examples: the first image, (1, 3, image_height, image_width), for each preprocessing.
    """

    images: ImageSet
    layered: int
    subjects: tuple[Subject, ...]
    rollout_of: Subject | None
    weights: Weights
    examples: Mapping[Preprocess, Tensor]

    @classmethod
    def of(cls, models: Sequence[LoadedModel], images: ImageSet, weights: Weights, layer_images: int) -> Run:
        """Finds in every model what is read from it."""
        examples = {loaded.preprocess: first_image(images, loaded.preprocess) for loaded in models}
        names = _unique([safe(loaded.name) for loaded in models])
        subjects = tuple(
            Subject(loaded, name, examples[loaded.preprocess]) for loaded, name in zip(models, names, strict=True)
        )
        attending = next((subject for subject in subjects if subject.attends), None)
        layered = min(layer_images, len(images)) if len(images) > 1 else 0
        return cls(some_first(images, layered), layered, subjects, attending, weights, examples)

    def hidden_grid(self) -> tuple[int, int]:
        """(rows, columns) of the patches that are hidden."""
        subject = self.rollout_of
        if subject is None:
            return hidden_grid(self.subjects[0], None)
        return hidden_grid(subject, subject.attended(subject.read, self._example(subject))[2])

    def batches(self, size: int) -> list[range]:
        """Places in the order, so many in a batch; fewer where the features of layers would take too much memory."""
        widest = max(
            sum(maps.nbytes for maps in subject.read_layers(self._example(subject))[1].values())
            for subject in self.subjects
        )
        return places_of_batches(len(self.images), self.layered, (max(1, min(size, MAP_BYTES // widest)), size))

    def _example(self, subject: Subject) -> Tensor:
        return self.examples[subject.loaded.preprocess]


def look_at_all(
    run: Run, measured: Sequence[Measured], plan: Plan, batches: Sequence[range], workers: int | None, progress: bool
) -> None:
    """Shows every batch to every model.

    Args:
        run: images and models.
        measured: what is measured of each of the models.
        plan: what is done to the images.
        batches: places in the run's order.
        workers: processes that decode; None chooses.
        progress: whether to draw a bar.

    Raises:
        InputError: if an image cannot be decoded.
        NumericError: if an answer is NaN or infinite.
        WorkerError: if a process that decodes is lost.
    """
    turns = sorted(measured, key=lambda one: one.subject is not run.rollout_of)  # it orders the patches for all
    device = run.subjects[0].device
    title, total = f"{run.images.name}, {len(measured)} models", len(run.images) * len(measured)
    with (
        decoded(run.images, list(run.examples), batches, workers, device) as inputs,
        progress_bar(title, total, shown=progress, unit="images") as advance,
    ):
        for places, images in zip(batches, inputs, strict=True):
            batch = _Batch.of(run, plan, places)
            for one in turns:
                orders_hiding = one.subject is run.rollout_of
                of_model = images[one.subject.loaded.preprocess]
                one.add(batch.shown_to(one.subject, of_model, orders_hiding=orders_hiding))
                advance(len(places), one.subject.name)


@dataclass(frozen=True, eq=False)
class _Batch:
    """Some images, and what is done to them for all models alike.

    Attributes:
        places: in the order in which images are looked at.
        samples: (batch,) int64; which images of the source these are.
        labels: (batch,) int64; None without labels.
        weights: (batch, resamples), of the bootstrap.
        is_layered: whether layers are looked at.
        orders: by name (batch, patches) int64, in which patches are hidden; the model with rollout adds its own.
    """

    places: range
    samples: Tensor
    labels: Tensor | None
    weights: Tensor
    is_layered: bool
    orders: dict[str, Tensor]

    @classmethod
    def of(cls, run: Run, plan: Plan, places: range) -> _Batch:
        """The images at some places."""
        some = slice(places.start, places.stop)
        samples, labels = run.images.samples[some], run.images.labels
        rows, columns = plan.hidden_grid
        orders = {
            "random": random_order(plan.seed, samples, rows * columns),
            "centre first": centre_order(rows, columns).expand(len(samples), -1),
        }
        return cls(
            places,
            samples,
            None if labels is None else labels[some],
            run.weights.of(samples),
            places.stop <= run.layered,
            orders,
        )

    def shown_to(self, subject: Subject, images: Tensor, *, orders_hiding: bool) -> Shown:
        """The batch as a model sees it, with what the model makes of it unchanged."""
        images = subject.given(images)
        if orders_hiding:
            (unchanged, maps), self.orders["rollout"], _ = subject.attended(partial(self._look, subject), images)
        else:
            unchanged, maps = self._look(subject, images)
        return Shown(
            images=images,
            samples=self.samples,
            labels=self.labels,
            weights=self.weights,
            unchanged=unchanged,
            maps=maps,
            held_out=torch.tensor(self.places) % 2 == 1,  # every other image
            orders=self.orders,
        )

    def _look(self, subject: Subject, images: Tensor) -> tuple[Reading, dict[str, Tensor]]:
        return subject.read_layers(images) if self.is_layered else (subject.read(images), {})


def _unique(names: Sequence[str]) -> list[str]:
    """Names with a number behind those that were there before."""
    found: list[str] = []
    for name in names:
        number = 1
        while (candidate := name if number == 1 else f"{name} ({number})") in found:
            number += 1
        found.append(candidate)
    return found
