"""One trainer a folder: who holds its lock, and whether that one still lives."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vitreous.atomic import make_folder
from vitreous.data.images import shown
from vitreous.errors import OutputError
from vitreous.training.processes import Process, is_here, runs, this_process

try:
    import fcntl
except ImportError:  # Windows: the number in the file decides
    fcntl = None  # type: ignore[assignment]

LOCK = "run.lock"


@contextmanager
def locked_run(folder: Path) -> Iterator[None]:
    """Inside, no other process can train in this folder, which is made if there is none, and goes if it stays empty.

    The system itself lets go of the lock when its holder ends, however it ends, so that a killed run can go on at
    once; workers that it leaves behind hold nothing. Where a file system knows no locks, the process that the file
    names is looked for.

    Raises:
        OutputError: if another process trains there, with its number and machine, or if the folder cannot be written.
    """
    path = folder / LOCK
    made = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    try:
        make_folder(folder)
        descriptor = _take(path)
    except OSError as cause:
        raise OutputError(f"{shown(path)} cannot be written: {cause.strerror}; choose another place") from cause
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # before it is let go, so that nobody holds a file that is gone
        os.close(descriptor)
        with suppress(OSError):  # the first that is not empty
            for place in made:
                place.rmdir()


def _take(path: Path) -> int:
    """The open lock file with our name in it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            holder = _holder(descriptor)
            if not _is_free(descriptor, holder):
                raise OutputError(
                    f"{shown(path.parent)} is being trained in by {_named(holder)}\n"
                    f"wait for it, stop it, or choose another folder; if it is over, delete {LOCK}"
                )
            if _is_still_there(path, descriptor):  # its last holder may have removed it after we opened it
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(asdict(this_process())).encode(), 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_free(descriptor: int, holder: Process | None) -> bool:
    """Whether nobody else holds it; afterwards we do."""
    me = this_process()
    if holder == me:  # another thread: the system gives a lock to the whole process
        return False
    if fcntl is not None:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, not shared with forked workers
        except (BlockingIOError, PermissionError):
            return False
        except OSError:
            pass  # a file system without locks
        else:  # the lock goes when any thread of its holder closes the file, and so the one it names is looked for, too
            return holder is None or not (is_here(holder) and runs(holder))
    if holder is None:
        return True
    if holder.host != me.host:
        return False  # nobody here can tell
    return not (is_here(holder) and runs(holder))


def _is_still_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _holder(descriptor: int) -> Process | None:
    """Who wrote the file last; None if it is empty, or was cut."""
    try:
        content: Any = json.loads(os.pread(descriptor, 4096, 0))
        return Process(int(content["pid"]), str(content["host"]), str(content["boot"]), str(content["started"]))
    except (ValueError, KeyError, TypeError):
        return None


def _named(holder: Process | None) -> str:
    return "another process" if holder is None else f"process {holder.pid} on {shown(holder.host)}"
