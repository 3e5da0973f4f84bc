"""Files that are either whole or not there: written beside their place, flushed to disk, then renamed."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vitreous.errors import OutputError

_UNFINISHED = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}\.(tmp|old)", re.DOTALL)
"""Names that tempfile makes with our beginnings and ends."""

_RENAME_EXCHANGE = 2
_HERE = -100  # paths count from the current folder


def write_atomically(path: Path, data: bytes | str) -> None:
    """Puts `data` at `path`, whole or not at all; text is written as UTF-8, missing parent folders are made.

    Raises:
        OutputError: if the file cannot be written; what stood at `path` before is untouched.
    """
    with file_written_atomically(path) as filling:
        filling.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def file_written_atomically(path: Path) -> Iterator[Path]:
    """An empty file to fill, which takes the place of `path` when the block ends without an error.

    Missing parent folders are made.

    Raises:
        OutputError: if the file cannot be written; what stood at `path` before is untouched.
    """
    filling: Path | None = None
    path = _place(path)
    try:
        make_folder(path.parent)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        filling = Path(name)
        os.close(descriptor)
        yield filling
        _flush_file(filling)
        filling.chmod(0o666 & ~_umask())  # mkstemp makes files private; results are as shared as any other
        filling.replace(path)
        filling = None
        _flush_folder(path.parent)
    except OSError as cause:
        raise _refusal(path, cause) from cause
    finally:  # also where Ctrl-C fell in between
        if filling is not None:
            _remove(filling)


@contextmanager
def folder_written_atomically(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of `folder` when the block ends without an error.

    What stood at `folder` before is replaced as a whole, or, when the block fails, left as it was. A folder
    with files that the block did not write again is refused, because replacing it would delete them.

    Raises:
        OutputError: if the folder cannot be written, is a file, or has other files in it.
    """
    target = folder.absolute()
    try:
        make_folder(target.parent)
        filling = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    except OSError as cause:
        raise _refusal(folder, cause) from cause
    try:
        yield filling
        filling.chmod(0o777 & ~_umask())
        for file in filling.iterdir():
            file.chmod(0o666 & ~_umask())  # safetensors makes its files private; results are as shared as any other
            _flush_file(file)
        _flush_folder(filling)
        _take_place(filling, target)
        _flush_folder(target.parent)
    except OSError as cause:
        raise _refusal(folder, cause) from cause
    finally:
        _remove(filling)  # what was made, if it failed; what stood there before, if it did not


def remove_unfinished(folder: Path) -> None:
    """Removes what killed processes left half written in a folder that only this process writes to.

    What a killed process had moved aside and not yet replaced is put back.
    """
    for left in folder.glob(".*"):
        found = _UNFINISHED.fullmatch(left.name)
        if not found:
            continue
        moved_aside, place = left / "old", folder / found["name"]
        if moved_aside.exists() and not place.exists():
            moved_aside.rename(place)
        _remove(left)


def make_folder(folder: Path) -> None:
    """Makes the folder and those above it, each so that it survives a power cut."""
    if not folder.exists():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _flush_folder(folder.parent)


def check_writable(path: Path) -> None:
    """Nothing, if a file could be made at `path` now; made and removed again to find out.

    Raises:
        OutputError: if it could not, with the cause.
    """
    path = _place(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(None, "is a folder, a file was asked for")
        folder = path.parent
        while not os.path.lexists(folder):  # folders are made when there is something to put into them
            folder = folder.parent
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as cause:
        raise _refusal(path, cause) from cause


def _place(path: Path) -> Path:
    """Where a path leads: links are followed, and a device or pipe is refused, because a file would replace it."""
    place = Path(os.path.realpath(path))
    if place.exists() and not place.is_file() and not place.is_dir():
        raise OutputError(f"{path} is a device or a pipe, a file was to be written there; choose another name")
    return place


def _take_place(filling: Path, target: Path) -> None:
    """Moves a filled folder to its place; a folder there takes the other's, or, on old systems, is removed."""
    if not target.exists():
        filling.rename(target)
        return
    if not target.is_dir():
        raise OutputError(f"{target} is a file, a folder was to be written there; choose another name")
    others = sorted({entry.name for entry in target.iterdir()} - {entry.name for entry in filling.iterdir()})
    if others:
        raise OutputError(
            f"{target} has other files in it ({', '.join(others[:3])}), "
            "and saving would replace the whole folder; choose an empty or a new folder"
        )
    if not _exchange(filling, target):
        _replace_in_two_steps(filling, target)


def _exchange(one: Path, other: Path) -> bool:
    """Two folders change names in one step, so that there is no moment without either; False where that is not known.

    Source: renameat2(2) of Linux, renamex_np(2) of macOS.
    """
    try:
        system = ctypes.CDLL(None, use_errno=True)
        names = os.fsencode(one), os.fsencode(other)
        if sys.platform == "darwin":
            failed = system.renamex_np(*names, _RENAME_EXCHANGE)
        else:
            failed = system.renameat2(_HERE, names[0], _HERE, names[1], _RENAME_EXCHANGE)
    except (AttributeError, OSError, TypeError):  # no such function; no such library on Windows
        return False
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):  # a file system that cannot
        return False
    raise OSError(number, os.strerror(number), str(other))


def _replace_in_two_steps(filling: Path, target: Path) -> None:
    """Moves the folder at `target` aside, and back again if the other cannot take its place."""
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    try:
        target.rename(aside / "old")
        try:
            filling.rename(target)
        except OSError:
            (aside / "old").rename(target)
            raise
    finally:
        if not (aside / "old").exists() or target.exists():
            _remove(aside)


def _remove(left: Path) -> None:
    """Removes a file or a folder as well as it goes; an error that passes is tried once more."""
    for _ in range(2):
        with suppress(OSError):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink(missing_ok=True)
            return


def _flush_file(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Makes a rename survive a power cut, where the system can flush folders at all."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _refusal(path: Path, cause: OSError) -> OutputError:
    reason = cause.strerror or str(cause)
    if cause.errno in (errno.ENOSPC, errno.EDQUOT):
        with suppress(OSError):
            reason += f" ({shutil.disk_usage(path.parent).free:,} bytes are free)"
    if cause.errno == errno.EFBIG:
        return OutputError(
            f"{path} cannot be written: {reason}, larger than a file may be here, whatever is free\n"
            "raise the limit (`ulimit -f`), or choose another file system: FAT, for one, ends at 4 GiB"
        )
    return OutputError(f"{path} cannot be written: {reason}; choose another place, or make room there")
