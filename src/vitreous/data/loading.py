"""Pictures decoded ahead of the model, by worker processes: the model does not wait for JPEGs."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import signal
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.reduction import ForkingPickler
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from vitreous.data.gather import Pictures
from vitreous.data.images import shown
from vitreous.data.preprocess import Preprocess
from vitreous.errors import InputError, ShapeError, WorkerError

FEW = 256
"""Up to so many pictures are decoded where they are needed: starting workers would take longer."""

MOST_WORKERS = 8
"""Of one process; a CPU core decodes 50 to 150 photographs a second."""

PATIENCE = 300
"""Seconds that a batch may take to decode."""

_NEWS = 5
"""Seconds until the end of a worker is surely known; it is a matter of milliseconds."""

_PIDS = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)")
_LOST = re.compile(r"DataLoader (worker \(pid|timed out)")
_FULL = re.compile(r"(allocate shared memory|worker \(pid.*Bus error)", re.DOTALL)
_SHARED = Path("/dev/shm")

_OWN: Any = None  # in a worker, where it notes its process and the picture that it is at, and its number

_Key = TypeVar("_Key")
_Made = TypeVar("_Made")


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
    with made_ahead(partial(_decoded, pictures, preprocess), batches, workers, pictures.names) as loaded:
        yield loaded


@contextmanager
def made_ahead(
    make: Callable[[_Key], _Made], keys: Sequence[_Key], workers: int, names: Sequence[str] = ()
) -> Iterator[Iterator[_Made]]:
    """What `make` makes of each key, in the keys' order, by workers that run ahead and end with the block.

    What comes does not depend on the number of workers. An interrupt is for the caller: workers do not see it.

    Args:
        make: gives the same for the same key in any process; it can be pickled.
        keys: what to make things of.
        workers: processes; 0 makes each where it is asked for.
        names: of the pictures that `make` reads, by the numbers that it tells `reading`.

    Raises:
        WorkerError: inside the block, if a worker dies, with the picture that it was at, or a thing takes more than
            five minutes.
    """
    places = RawArray("q", 2 * workers) if workers else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)  # more than cores: as asked for
        loader = DataLoader(
            _Making(make),
            sampler=keys,
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=workers,
            worker_init_fn=partial(_begin, places),
            timeout=PATIENCE if workers else 0,
            generator=torch.Generator(),  # which workers' seeds are drawn from; else torch's own would move on
        )
        iterator: Any = iter(loader)  # starts the workers
        loaded = _all_of(iterator, _NEWS if workers else 0)
    try:
        yield loaded
    except (RuntimeError, ShapeError) as error:  # torch raises where the main process is: in the model's pass, too
        if _FULL.search(str(error)):
            raise WorkerError(_shared_memory_is_full()) from error
        if not _LOST.search(str(error)):
            raise
        cause = " ".join(str(error).split())
        raise WorkerError(
            f"a process that decodes images was lost: {cause.partition('. ')[0].rstrip('.')}"
            f"{_last_picture(places, names, cause)}.\n"
            "if memory ran out, take fewer workers or smaller batches; --workers 0 decodes in the main process"
        ) from error
    finally:
        loaded.close()
        if workers:
            iterator.__del__()  # ends the workers now: the traceback of an error may keep the iterator until the end


def reading(picture: int) -> None:
    """Notes which picture is read next: if that ends the worker that reads it, an error can name it."""
    if _OWN is not None:
        places, worker = _OWN
        places[2 * worker], places[2 * worker + 1] = os.getpid(), picture


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


@dataclass(frozen=True)
class _Packed:
    """A thing on its way to another process, its tensors in shared memory already.

    torch's own queue shares them in a thread: one that finds no room prints a traceback, and nobody hears of it.
    """

    content: bytes


class _Making(Dataset[Any], Generic[_Key, _Made]):
    """Makes the thing that a key names, in whichever process."""

    def __init__(self, make: Callable[[_Key], _Made]) -> None:
        self._make = make

    def __getitem__(self, key: _Key) -> _Made | _Packed:
        made = self._make(key)
        return made if get_worker_info() is None else _Packed(bytes(ForkingPickler.dumps(made)))


def _decoded(pictures: Pictures, preprocess: Preprocess, indices: Sequence[int]) -> Batch:
    height, width = preprocess.image_size
    read: list[int] = []
    pixels = [torch.empty(0, 3, height, width, dtype=torch.uint8)]
    unread: list[tuple[int, str]] = []
    for index in indices:
        reading(index)
        try:
            pixels.append(pictures.pixels(index, preprocess)[None])
            read.append(index)
        except InputError as error:
            unread.append((index, str(error)))
        except MemoryError:
            unread.append((index, f"{pictures.names[index]}: does not fit in memory; make it smaller"))
    return Batch(tuple(read), torch.cat(pixels), tuple(unread))


def _all_of(made: Iterator[_Made | _Packed], news: float) -> Generator[_Made, None, None]:
    try:
        for thing in made:
            yield pickle.loads(thing.content) if isinstance(thing, _Packed) else thing
    except (OSError, EOFError):
        # A worker that dies while it hands over a tensor is seen as a lost connection first. Its end, of which torch
        # makes a RuntimeError, comes in this time, or it was something else.
        time.sleep(news)
        raise


def _shared_memory_is_full() -> str:
    size = f", which has {shutil.disk_usage(_SHARED).total / 2**20:.1f} MiB" if _SHARED.is_dir() else ""
    return (
        f"the memory that processes share to hand over images is full: {_SHARED}{size}\n"
        "make it larger (docker run --shm-size 2g), or take fewer workers; --workers 0 decodes in the main process"
    )


def _as_it_is(made: _Made) -> _Made:
    return made


def _last_picture(places: Any, names: Sequence[str], cause: str) -> str:
    """What a lost worker was at, if it told."""
    found = _PIDS.search(cause)
    lost = {int(pid) for pid in found[1].split(",")} if found else set()
    told = list(places or ())
    pictures = [picture for pid, picture in zip(told[::2], told[1::2], strict=True) if pid in lost]
    return "".join(f"; it was at {shown(names[picture])}" for picture in pictures if picture < len(names))


def _begin(places: Any, worker: int) -> None:
    """What a worker does first: signals are for the main process."""
    global _OWN
    _OWN = (places, worker)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _hear_the_next)  # the first goes to a whole job: the main process ends it


def _hear_the_next(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_DFL)
