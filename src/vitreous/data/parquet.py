"""Images in parquet files, a few at a time: a file may be larger than memory, whatever its row groups are.

What is in memory is a page of the file, packed and unpacked: that is as little as parquet can give, and at most 1,024
rows of what Arrow writes.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from PIL import Image

from vitreous.data.images import Encoded, decode_image, shown
from vitreous.errors import InputError

ROWS = 16
"""Rows that are taken from the file at once."""

KEPT = 4
"""How many such lots are kept, for readers that do not quite go in order, as threads do."""


class ParquetImages:
    """The images of some files, one file after the other, by row.

    Made to be read in order. Skipping ahead to another row group is free; going back reads a row group again from its
    first row, as any order but that of the rows does: files with row groups of 100 images, as Hugging Face `datasets`
    writes them, bear that. Only the paths and the rows travel to another process: each opens the files itself. Threads
    may share it.
    """

    def __init__(self, files: Sequence[tuple[Path, Sequence[int]]], column: str) -> None:
        """Nothing is opened yet.

        Args:
            files: each with the rows of its row groups.
            column: bytes, or a struct with `bytes`, as Hugging Face `datasets` writes it.
        """
        self._column = column
        self._files = tuple(file for file, _ in files)
        self._groups = tuple((n, group) for n, (_, rows) in enumerate(files) for group in range(len(rows)))
        self._ends = list(accumulate(row for _, rows in files for row in rows))  # first row that is no more in a group
        self._starts = list(accumulate((sum(rows) for _, rows in files), initial=0))  # of each file, its first row
        self._forget()

    def __call__(self, row: int) -> Image.Image:
        """One image, decoded.

        Raises:
            InputError: if it cannot be decoded, or the file is damaged here.
        """
        return decode_image(*self.content(row))

    def content(self, row: int) -> Encoded:
        """One image's file, as it stands in the column; no bytes where there is none.

        Raises:
            InputError: if the parquet file is damaged here.
        """
        name = self.name(row)
        with self._lock:
            return Encoded(self._content(row, name), name)

    def name(self, row: int) -> str:
        """The file of a row, and where in it."""
        file = bisect_right(self._starts, row) - 1
        return f"{self._files[file].name}#{row - self._starts[file]}"

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("_column", "_files", "_groups", "_ends", "_starts")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._group, self._next = -1, 0  # what is being read, and its next row
        self._opened: dict[int, Any] = {}  # what is known of files, so that it is read once
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
            self._start(group, name)
        while row >= self._next:
            self._advance(name)
        (rows, lot) = next(reversed(self._kept.items()))
        return lot[row - rows.start].as_py() or b""

    def _start(self, group: int, name: str) -> None:
        """Goes to the first row of a row group."""
        from pyarrow import ArrowException, parquet

        file, inside = self._groups[group]
        # buffered, so that a row group is not held whole
        path, metadata = self._files[file], self._opened.get(file)
        try:
            opened = parquet.ParquetFile(path, metadata=metadata, buffer_size=2**20, pre_buffer=False)
        except (ArrowException, OSError) as error:
            raise _damage(name, " ".join(str(error).split())) from error
        self._opened[file] = opened.metadata
        is_struct = hasattr(opened.schema_arrow.field(self._column).type, "fields")
        columns = [f"{self._column}.bytes" if is_struct else self._column]
        self._lots = opened.iter_batches(ROWS, [inside], columns, use_threads=False)
        self._group, self._next = group, self._ends[group - 1] if group else 0

    def _advance(self, name: str) -> None:
        """Takes the next lot of rows."""
        from pyarrow import ArrowException, compute

        try:
            lot = next(self._lots).column(0)
            if hasattr(lot.type, "fields"):
                lot = compute.struct_field(lot, "bytes")
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
