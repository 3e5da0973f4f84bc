"""A file on disk that is no trap, and tensors filled straight from its bytes."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import torch
from torch import Tensor

from vitreous.checkpoints.containers.contract import DTYPES
from vitreous.data.images import shown
from vitreous.errors import CheckpointError, InputError, MemoryLimitError

REMEDY = "copy or download it again"

_BLOCKING = getattr(os, "O_NONBLOCK", 0)  # a pipe put in the file's place after it was looked at must not make us wait
_BINARY = getattr(os, "O_BINARY", 0)  # Windows


@dataclass(frozen=True)
class RegularFile:
    """A file open for reading at any place.

    Not mapped into memory: mapped pages would count as memory beside the tensors, and a file that is cut while it is
    read would end the process.

    Attributes:
        path: where it is.
        size: in bytes, when it was opened.
        raw: the open file.
    """

    path: Path
    size: int
    raw: FileIO

    def read(self, start: int, length: int) -> bytes:
        """Some of its bytes; the caller has made sure that they are few."""
        content = bytearray(length)
        self.fill(memoryview(content), start)
        return bytes(content)

    def fill(self, room: memoryview, start: int) -> None:
        """Fills all of `room` with bytes from `start` on.

        Raises:
            CheckpointError: if the file ends before, or cannot be read there.
        """
        filled = 0
        try:
            self.raw.seek(start)
            while filled < len(room):
                count = self.raw.readinto(room[filled:])
                if not count:
                    raise self.refusal(f"it ends at byte {start + filled:,}, in the middle of something")
                filled += count
        except OSError as cause:
            raise self.refusal(f"it cannot be read at byte {start + filled:,}: {cause.strerror}") from cause

    def tensor(self, shape: tuple[int, ...], dtype: str, start: int) -> Tensor:
        """A tensor whose bytes stand in the file from `start` on, in memory of its own."""
        tensor = self.room(shape, dtype)
        self.fill(as_bytes(tensor), start)
        return tensor

    def room(self, shape: tuple[int, ...], dtype: str) -> Tensor:
        """Memory for a tensor, not yet filled.

        Raises:
            MemoryLimitError: if there is none.
        """
        try:
            return torch.empty(shape, dtype=DTYPES[dtype])
        except RuntimeError as cause:
            size = math.prod(shape) * DTYPES[dtype].itemsize
            raise MemoryLimitError(
                f"{shown(self.path)}: a tensor of {size:,} bytes does not fit in memory; use a machine with more of it"
            ) from cause

    def refusal(self, cause: str, remedy: str = REMEDY) -> CheckpointError:
        """The error that names this file, why it is refused, and what to do."""
        return CheckpointError(f"{shown(self.path)}: {cause}\n{remedy}")


@contextmanager
def open_regular(path: Path) -> Iterator[RegularFile]:
    """The file at `path`, for as long as the context lasts. Never waits, whatever stands there.

    Raises:
        InputError: as `check_file`.
    """
    check_file(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | _BLOCKING | _BINARY)
    except OSError as cause:
        raise InputError(f"{shown(path)} cannot be read: {cause.strerror}; check its permissions") from cause
    with FileIO(descriptor, "rb") as raw:
        yield RegularFile(path, _check_status(path, os.fstat(descriptor)), raw)


def check_file(path: Path) -> None:
    """Nothing, if `path` is a file with something in it.

    Raises:
        InputError: if it is missing, empty, no regular file (a folder, a pipe, a device), or cannot be read.
    """
    try:
        status = path.stat()
    except FileNotFoundError as cause:
        raise InputError(f"{shown(path)} does not exist; check the path") from cause
    except OSError as cause:
        raise InputError(f"{shown(path)} cannot be read: {cause.strerror}; check its permissions") from cause
    except ValueError as cause:  # a zero byte in the path
        raise InputError(f"{shown(path)} cannot be the path of a file; check the path") from cause
    _check_status(path, status)


def as_bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor, to be filled or read as bytes."""
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().data


def _check_status(path: Path, status: os.stat_result) -> int:
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{shown(path)} is not a regular file; give the path of a file")
    if not status.st_size:
        raise InputError(f"{shown(path)} is empty; {REMEDY}")
    return status.st_size
