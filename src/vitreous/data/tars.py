"""Where the files of a tar begin: its headers are read, nothing is unpacked.

Written for tars from strangers: Python's `tarfile` takes a damaged header in the middle for the end, and follows links.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from vitreous.data.images import shown
from vitreous.errors import InputError

BLOCK = 512
"""Headers, and the room that files take, are whole blocks of so many bytes."""

NOTE_LIMIT = 2**20
"""Bytes that a long name or a note on the next file may have."""

_DIGITS = 8  # of a note's length, at most, the blank after them counted
_REGULAR = (b"0", b"\0", b"7")
"""Kinds of entries that are files; links, folders, pipes, devices and files with holes are left out."""


class Member(NamedTuple):
    """A file in a tar.

    Attributes:
        name: its path.
        start: of its content, in bytes from the tar's beginning.
        size: of its content, in bytes.
    """

    name: str
    start: int
    size: int


def tar_members(file: IO[bytes], path: Path) -> Iterator[Member]:
    """The files of a tar in their order, all within its length; between two of them the reader may be moved.

    Source: POSIX.1-2024, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar's long names and sizes.

    Args:
        file: opened for reading bytes.
        path: stands in messages.

    Raises:
        InputError: if a header is damaged, or the tar breaks off.
    """
    end = file.seek(0, os.SEEK_END)
    place = 0
    notes: dict[str, str] = {}
    while True:
        header = _read(file, place, BLOCK)
        if len(header) < BLOCK:
            raise _cut(path, end)
        if not any(header):  # two empty blocks end a tar
            if any(_read(file, place + BLOCK, BLOCK)):
                raise InputError(f"{shown(path)}: damaged at byte {place:,}; an empty block stands between files")
            return
        _check_sum(header, path, place)
        kind, size = header[156:157], _number(header[124:136], path, place)
        if kind in _REGULAR and "size" in notes:
            size = _number(os.fsencode(notes["size"]), path, place, base=10)
        start, following = place + BLOCK, place + BLOCK + -(-size // BLOCK) * BLOCK
        if start + size > end:
            raise _cut(path, end)
        if kind in (b"x", b"g", b"L", b"K"):
            notes |= _notes(kind, _note(file, start, size, path))
        else:
            if kind in _REGULAR and not any(key.startswith("GNU.sparse") for key in notes):
                yield Member(notes.get("path") or _name(header), start, size)
            notes = {}
        place = following


def _read(file: IO[bytes], place: int, size: int) -> bytes:
    file.seek(place)
    return file.read(size)


def _note(file: IO[bytes], start: int, size: int, path: Path) -> bytes:
    if size > NOTE_LIMIT:
        raise InputError(f"{shown(path)}: a note on a file has {size:,} bytes, {NOTE_LIMIT:,} are allowed")
    return _read(file, start, size)


def _notes(kind: bytes, content: bytes) -> dict[str, str]:
    """What an entry says of the next file: its long name, or pax records `LENGTH KEY=VALUE` that end in a new line."""
    if kind == b"L":
        return {"path": os.fsdecode(content.rstrip(b"\0"))}
    if kind != b"x":  # of links, or of all files, where nothing is that matters here
        return {}
    found: dict[str, str] = {}
    place = 0
    while place < len(content):
        length = content[place : place + _DIGITS].partition(b" ")[0]
        taken = int(length) if length.isdigit() and len(length) < _DIGITS else 0
        key, is_record, value = content[place + len(length) + 1 : place + taken].rstrip(b"\n").partition(b"=")
        if not is_record:
            break
        found[os.fsdecode(key)] = os.fsdecode(value)
        place += taken
    return found


def _name(header: bytes) -> str:
    name, prefix = header[:100].split(b"\0")[0], header[345:500].split(b"\0")[0]
    if header[257:263] == b"ustar\0" and prefix:  # GNU's own form has other things there
        name = prefix + b"/" + name
    return os.fsdecode(name)


def _check_sum(header: bytes, path: Path, place: int) -> None:
    said = _number(header[148:156], path, place)
    if said != sum(header[:148]) + 8 * ord(" ") + sum(header[156:]):
        raise _damaged(path, place)


def _number(field: bytes, path: Path, place: int, *, base: int = 8) -> int:
    """A whole number in octal digits, or, where the first bit is set, in the bytes themselves."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0") or b"0"
    if not digits.isdigit() or (base == 8 and (b"8" in digits or b"9" in digits)) or len(digits) > 20:
        raise _damaged(path, place)
    return int(digits, base)


def _damaged(path: Path, place: int) -> InputError:
    what = "is packed; unpack it to a plain .tar" if not place else "fetch it again"
    return InputError(f"{shown(path)}: no tar header at byte {place:,}; the file is damaged or {what}")


def _cut(path: Path, end: int) -> InputError:
    return InputError(f"{shown(path)}: breaks off after {end:,} bytes; the tar is not whole, fetch it again")
