"""Files that are either whole or not there: written beside their place, flushed to disk, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vitreous.errors import OutputError


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
        path.parent.mkdir(parents=True, exist_ok=True)
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
            with suppress(OSError):
                filling.unlink(missing_ok=True)


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
        target.parent.mkdir(parents=True, exist_ok=True)
        filling = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    except OSError as cause:
        raise _refusal(folder, cause) from cause
    try:
        yield filling
        filling.chmod(0o777 & ~_umask())
        for file in filling.iterdir():
            file.chmod(0o666 & ~_umask())  # safetensors makes its files private; results are as shared as any other
            _flush_file(file)
        _take_place(filling, target)
        _flush_folder(target.parent)
    except OSError as cause:
        raise _refusal(folder, cause) from cause
    finally:
        shutil.rmtree(filling, ignore_errors=True)


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
    """Moves a filled folder to its place; a folder there moves aside first and back again if that fails."""
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
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    try:
        target.rename(aside / "old")
        try:
            filling.rename(target)
        except OSError:
            (aside / "old").rename(target)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


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
    return OutputError(f"{path} cannot be written: {reason}; choose another place, or make room there")
