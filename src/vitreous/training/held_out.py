"""How a run looks at its test part: shared among the processes, and stopped when somebody asks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from vitreous.data.in_memory import Causes, keep_pixels
from vitreous.data.labelled import LabelledImages
from vitreous.data.loading import made_ahead, reading
from vitreous.data.preprocess import Preprocess
from vitreous.data.transforms import normalise
from vitreous.errors import InputError
from vitreous.training.config import TrainConfig, Unreadable
from vitreous.training.distributed import Ranks
from vitreous.training.evaluate import Evaluation, class_logits, score


@dataclass(frozen=True)
class HeldOutImages:
    """The test part, as one process of several sees it: every image whose turn is its own.

    Attributes:
        images: all of them.
        indices: (share,) int64; those of this process.
        batches: how many a share has, in every process.
        preprocess: of the model.
        batch_size: images in a forward pass.
        workers: processes that decode where `pixels` is None.
        pixels: (images of the share, 3, image_height, image_width), or None to decode each time.
        causes: why some of `pixels` could not be read, by their place in it.
        unreadable: what such an image does, as the config has it.
    """

    images: LabelledImages
    indices: Tensor
    batches: int
    preprocess: Preprocess
    batch_size: int
    workers: int
    pixels: Tensor | None
    causes: Causes
    unreadable: Unreadable


def held_out_images(images: LabelledImages, config: TrainConfig, ranks: Ranks, *, progress: bool) -> HeldOutImages:
    """A test part made ready, once for a run: a small one is decoded and kept."""
    indices = torch.arange(len(images))[ranks.rank :: ranks.world]
    size = math.ceil(config.batch_size / (ranks.world * config.accumulate))
    batches = math.ceil(math.ceil(len(images) / ranks.world) / size)
    kept = keep_pixels(images, config.preprocess, workers=config.workers, progress=progress)
    pixels, causes = (None, {}) if kept is None else kept
    if pixels is not None:
        places = {int(index): place for place, index in enumerate(indices)}
        pixels = pixels[indices]
        causes = {places[index]: cause for index, cause in causes.items() if index in places}
    return HeldOutImages(
        images, indices, batches, config.preprocess, size, config.workers, pixels, causes, config.unreadable
    )


def look(
    model: nn.Module, tested: HeldOutImages, device: torch.device, ranks: Ranks, is_asked_to_stop: Callable[[], bool]
) -> tuple[Evaluation, dict[int, str]] | None:
    """What a model makes of the test part, and the images that could not be read, with the causes.

    None if it is asked to stop before it is through; all processes are asked after each batch.

    Raises:
        InputError: if no image can be read, or one cannot and is not to be skipped.
        NumericError: if a logit is NaN or infinite.
    """
    logits, labels = [torch.empty(0, len(tested.images.class_names))], [torch.empty(0, dtype=torch.int64)]
    unread: dict[int, str] = {}
    every_label = torch.tensor(tested.images.labels, dtype=torch.int64)
    with _batches(tested) as batches:
        for indices, inputs, causes in batches:
            if causes and tested.unreadable == "stop":
                raise InputError(_refusal(next(iter(causes.values()))))
            logits.append(class_logits(model, inputs.to(device)))
            labels.append(every_label[indices])
            unread |= causes
            if ranks.any(is_asked_to_stop()):
                return None
    gathered = ranks.gather(torch.cat(logits)), ranks.gather(torch.cat(labels))
    if not len(gathered[1]):
        raise InputError(_refusal(f"{tested.images.name}: no image of the test part can be read"))
    return score(*gathered, tested.images.class_names), unread


_Read = tuple[Tensor, Tensor, dict[int, str]]  # indices, what the model sees of them, and why others are missing


@contextmanager
def _batches(tested: HeldOutImages) -> Iterator[Iterator[_Read]]:
    workers = 0 if tested.pixels is not None else tested.workers
    names = tested.images.image_names
    with made_ahead(partial(_made, tested), range(tested.batches), workers, names) as made:
        yield made


def _made(tested: HeldOutImages, batch: int) -> _Read:
    places = range(len(tested.indices))[batch * tested.batch_size : (batch + 1) * tested.batch_size]
    indices = tested.indices[list(places)]
    causes: dict[int, str] = {}
    kept: list[Tensor] = []
    read: list[int] = []
    for place, index in zip(places, indices.tolist(), strict=True):
        reading(index)
        try:
            if place in tested.causes:
                raise InputError(tested.causes[place])
            pixels = tested.pixels
            kept.append(tested.images.pixels(index, tested.preprocess) if pixels is None else pixels[place])
            read.append(index)
        except InputError as error:
            causes[index] = str(error)
    images = torch.stack(kept) if kept else torch.empty(0, 3, *tested.preprocess.image_size, dtype=torch.uint8)
    return torch.tensor(read, dtype=torch.int64), normalise(images, tested.preprocess), causes


def _refusal(cause: str) -> str:
    return f"{cause}\nset unreadable to skip to train without such images"
