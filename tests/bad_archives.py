"""Zip archives that say whatever they are told to, and changes at random; see bad_checkpoints.py."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class BadFile(NamedTuple):
    """How to make one such file.

    `write` puts it into a folder and returns the path to open. `outcome` is "refused", "read" where it is only odd, or
    "either" where a change at random may have hit something that does not matter. `is_payload`: it leaves a marker.
    """

    row: str
    name: str
    write: Callable[[Path], Path]
    outcome: str = "refused"
    is_payload: bool = False


def file(row: str, name: str, content: bytes, outcome: str = "refused") -> BadFile:
    def write(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content)
        return path

    return BadFile(row, name, write, outcome)


def mutated(content: bytes, draw: random.Random) -> bytes:
    """One to three bytes changed, or some left out, put in, said twice, or cut off; mostly in the first 200."""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 3)):
        if not changed:
            break
        place = draw.randrange(min(len(changed), draw.choice((16, 200, len(changed)))))
        how = draw.randrange(6)
        if how < 2:
            changed[place] = draw.randrange(256)
        elif how == 2:
            changed[place] ^= 1 << draw.randrange(8)
        elif how == 3:
            del changed[place : place + draw.randint(1, 9)]
        elif how == 4:
            changed[place:place] = changed[place : place + draw.randint(1, 40)]
        elif place > 8:
            del changed[place:]
    return bytes(changed)


class Member(NamedTuple):
    """One file of an archive; what is not None is told instead of the truth."""

    name: bytes
    data: bytes
    method: int = 0
    flags: int = 0x800
    size: int | None = None
    packed: int | None = None
    crc: int | None = None
    local_name: bytes | None = None
    listed_size: int | None = None
    start: int | None = None
    packed_data: bytes | None = None


def member(name: str | bytes, data: bytes, **lies: Any) -> Member:
    """One file of an archive."""
    return Member(name if isinstance(name, bytes) else name.encode(), data, **lies)


def archive(*members: Member, comment: bytes = b"", listed: int | None = None, list_start: int | None = None) -> bytes:
    """A zip archive that says what it is told to."""
    content, listing = bytearray(), bytearray()
    for made in members:
        packed = made.packed_data
        if packed is None:
            packed = _deflate(made.data) if made.method == 8 else made.data
        size = len(made.data) if made.size is None else made.size
        packed_size = len(packed) if made.packed is None else made.packed
        crc = zlib.crc32(made.data) if made.crc is None else made.crc
        start = len(content) if made.start is None else made.start
        local_name = made.name if made.local_name is None else made.local_name
        content += struct.pack("<4s5H", b"PK\3\4", 20, made.flags, made.method, 0, 0)
        content += struct.pack("<3I2H", crc, packed_size, size, len(local_name), 0) + local_name + packed
        told = size if made.listed_size is None else made.listed_size
        listing += struct.pack("<4s6H", b"PK\1\2", 20, 20, made.flags, made.method, 0, 0)
        listing += struct.pack("<3I5H2I", crc, packed_size, told, len(made.name), 0, 0, 0, 0, 0, start) + made.name
    count = len(members) if listed is None else listed
    start = len(content) if list_start is None else list_start
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(listing), start, len(comment))
    return bytes(content + listing) + end + comment


def deflated_zeros(mebibytes: int, head: bytes = b"") -> bytes:
    """A stream of `head` and zeros, a thousandth of their size."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + block * mebibytes + packer.flush()


def _deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()
