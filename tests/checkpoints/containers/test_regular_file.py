from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from vitreous.checkpoints.containers.regular_file import check_file, open_regular
from vitreous.errors import CheckpointError, InputError, MemoryLimitError


def test_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    content = os.urandom(10_000)
    (tmp_path / "f").write_bytes(content)
    with open_regular(tmp_path / "f") as file:
        assert file.size == 10_000 and file.read(100, 50) == content[100:150] and file.read(3, 0) == b""
        assert file.tensor((5, 10), "uint8", 17).numpy().tobytes() == content[17:67]
    with pytest.raises(ValueError, match="closed"):
        file.read(0, 1)


def test_short_reads_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_bytes(b"0123456789")

    class Slow:
        """Gives three bytes at a time, as a system may that is asked for gigabytes."""

        def __init__(self, raw: object) -> None:
            self.raw = raw

        def seek(self, place: int) -> None:
            self.raw.seek(place)

        def readinto(self, room: memoryview) -> int:
            return self.raw.readinto(room[:3])

    with open_regular(tmp_path / "f") as file:
        object.__setattr__(file, "raw", Slow(file.raw))
        assert file.read(1, 8) == b"12345678"


def test_a_file_that_was_cut_meanwhile_is_an_error_that_says_where(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(100))
    with open_regular(tmp_path / "f") as file:
        (tmp_path / "f").write_bytes(bytes(60))
        with pytest.raises(CheckpointError, match="f: it ends at byte 60, in the middle"):
            file.read(50, 20)


def test_a_pipe_put_in_the_files_place_does_not_make_us_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "f")
    monkeypatch.setattr("vitreous.checkpoints.containers.regular_file.check_file", lambda path: None)
    with pytest.raises(InputError, match="not a regular file"), open_regular(tmp_path / "f"):
        pass


def test_a_path_that_cannot_be_one_is_refused() -> None:
    with pytest.raises(InputError, match=r"a\\x00b cannot be the path"):
        check_file(Path("a\0b"))


def test_too_little_memory_is_said_with_the_size(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    with open_regular(tmp_path / "f") as file, pytest.raises(MemoryLimitError, match="4,611,686,018,427,387,904 bytes"):
        file.room((2**60,), "float32")


def test_room_is_of_the_shape_and_type_asked_for(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    with open_regular(tmp_path / "f") as file:
        assert file.room((2, 3), "bfloat16").shape == (2, 3) and file.room((), "bool").dtype == torch.bool
