from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path

import pytest

from vitreous.data.tars import BLOCK, NOTE_LIMIT, Member, tar_members
from vitreous.errors import InputError


def entry(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def written(path: Path, names: list[str], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for number, name in enumerate(names):
            content = bytes([number]) * (number * 211)
            tar.addfile(entry(name, size=len(content)), io.BytesIO(content))
    return path


def members(path: Path) -> list[Member]:
    with path.open("rb") as file:
        return list(tar_members(file, path))


NAMES = [
    "0.jpg",
    "folder/1.jpg",
    "日本/ü.jpg",
    "long/" * 40 + "2.jpg",
    "a" * 100 + "/" + "b" * 99,
    "new\nline=1.jpg",
    "stray\udcff.jpg",
]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_places_and_sizes_are_tarfiles(tmp_path: Path, form: int) -> None:
    path = written(tmp_path / "photos.tar", NAMES, form)
    with tarfile.open(path) as tar:
        wanted = [Member(info.name, info.offset_data, info.size) for info in tar]
    assert [member.name for member in wanted] == NAMES
    assert members(path) == wanted


def test_a_size_beyond_eleven_digits_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.tar"
    header = entry("large", size=2**33 + 5).tobuf(tarfile.GNU_FORMAT)
    with path.open("wb") as file:
        file.write(header)
        file.seek(BLOCK + 2**33 + BLOCK)  # a hole, no bytes on the disk
        file.write(bytes(2 * BLOCK))
    assert members(path) == [Member("large", BLOCK, 2**33 + 5)]


def test_times_of_gnu_headers_are_no_part_of_the_name(tmp_path: Path) -> None:
    header = bytearray(entry("0.jpg").tobuf(tarfile.GNU_FORMAT))
    header[345:357] = b"15000000000\0"  # when the file was read last
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "gnu.tar").write_bytes(header + bytes(2 * BLOCK))
    assert members(tmp_path / "gnu.tar") == [Member("0.jpg", BLOCK, 0)]


def test_what_is_no_file_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "traps.tar"
    kinds = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE]
    with tarfile.open(path, "w") as tar:
        for number, kind in enumerate(kinds):
            tar.addfile(entry(f"{number}.jpg", kind, linkname="/etc/passwd"))
        tar.addfile(entry("holes.jpg", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.name": "x"}))
        tar.addfile(entry("real.jpg"))
    assert [member.name for member in members(path)] == ["real.jpg"]


def test_a_tar_that_breaks_off_is_refused_wherever_it_does(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole.tar", ["0.jpg", "1.jpg", "2.jpg"]).read_bytes()
    used = 3 * BLOCK + 2 * BLOCK  # three headers, two contents of at most a block
    path = tmp_path / "cut.tar"
    for length in (1, 511, BLOCK, 2 * BLOCK, 2 * BLOCK + 5, used - 100, used):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cut\.tar: breaks off after"):
            members(path)
    path.write_bytes(whole[: used + 2 * BLOCK])
    assert len(members(path)) == 3


def test_a_damaged_header_in_the_middle_is_no_end(tmp_path: Path) -> None:
    content = bytearray(written(tmp_path / "photos.tar", ["0.jpg", "1.jpg", "2.jpg"]).read_bytes())
    content[BLOCK + 3] ^= 1  # of the name of the second file; the first is empty
    (tmp_path / "photos.tar").write_bytes(content)
    with pytest.raises(InputError, match=r"photos\.tar: no tar header at byte 512; the file is damaged"):
        members(tmp_path / "photos.tar")


def test_an_empty_block_between_files_is_no_end(tmp_path: Path) -> None:
    content = written(tmp_path / "photos.tar", ["0.jpg", "1.jpg"]).read_bytes()
    (tmp_path / "photos.tar").write_bytes(content[:BLOCK] + bytes(BLOCK) + content[BLOCK:])
    with pytest.raises(InputError, match="damaged at byte 512"):
        members(tmp_path / "photos.tar")


def test_a_packed_tar_says_so(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "photos.tar", "w:gz") as tar:
        for number in range(200):
            noise = random.Random(number).randbytes(100)
            tar.addfile(entry(f"{number}.jpg", size=100), io.BytesIO(noise))
    with pytest.raises(InputError, match=r"photos\.tar: .* packed; unpack it to a plain \.tar"):
        members(tmp_path / "photos.tar")


def test_an_endless_name_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "hostile.tar"
    with path.open("wb") as file:
        file.write(entry("long", tarfile.GNUTYPE_LONGNAME, size=2**35).tobuf(tarfile.GNU_FORMAT))
        file.seek(2**35 + 4 * BLOCK)
        file.write(bytes(2 * BLOCK))
    with pytest.raises(InputError, match=rf"34,359,738,368 bytes, {NOTE_LIMIT:,} are allowed"):
        members(path)


def test_a_size_that_is_no_number_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hostile.tar"
    record = b"11 size=\xff\xfe\n"
    head = entry("note", tarfile.XHDTYPE, size=len(record)).tobuf(tarfile.USTAR_FORMAT)
    path.write_bytes(head + record.ljust(BLOCK, b"\0") + entry("a.jpg").tobuf(tarfile.USTAR_FORMAT) + bytes(2 * BLOCK))
    with pytest.raises(InputError, match="damaged"):
        members(path)


def test_any_damage_is_read_or_named(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole.tar", NAMES).read_bytes()
    chance = random.Random(0)
    path = tmp_path / "damaged.tar"
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            found = members(path)
            assert all(member.start + member.size <= len(damaged) for member in found)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 25
