from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from vitreous.atomic import check_writable, folder_written_atomically, remove_unfinished, write_atomically
from vitreous.errors import OutputError


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_text_and_bytes_are_written_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_atomically(tmp_path / "new" / "text.txt", "Größe\n")
    write_atomically(tmp_path / "new" / "bytes.bin", b"\x00\xff")
    assert (tmp_path / "new" / "text.txt").read_bytes() == "Größe\n".encode()
    assert (tmp_path / "new" / "bytes.bin").read_bytes() == b"\x00\xff"
    assert names(tmp_path / "new") == ["bytes.bin", "text.txt"]


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, "a long first text")
    write_atomically(path, "second")
    assert path.read_text() == "second"


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    write_atomically(tmp_path / "a.txt", "first")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a.txt", "second")
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "first"


def test_a_file_may_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    before = os.umask(0o022)
    try:
        write_atomically(path, "a")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_place_that_cannot_be_written_is_named_with_the_cause(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=r"below cannot be written: .*; choose another place"):
        write_atomically(tmp_path / "file" / "below", "a")
    with pytest.raises(OutputError, match="folder cannot be written"):
        write_atomically(tmp_path / "folder", "a")
    assert names(tmp_path) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "kept"


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "model"
    with folder_written_atomically(target) as filling:
        (filling / "one").write_text("1")
        assert not target.exists()
    assert names(target) == ["one"]
    assert names(tmp_path / "deep") == ["model"]


def test_a_folder_that_fails_half_way_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with folder_written_atomically(target) as filling:
        (filling / "one").write_text("old")
    with pytest.raises(KeyError), folder_written_atomically(target) as filling:
        (filling / "one").write_text("new")
        raise KeyError
    assert (target / "one").read_text() == "old"
    assert names(tmp_path) == ["model"]


def test_a_folder_with_the_same_files_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for text in ("old", "new"):
        with folder_written_atomically(target) as filling:
            (filling / "one").write_text(text)
    assert (target / "one").read_text() == "new"
    assert names(tmp_path) == ["model"]


def test_a_folder_with_other_files_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    refusal = pytest.raises(OutputError, match=r"has other files in it \(thesis.tex\)")
    with refusal, folder_written_atomically(tmp_path) as filling:
        (filling / "one").write_text("1")
    assert names(tmp_path) == ["thesis.tex"]


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError, match="is a file"), folder_written_atomically(tmp_path / "file"):
        pass
    refusal = pytest.raises(OutputError, match="cannot be written")
    with refusal, folder_written_atomically(tmp_path / "file" / "below"):
        pass
    assert (tmp_path / "file").read_text() == "kept"


def test_a_folder_comes_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "one").write_text("old")
    rename = Path.rename

    def refuse_new(self: Path, to: Path) -> Path:
        if self.name.endswith(".tmp"):
            raise OSError(5, "Input/output error")
        return rename(self, to)

    monkeypatch.setattr("vitreous.atomic._exchange", lambda one, other: False)  # as on a system that cannot
    monkeypatch.setattr(Path, "rename", refuse_new)
    with pytest.raises(OutputError, match="Input/output error"), folder_written_atomically(target) as filling:
        (filling / "one").write_text("new")
    assert (target / "one").read_text() == "old"


def test_a_writable_place_is_found_without_leaving_anything(tmp_path: Path) -> None:
    check_writable(tmp_path / "report.html")
    assert names(tmp_path) == []
    with pytest.raises(OutputError, match="is a folder"):
        check_writable(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        check_writable(tmp_path / "file" / "report.html")


def test_a_folder_is_replaced_in_one_step_or_in_two_where_the_system_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for can in (True, False):
        if not can:
            monkeypatch.setattr("vitreous.atomic._exchange", lambda one, other: False)
        for text in ("old", "new"):
            with folder_written_atomically(tmp_path / "model") as filling:
                (filling / "one").write_text(text)
            assert (tmp_path / "model" / "one").read_text() == text
        assert names(tmp_path) == ["model"]


def test_what_was_moved_aside_by_a_killed_process_comes_back(tmp_path: Path) -> None:
    aside = tmp_path / ".model.abcd_012.old" / "old"
    aside.mkdir(parents=True)
    (aside / "one").write_text("kept")
    (tmp_path / ".model.abcd_013.tmp").mkdir()
    (tmp_path / ".mine.tmp").write_text("mine")
    remove_unfinished(tmp_path)
    assert names(tmp_path) == [".mine.tmp", "model"] and (tmp_path / "model" / "one").read_text() == "kept"


def test_what_was_moved_aside_and_replaced_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".model.abcd_012.old" / "old").mkdir(parents=True)
    (tmp_path / "model").mkdir()
    remove_unfinished(tmp_path)
    assert names(tmp_path) == ["model"]


def test_a_full_disk_says_how_much_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"No space left on device \([\d,]+ bytes are free\)"):
        write_atomically(tmp_path / "a.txt", "new")
