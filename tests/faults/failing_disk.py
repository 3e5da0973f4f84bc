"""A disk that fails where it is told to: every call that changes a file is counted, and one of them goes wrong.

Source: SQLite's I/O error tests, sqlite.org/testing.html: fail the first call, then the second, until nothing fails.
"""

from __future__ import annotations

import builtins
import errno
import io
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import vitreous.atomic
from vitreous.errors import OutputError

KINDS = ("dies before", "dies after", "dies half-way", "short", "no space", "stays full", "broken")
"""What a call does: the process ends before it, after it, or when half of a write is on disk; a write takes only half
of what it was given; there is no space for this call, or for any from here on; or the device is broken for one call."""

CALLS = ("mkdir", "rename", "replace", "unlink", "remove", "rmdir", "chmod", "ftruncate", "pwrite")
GROW = {"open", "mkdir", "write", "pwrite", "rename", "replace", "exchange", "open file", "fsync"}


class Died(BaseException):
    """The process was ended: what follows of the writer's own cleaning up changes nothing, as if it did not run."""


class Disk:
    """Counts calls; the one with this number goes wrong in this way."""

    def __init__(self, number: int = -1, kind: str = "") -> None:
        self.number, self.kind = number, kind
        self.calls: list[str] = []
        self.log: list[tuple[Any, ...]] = []  # what reached the disk: (call, paths or content)
        self.failed = self.dead = False

    def do(self, name: str, whole: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
        if self.dead:
            raise Died
        number = len(self.calls)
        self.calls.append(name)
        if number != self.number:
            if self.failed and self.kind == "stays full" and name in GROW:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return whole()
        self.failed = True
        if self.kind == "short":
            return half() if half else whole()
        if self.kind == "broken":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self.kind in ("no space", "stays full"):
            if half:
                half()
            if name in GROW:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return whole()
        self.dead = True
        if self.kind == "dies after":
            opened = whole()
            if name.startswith("open"):  # the system closes what a process had open
                opened.close() if isinstance(opened, io.FileIO) else os.close(opened)
        elif self.kind == "dies half-way" and half:
            half()
        raise Died

    @contextmanager
    def in_use(self) -> Iterator[Disk]:
        """Inside, all files are on this disk."""
        before: dict[tuple[Any, str], Any] = {}

        def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
            before[owner, name] = getattr(owner, name)
            setattr(owner, name, make(before[owner, name]))

        def counted(name: str) -> Callable[[Any], Any]:
            def make(real: Any) -> Any:
                def call(*given: Any, **named: Any) -> Any:
                    paths = [_whole_path(path, named.get("dir_fd")) for path in given[:2] if not isinstance(path, int)]
                    done = self.do(name, lambda: real(*given, **named))
                    self.log.append((name, *paths))
                    return done

                return call

            return make

        try:
            for name in CALLS:
                replace(os, name, counted(name))
            replace(os, "fsync", lambda real: self._flush)
            replace(os, "open", lambda real: lambda *given, **named: self._open_low(real, *given, **named))
            replace(vitreous.atomic, "_exchange", counted("exchange"))
            for owner in (io, builtins):
                replace(owner, "open", lambda real: lambda *given, **named: self._open(real, *given, **named))
            yield self
        finally:
            for (owner, name), real in before.items():
                setattr(owner, name, real)

    def _flush(self, descriptor: int) -> None:
        path = _whole_path("", descriptor)
        self.do("fsync", lambda: None)  # no power is cut here; see power_cut.py
        self.log.append(("fsync", path))

    def _open_low(self, real: Any, path: Any, flags: int, *given: Any, **named: Any) -> Any:
        name = "open" if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR) else "open to read"
        descriptor = self.do(name, lambda: real(path, flags, *given, **named))
        if flags & os.O_CREAT:
            self.log.append(("create", _whole_path(path, named.get("dir_fd"))))
        return descriptor

    def _open(self, real: Any, file: Any, mode: str = "r", buffering: int = -1, *given: Any, **named: Any) -> Any:
        if not set(mode) & set("wax+"):
            return real(file, mode, buffering, *given, **named)
        raw = self.do("open file", lambda: io.FileIO(file, mode.replace("b", "").replace("t", "")))
        if "w" in mode or "a" in mode:
            self.log.append(("create", _whole_path(file, None)))
        if "w" in mode:
            self.log.append(("content", _whole_path(file, None), b""))
        return Written(self, raw, is_text="b" not in mode, is_buffered=buffering != 0)


class Written:
    """A file without a buffer: what is written is on disk, what is not yet written is not."""

    def __init__(self, disk: Disk, raw: io.FileIO, *, is_text: bool, is_buffered: bool) -> None:
        self._disk, self._raw, self._is_text, self._is_buffered = disk, raw, is_text, is_buffered

    def write(self, data: Any) -> int:
        content = data.encode() if self._is_text else bytes(data)

        def half() -> int:
            count = self._raw.write(content[: (len(content) + 1) // 2])
            if self._is_buffered and self._disk.kind == "short":  # Python's own buffer tries again
                count += self._raw.write(content[count:])
            return count

        count: int = self._disk.do("write", lambda: self._raw.write(content), half)
        path = _whole_path(self._raw.name, None)
        self._disk.log.append(("content", path, path.read_bytes()))
        return len(data) if self._is_buffered else count

    def truncate(self, size: int | None = None) -> int:
        return int(self._disk.do("ftruncate", lambda: self._raw.truncate(size)))

    def flush(self) -> None:
        pass

    def __enter__(self) -> Written:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


def _whole_path(path: Any, descriptor: int | None) -> Path:
    """Where a path leads that is given by itself, or from an open folder."""
    folder = Path.cwd() if descriptor is None else Path(f"/proc/self/fd/{descriptor}").readlink()
    return folder / os.fsdecode(path)


@dataclass(frozen=True)
class Writer:
    """Something that is written, in a folder of its own.

    Attributes:
        prepare: puts the old content there.
        write: puts the new content there, over the old.
        read: what a reader finds, in parts, each of which is old or new; an error if it can read nothing.
        cleans: whether the next writing removes what a dead process left.
    """

    prepare: Callable[[Path], Any]
    write: Callable[[Path], Any]
    read: Callable[[Path], dict[str, Any]]
    cleans: bool = False


@dataclass
class Tally:
    """How many calls went wrong, and how it ended."""

    faults: int = 0
    ended: dict[str, int] = field(default_factory=dict)


def fail_each_call(writer: Writer, folder: Path, kind: str, most: int = 10_000) -> Tally:
    """Lets each call of a writer go wrong in turn; whatever happens, a reader finds old or new.

    Args:
        writer: what writes.
        folder: an empty one, or none yet.
        kind: one of `KINDS`.
        most: of so many calls; of more every second, third ... is taken.
    """
    old_folder, new_folder = folder / "old", folder / "new"
    for made in (old_folder, new_folder):
        made.mkdir(parents=True)
        with Disk().in_use():
            writer.prepare(made)
    with Disk().in_use() as counting:
        writer.write(new_folder)
    old, new = writer.read(old_folder), writer.read(new_folder)
    assert old.keys() == new.keys() and old != new
    allowed = names(old_folder) | names(new_folder)
    tally = Tally()
    calls = len(counting.calls)
    for number in reversed(range(0, calls, math.ceil(calls / most))):
        place = folder / f"{number}"
        shutil.copytree(old_folder, place)
        disk = Disk(number, kind)
        with disk.in_use():
            ended = _ended(writer, place)
        assert disk.failed
        where = f"{kind}: call {number} ({disk.calls[number]}): {ended}"
        found = writer.read(place)
        for part, content in found.items():
            assert content in (old[part], new[part]), f"{where}: {part} is neither old nor new"
        if ended == "done":
            assert found == new, f"{where}, but not all is written"
        if ended == "refused" and len(found) == 1:
            assert found == old, f"{where}, but the old content is gone"
        if ended != "dead":
            assert names(place) <= allowed, f"{where}: left {names(place) - allowed}"
        with Disk().in_use():
            writer.write(place)
        assert writer.read(place) == new, f"{where}: the next writing went wrong"
        assert not writer.cleans or names(place) <= allowed, f"{where}: never removed {names(place) - allowed}"
        shutil.rmtree(place)
        tally.faults += 1
        tally.ended[ended] = tally.ended.get(ended, 0) + 1
    return tally


def names(folder: Path) -> set[str]:
    """All that is in a folder, at any depth."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def _ended(writer: Writer, place: Path) -> str:
    try:
        writer.write(place)
    except Died:
        return "dead"
    except OutputError as error:
        assert 1 <= len(str(error).splitlines()) <= 3
        return "refused"
    return "done"
