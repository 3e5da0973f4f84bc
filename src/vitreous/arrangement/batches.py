"""The images in the order in which they are looked at, decoded for every preprocessing that a model wants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from vitreous.arrangement.inputs import ImageSet
from vitreous.data.loading import Batch, load_batches, workers_for
from vitreous.data.preprocess import Preprocess
from vitreous.data.transforms import normalise
from vitreous.errors import InputError

Inputs = dict[Preprocess, Tensor]
"""The same images as each preprocessing makes them: (batch, 3, image_height, image_width), normalised."""


def first_image(images: ImageSet, preprocess: Preprocess) -> Tensor:
    """One of them as a model sees it: (1, 3, image_height, image_width).

    Raises:
        InputError: if it cannot be decoded.
    """
    return normalise(images.pictures.pixels(0, preprocess)[None], preprocess)


def some_first(images: ImageSet, some: int) -> ImageSet:
    """The same images in another order: so many of them, evenly spaced, before the others."""
    total = len(images)
    first = [place * total // some for place in range(some)]
    order = [*first, *sorted(set(range(total)) - set(first))]
    return ImageSet(images.name, images.pictures.chosen(order), images.samples[order], images.labelled)


def places_of_batches(total: int, some: int, sizes: tuple[int, int]) -> list[range]:
    """Places in such an order: no batch holds images of both parts.

    Args:
        total: images.
        some: that come first.
        sizes: of batches of these, and of the others.
    """
    parts = ((0, some, sizes[0]), (some, total, sizes[1]))
    return [range(first, min(first + size, end)) for start, end, size in parts for first in range(start, end, size)]


@contextmanager
def decoded(
    images: ImageSet,
    preprocesses: Sequence[Preprocess],
    batches: Sequence[range],
    workers: int | None,
    device: torch.device,
) -> Iterator[Iterator[Inputs]]:
    """These batches one after the other, each image decoded once for each preprocessing.

    Args:
        images: in the order that the batches are of.
        preprocesses: each once.
        batches: places in that order.
        workers: processes that decode; None chooses.
        device: where the models run.

    Raises:
        InputError: inside the block, if an image cannot be decoded.
        WorkerError: inside the block, if a process is lost.
    """
    count = workers_for(len(images), device) if workers is None else workers
    with ExitStack() as stack:
        streams = [stack.enter_context(load_batches(images.pictures, one, batches, count)) for one in preprocesses]
        yield (
            {one: _normalised(batch, one) for one, batch in zip(preprocesses, of_all, strict=True)}
            for of_all in zip(*streams, strict=True)
        )


def _normalised(batch: Batch, preprocess: Preprocess) -> Tensor:
    if batch.unread:
        raise InputError(batch.unread[0][1])
    return normalise(batch.images, preprocess)
