from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitreous.checkpoints.containers.regular_file import open_regular
from vitreous.checkpoints.containers.zips import Member, crc_of, inflate, read_members, read_stored
from vitreous.errors import CheckpointError


def members_of(path: Path) -> dict[str, Member]:
    with open_regular(path) as file:
        return read_members(file)


def zip64(bad: dict[str, Any], change: Callable[[bytes], bytes] = lambda part: part) -> bytes:
    """An archive of one member, whose sizes all stand in the 64-bit fields."""
    data, name = b"hello", b"a.txt"
    crc = zipfile.crc32(data)
    wide = struct.pack("<2H3Q", 1, 24, 5, 5, 0)
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 45, 0, 0, 0, 0, crc, 2**32 - 1, 2**32 - 1, 5, 20)
    local += name + struct.pack("<2H2Q", 1, 16, 5, 5) + data
    listed = struct.pack("<4s6H3I", b"PK\1\2", 45, 45, 0, 0, 0, 0, crc, 2**32 - 1, 2**32 - 1)
    listed += struct.pack("<5H2I", 5, 28, 0, 0, 0, 0, 2**32 - 1) + name + change(wide)
    end64 = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(listed), len(local))
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(local) + len(listed), 1)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 2**16 - 1, 2**16 - 1, 2**32 - 1, 2**32 - 1, 0)
    return local + listed + end64 + locator + end


def test_members_are_those_of_zipfile(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("stored.txt", b"hello" * 100)
        archive.writestr("ä/deflated.txt", b"hello" * 100, zipfile.ZIP_DEFLATED)
        archive.writestr("empty", b"")
    found = members_of(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive, open_regular(tmp_path / "a.zip") as file:
        assert list(found) == archive.namelist()
        for entry in archive.infolist():
            member = found[entry.filename]
            told = (entry.compress_type, entry.file_size, entry.compress_size, entry.CRC)
            assert (member.method, member.size, member.packed, member.crc) == told
        assert read_stored(file, found["stored.txt"]) == b"hello" * 100
        pieces: list[bytes] = []
        inflate(file, found["ä/deflated.txt"], lambda piece: pieces.append(piece) is None)
        assert b"".join(pieces) == b"hello" * 100


def test_sizes_of_64_bits_are_read(bad: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zip64(bad))
    assert zipfile.ZipFile(tmp_path / "a.zip").read("a.txt") == b"hello"
    with open_regular(tmp_path / "a.zip") as file:
        assert read_stored(file, read_members(file)["a.txt"]) == b"hello"
        assert crc_of(file, 3, 40) == zipfile.crc32(zip64(bad)[3:43])


@pytest.mark.parametrize(
    "change",
    [lambda part: b"\2" + part[1:], lambda part: part[:-8], lambda part: part[:4] + b"\xff" * 24],
    ids=["other field", "one missing", "beyond the file"],
)
def test_sizes_of_64_bits_that_lie_are_refused(
    change: Callable[[bytes], bytes], bad: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "a.zip").write_bytes(zip64(bad, change))
    with pytest.raises(CheckpointError, match="not a whole zip archive"):
        members_of(tmp_path / "a.zip")


def test_every_cut_is_found(bad: dict[str, Any], tmp_path: Path) -> None:
    whole = bad["archive"](bad["member"]("a", b"hello"), bad["member"]("b", b""))
    for end in range(1, len(whole)):
        (tmp_path / "a.zip").write_bytes(whole[:end])
        with pytest.raises(CheckpointError, match="not a whole zip archive"):
            members_of(tmp_path / "a.zip")
