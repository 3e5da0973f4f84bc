"""What an epoch goes through: a data set as a whole, or a stream window by window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vitreous.data.images import shown
from vitreous.data.order import keyed_seed
from vitreous.data.sources.streams import BEGINNING, LabelledStream, StreamPlace
from vitreous.data.training_batches import TrainingImages
from vitreous.errors import InputError


@dataclass(frozen=True)
class Stretch:
    """Images that are shuffled together.

    Attributes:
        images: what to learn from.
        key: stands for the epoch in the keys of their order and of all that is drawn for them.
        following: where the next one begins.
    """

    images: TrainingImages
    key: int
    following: StreamPlace


def stretches(
    images: TrainingImages | LabelledStream,
    seed: int,
    epoch: int,
    start: StreamPlace,
    is_over: Callable[[], bool] = lambda: False,
) -> Iterator[Stretch]:
    """All that an epoch goes through, from a place on.

    A data set is one stretch, as if it were a stream of one shard; its key is the epoch. Pictures of a window are seen
    once, and so are not kept as those of a small data set are.

    Args:
        images: what to learn from.
        seed: of the run.
        epoch: from 0.
        start: where to begin, as a stretch's `following` gives it; `BEGINNING` at first.
        is_over: asked after each sample of a stream: a window takes long to read, and then there are no more.

    Raises:
        InputError: if a stream has no images, or they cannot be fetched.
    """
    if isinstance(images, TrainingImages):
        if start == BEGINNING:
            yield Stretch(images, epoch, StreamPlace(shards=1))
        return
    for window in images.windows(seed=seed, epoch=epoch, start=start, is_over=is_over):
        yield Stretch(TrainingImages(window.images), keyed_seed(epoch, *window.place), window.following)
        start = window.following
    if start == BEGINNING and not is_over():
        raise InputError(f"{shown(images.name)}: no rows in its part {images.split}")
