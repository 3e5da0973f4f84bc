"""Images in a parquet file, a few at a time: the file may be larger than memory, whatever its row groups are.

What is in memory is a page of the file, packed and unpacked: that is as little as parquet can give, and at most 1,024
rows of what Arrow writes.
"""

from __future__ import annotations

import io
import os
import threading
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from PIL import Image

from vitreous.data.headers import Size, header_size
from vitreous.data.images import decode_image, shown
from vitreous.errors import InputError

ROWS = 16
"""Rows that are taken from the file at once."""

KEPT = 4
"""How many such lots are kept, for readers that do not quite go in order, as threads do."""


class ParquetImages:
    """The column `image` (a struct with `bytes`, as Hugging Face `datasets` writes it) of one file, by row.

    Made to be read in order. Skipping ahead to another row group is free; going back reads a row group again from its
    first row. Only the path and the rows travel to another process: each opens the file itself. Threads may share it.
    """

    def __init__(self, file: Path, rows_of_groups: list[int]) -> None:
        self._file = file
        self._ends = list(accumulate(rows_of_groups))  # of each row group, the first row that is no more in it
        self._forget()

    def __call__(self, row: int) -> Image.Image:
        """One image, decoded.

        Raises:
            InputError: if it cannot be decoded, or the file is damaged here.
        """
        name = f"{self._file.name}#{row}"
        with self._lock:
            content = self._content(row, name)
        return decode_image(content, name)

    def size(self, row: int) -> Size | None:
        """(image_height, image_width) of one image, from its header; None where that cannot be read."""
        try:
            with self._lock:
                content = self._content(row, "")
        except InputError:
            return None
        return header_size(io.BytesIO(content))

    def __getstate__(self) -> dict[str, Any]:
        return {"_file": self._file, "_ends": self._ends}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._group, self._next = -1, 0  # what is being read, and its next row
        self._lots: Iterator[Any] = iter(())
        self._kept: dict[range, Any] = {}
        self._damaged: dict[int, tuple[int, str]] = {}  # of a row group: the first row that cannot be read, and why

    def _content(self, row: int, name: str) -> bytes:
        if self._process != os.getpid():  # forked: an open file is not for two processes
            self._forget()
        for rows, lot in self._kept.items():
            if row in rows:
                return lot[row - rows.start].as_py() or b""
        group = bisect_right(self._ends, row)
        first_damaged, cause = self._damaged.get(group, (self._ends[group], ""))
        if row >= first_damaged:
            raise _damage(name, cause)
        if group != self._group or row < self._next:
            self._start(group)
        while row >= self._next:
            self._advance(name)
        (rows, lot) = next(reversed(self._kept.items()))
        return lot[row - rows.start].as_py() or b""

    def _start(self, group: int) -> None:
        """Goes to the first row of a row group."""
        from pyarrow import parquet

        # buffered, so that a row group is not held whole
        opened = parquet.ParquetFile(self._file, buffer_size=2**20, pre_buffer=False)
        self._lots = opened.iter_batches(ROWS, [group], ["image.bytes"], use_threads=False)
        self._group, self._next = group, self._ends[group - 1] if group else 0

    def _advance(self, name: str) -> None:
        """Takes the next lot of rows."""
        from pyarrow import ArrowException, compute

        try:
            lot = compute.struct_field(next(self._lots).column("image"), "bytes")
        except (ArrowException, OSError, StopIteration) as error:
            cause = " ".join(str(error).split()) or "rows are missing"
            self._damaged[self._group] = (self._next, cause)
            self._group = -1
            raise _damage(name, cause) from error
        self._kept[range(self._next, self._next + len(lot))] = lot
        self._next += len(lot)
        if len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]


def _damage(name: str, cause: str) -> InputError:
    return InputError(f"{shown(name)}: cannot be read ({cause}); the parquet file is damaged here")
