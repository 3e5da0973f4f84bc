"""Pictures decoded ahead of the model, by worker processes: the model does not wait for JPEGs."""

from __future__ import annotations

import os
import re
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vitreous.data.gather import Pictures
from vitreous.data.preprocess import Preprocess
from vitreous.data.transforms import to_pixels
from vitreous.errors import InputError, ShapeError, WorkerError

FEW = 256
"""Up to so many pictures are decoded where they are needed: starting workers would take longer."""

MOST_WORKERS = 8
"""Of one process; a CPU core decodes 50 to 150 photographs a second."""

PATIENCE = 300
"""Seconds that a batch may take to decode."""

_LOST = re.compile(r"DataLoader (worker \(pid|timed out)")

_T = TypeVar("_T")


@dataclass(frozen=True)
class Batch:
    """Some images of one data set, those that cannot be read told apart.

    Attributes:
        indices: of the images that could be read, ascending.
        images: (batch, channels, image_height, image_width) of these: of pictures what `to_pixels` makes,
            else what was given.
        unread: (index, cause) of each image that could not be read.
    """

    indices: tuple[int, ...]
    images: Tensor
    unread: tuple[tuple[int, str], ...] = ()


@contextmanager
def load_batches(
    pictures: Pictures, preprocess: Preprocess, batches: Sequence[range], workers: int
) -> Iterator[Iterator[Batch]]:
    """Batches in their order, resized and cropped, decoded by workers that run ahead and end with the block.

    What comes does not depend on the number of workers. An interrupt is for the caller: workers do not see it.

    Args:
        pictures: what to decode.
        preprocess: the resize and the crop; mean and std are not applied.
        batches: indices of the pictures of each batch.
        workers: processes; 0 decodes where the batch is asked for.

    Raises:
        WorkerError: inside the block, if a worker dies or a batch takes more than five minutes.
    """
    loader = DataLoader(
        _Decoding(pictures, preprocess),
        sampler=batches,
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=workers,
        worker_init_fn=_leave_signals_to_the_main_process,
        timeout=PATIENCE if workers else 0,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
        loaded = (batch for batch in loader)  # starts the workers; closing it ends them
    try:
        yield loaded
    except (RuntimeError, ShapeError) as error:  # torch raises where the main process is: in the model's pass, too
        if not _LOST.search(str(error)):
            raise
        cause = " ".join(str(error).split())
        raise WorkerError(
            f"a process that decodes images was lost: {cause[: cause.find('. ') + 1] or cause}\n"
            "if memory ran out, take fewer workers or smaller batches; --workers 0 decodes in the main process"
        ) from error
    finally:
        loaded.close()


def workers_for(images: int, device: torch.device, processes: int = 1) -> int:
    """How many workers are worth their start: none for few images, at most 8.

    One for each CPU core where the model runs elsewhere. Where it runs on the CPU it keeps all cores busy itself, and
    one worker for four cores keeps up with it: on two cores, workers made ViT-Ti/16 slower (37 images/s with none, 35
    with one, 31 with two).

    Args:
        images: how many there are to decode.
        device: where the model runs.
        processes: of the same run on this machine, which share the cores.
    """
    if images <= FEW:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores // processes // (4 if device.type == "cpu" else 1), MOST_WORKERS)


class _Decoding(Dataset[Batch]):
    """Decodes the batch that some indices name, in whichever process."""

    def __init__(self, pictures: Pictures, preprocess: Preprocess) -> None:
        self._pictures, self._preprocess = pictures, preprocess

    def __getitem__(self, indices: Sequence[int]) -> Batch:
        height, width = self._preprocess.image_size
        read: list[int] = []
        pixels = [torch.empty(0, 3, height, width, dtype=torch.uint8)]
        unread: list[tuple[int, str]] = []
        for index in indices:
            try:
                pixels.append(to_pixels(self._pictures.read(index), self._preprocess)[None])
                read.append(index)
            except InputError as error:
                unread.append((index, str(error)))
            except MemoryError:
                unread.append((index, f"{self._pictures.names[index]}: does not fit in memory; make it smaller"))
        return Batch(tuple(read), torch.cat(pixels), tuple(unread))


def _as_it_is(batch: _T) -> _T:
    return batch


def _leave_signals_to_the_main_process(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
