"""Batches to learn from: which images, how they are changed, and what is to be said of them.

A step's whole batch is a function of (seed, epoch, step) alone. Any number of processes and of workers makes the same
bits of it, and a start in the middle of an epoch makes none of the batches before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitreous.data.augment import DRAWS, augment
from vitreous.data.augmentation import Augmentation
from vitreous.data.crops import random_crop
from vitreous.data.erasing import erase
from vitreous.data.in_memory import Causes, keep_pictures, keep_pixels
from vitreous.data.labelled import LabelledImages
from vitreous.data.loading import made_ahead, reading
from vitreous.data.mixing import mix, mixes
from vitreous.data.order import Draws, epoch_order, uniform
from vitreous.data.policies import apply_policy
from vitreous.data.preprocess import Preprocess
from vitreous.data.transforms import normalise
from vitreous.errors import InputError

MIXING = 2**32
"""Stands where keys have the repeat of an image, in the key of a step's mixing: more than there are repeats."""


@dataclass(frozen=True)
class BatchPlan:
    """How images become batches: the same for a whole run.

    Attributes:
        preprocess: the resize, the crop and the colours that the model wants.
        augmentation: how much an image may be changed.
        classes: how many there are.
        seed: of the run.
        batch_size: images of a step, over all processes and accumulated parts together.
        label_smoothing: share of a mixed target that is spread over all classes. Labels, which come where nothing is
            mixed, are left for the loss to smooth.
        accumulate: parts that each process cuts its share of a step into.
        rank: of this process, from 0.
        world: how many processes share the work.
        workers: processes that decode and change images; 0 does it here.
        skips_unreadable: whether an image that cannot be decoded is left out and listed, or stops the batches.
    """

    preprocess: Preprocess
    augmentation: Augmentation
    classes: int
    seed: int
    batch_size: int
    label_smoothing: float = 0.0
    accumulate: int = 1
    rank: int = 0
    world: int = 1
    workers: int = 0
    skips_unreadable: bool = False


@dataclass(frozen=True)
class TrainingBatch:
    """One part of a step's batch; the whole, for one process that does not accumulate.

    Attributes:
        step: of the epoch, from 0.
        part: of this process's share of the step, from 0 to `accumulate` - 1.
        whole: images of the step, over all processes and parts, the unreadable counted. A loss that is a mean over
            `images` times `len(samples) / whole` sums to the step's mean; the quotient is 1 where one process has all.
        samples: (images,) int64; indices into the data set of the images that could be read. There may be none: the
            last batch of an epoch can have fewer images than there are parts.
        images: (images, 3, image_height, image_width) float32, as the model wants them.
        targets: (images,) int64 labels; where the augmentation mixes or cuts, in every batch of the run,
            (images, classes) float32, rows of which sum to 1, smoothed.
        unread: (index, cause) of each image that was left out.
        epoch: from 0, or what stands for it.
    """

    step: int
    part: int
    whole: int
    samples: Tensor
    images: Tensor
    targets: Tensor
    unread: tuple[tuple[int, str], ...] = ()
    epoch: int = 0


@dataclass(frozen=True)
class TrainingImages:
    """A data set to learn from, in memory where it is small.

    Attributes:
        images: what to learn from; where random parts are cut out of small pictures, `read` has these in memory.
        pixels: (images, 3, image_height, image_width), uint8 or float32 in [0, 1]; None reads `images` each time.
        causes: why some of `pixels` could not be read, by index.
        is_in_memory: whether no picture is decoded again.
    """

    images: LabelledImages
    pixels: Tensor | None = None
    causes: Causes = field(default_factory=dict)
    is_in_memory: bool = False


def training_images(images: LabelledImages, plan: BatchPlan, *, progress: bool = False) -> TrainingImages:
    """A data set made ready, once for a run: a small one is decoded and kept, a large one is left where it is.

    Args:
        images: what to learn from.
        plan: how they become batches.
        progress: whether to draw a bar.
    """
    if plan.augmentation.crop == "resized":
        pictures = keep_pictures(images, workers=plan.workers, progress=progress)
        return TrainingImages(pictures, is_in_memory=pictures is not images)
    kept = keep_pixels(images, plan.preprocess, workers=plan.workers, progress=progress)
    return TrainingImages(images) if kept is None else TrainingImages(images, *kept, is_in_memory=True)


def steps_of_epoch(images: int, batch_size: int) -> int:
    """How many batches an epoch has; the last one may be smaller, and comes whatever the number of processes."""
    return -(-images // batch_size)


@contextmanager
def training_batches(
    images: TrainingImages,
    plan: BatchPlan,
    *,
    epoch: int,
    first_step: int = 0,
    steps: int | None = None,
) -> Iterator[Iterator[TrainingBatch]]:
    """This process's parts of an epoch's batches, in order, made by workers that run ahead and end with the block.

        with training_batches(images, plan, epoch=epoch, first_step=step) as batches:
            for batch in batches:  # `plan.accumulate` of them for each step
                ...

    Args:
        images: what `training_images` made ready.
        plan: how they become batches.
        epoch: from 0, or another number for it in the keys of the order and of all that is drawn.
        first_step: to begin with; none before it is made.
        steps: at which to end, that one left out; None for all.

    Raises:
        InputError: inside the block, if an image cannot be decoded and the plan does not skip such.
        WorkerError: inside the block, if a worker dies or a batch takes more than five minutes.
    """
    of_epoch = steps_of_epoch(len(images.images), plan.batch_size)
    ends = of_epoch if steps is None else min(steps, of_epoch)
    keys = [(epoch, step, part) for step in range(first_step, ends) for part in range(plan.accumulate)]
    with made_ahead(partial(_made, images, plan), keys, plan.workers, images.images.image_names) as made:
        yield (_checked(batch, plan) for batch in made)


def places_of_part(whole: int, part: int, parts: int) -> list[int]:
    """Which places of a step's batch one part has: a run of them, and as many from the other end.

    So the partner that an image is mixed with, as far from the other end, is in the same part, for any number of
    parts. These differ by at most one such pair; there are none left for some, if there are more parts than pairs.

    Args:
        whole: images of the batch.
        part: from 0.
        parts: how many there are, over all processes.

    Returns:
        Places from 0 to `whole` - 1, ascending; the partner of the n-th is the n-th from the end.
    """
    pairs = (whole + 1) // 2
    first, last = part * pairs // parts, (part + 1) * pairs // parts
    return [*range(first, last), *range(max(whole - last, last), whole - first)]


def _made(images: TrainingImages, plan: BatchPlan, key: tuple[int, int, int]) -> TrainingBatch:
    """The part that a key, (epoch, step, part), names: in whichever process."""
    epoch, step, part = key
    settings, order = plan.augmentation, _order(len(images.images), plan.seed, epoch)
    begins = step * plan.batch_size
    whole = min(plan.batch_size, len(order) - begins)
    places = places_of_part(whole, plan.rank * plan.accumulate + part, plan.world * plan.accumulate)
    turns = begins + torch.tensor(places, dtype=torch.int64)
    samples, repeats = order[turns // settings.repeats], turns % settings.repeats
    draws = [
        Draws(plan.seed, epoch, sample, repeat)
        for sample, repeat in zip(samples.tolist(), repeats.tolist(), strict=True)
    ]
    labels = torch.tensor([images.images.labels[sample] for sample in samples.tolist()], dtype=torch.int64)
    pixels, causes = _read(images, plan, samples.tolist(), draws)
    # `uniform` has no repeats in its key: a repeated image counts as another one
    inputs = _changed(pixels, uniform(samples + len(order) * repeats, DRAWS, seed=plan.seed, epoch=epoch), draws, plan)
    if mixes(settings):
        if causes:
            own = _own_partners(len(samples), causes)
            inputs, labels = inputs[own], labels[own]
        inputs, targets = mix(
            inputs,
            labels,
            classes=plan.classes,
            settings=settings,
            smoothing=plan.label_smoothing,
            draws=Draws(plan.seed, epoch, step, MIXING),
        )
    else:
        targets = labels
    read = torch.tensor([place for place in range(len(samples)) if place not in causes], dtype=torch.int64)
    unread = tuple((int(samples[place]), cause) for place, cause in causes.items())
    return TrainingBatch(step, part, whole, samples[read], inputs[read], targets[read], unread, epoch)


@lru_cache(maxsize=1)
def _order(samples: int, seed: int, epoch: int) -> Tensor:
    return epoch_order(samples, seed=seed, epoch=epoch)  # takes a while for a million images, once an epoch


def _checked(batch: TrainingBatch, plan: BatchPlan) -> TrainingBatch:
    if batch.unread and not plan.skips_unreadable:
        _, cause = batch.unread[0]
        raise InputError(f"{cause}\nset unreadable to skip to train without such images")
    return batch


def _read(images: TrainingImages, plan: BatchPlan, samples: list[int], draws: Sequence[Draws]) -> tuple[Tensor, Causes]:
    """Pixels at the model's size, black where an image cannot be read, and the causes by place in the part."""
    if images.pixels is not None:
        causes = {place: images.causes[sample] for place, sample in enumerate(samples) if sample in images.causes}
        return images.pixels[samples], causes
    preprocess, settings = plan.preprocess, plan.augmentation
    dtype = torch.uint8 if preprocess.has_bytes else torch.float32
    pixels = torch.zeros(len(samples), 3, *preprocess.image_size, dtype=dtype)
    causes = {}
    for place, sample in enumerate(samples):
        reading(sample)
        try:
            if settings.crop == "resized":
                image, area, ratio = images.images.read(sample), settings.crop_area, settings.crop_ratio
                pixels[place] = random_crop(image, preprocess, draws[place], area=area, ratio=ratio)
            else:
                pixels[place] = images.images.pixels(sample, preprocess)
        except InputError as error:
            causes[place] = str(error)
        except MemoryError:
            causes[place] = f"{images.images.image_names[sample]}: does not fit in memory; make it smaller"
    return pixels, causes


def _changed(pixels: Tensor, numbers: Tensor, draws: Sequence[Draws], plan: BatchPlan) -> Tensor:
    """Images changed one by one and normalised: (images, 3, image_height, image_width) -> float32.

    Mirrored before the policy, as everybody does; after `augment` has moved them, where that moves them.
    """
    settings = plan.augmentation
    moves = settings.shift > 0 or settings.rotation > 0 or settings.scale > 0
    if settings.flip and not moves:
        pixels = torch.where((numbers[:, 4] < 0.5)[:, None, None, None], pixels.flip(-1), pixels)
    if settings.policy != "none":
        pixels = _by_policy(pixels, settings, draws)
    if moves and len(pixels):
        pixels = augment(
            pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels,
            numbers,
            shift=settings.shift,
            rotation=settings.rotation,
            scale=settings.scale,
            flip=settings.flip,
        )
    inputs = normalise(pixels, plan.preprocess)
    if settings.erasing and len(inputs):
        return torch.stack(
            [erase(image, one, share=settings.erasing) for image, one in zip(inputs, draws, strict=True)]
        )
    return inputs


def _by_policy(pixels: Tensor, settings: Augmentation, draws: Sequence[Draws]) -> Tensor:
    """Each image as Pillow's operations leave it, rounded to bytes: (images, 3, ...) -> the same shape, uint8."""
    if pixels.dtype != torch.uint8:
        pixels = (pixels * 255).round().clamp(0, 255).to(torch.uint8)  # bicubic goes beyond
    colours = pixels.permute(0, 2, 3, 1).contiguous().numpy()  # (images, image_height, image_width, 3)
    for place, one in enumerate(draws):
        colours[place] = np.asarray(apply_policy(Image.fromarray(colours[place]), settings, one))
    return torch.from_numpy(colours).permute(0, 3, 1, 2).contiguous()


def _own_partners(images: int, unread: Causes) -> list[int]:
    """Places to take images from before they are mixed: one without a partner that could be read is its own."""
    return [images - 1 - place if place in unread else place for place in range(images)]
