"""Processes as the operating system sees them: which one this is, and whether another one still runs."""

from __future__ import annotations

import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_STATE, _STARTED, _EXIT = 0, 19, 49  # fields of /proc/PID/stat behind the name; see proc(5)


@dataclass(frozen=True)
class Process:
    """One process of one machine; its number is used again after its end, its number and start are not.

    Attributes:
        pid: its number.
        host: its machine's name.
        boot: which start of that machine, "" where that cannot be told.
        started: clock ticks from that start to the process's own, "" where that cannot be told.
    """

    pid: int
    host: str
    boot: str
    started: str


def this_process() -> Process:
    """The one that asks."""
    fields = _fields(os.getpid())
    return Process(os.getpid(), socket.gethostname(), _boot(), fields[_STARTED] if fields else "")


def is_here(process: Process) -> bool:
    """Whether it ran on this machine, since this start of it."""
    return process.host == socket.gethostname() and process.boot == _boot()


def runs(process: Process) -> bool:
    """Whether a process of this machine still runs."""
    fields = _fields(process.pid)
    if fields:
        return fields[_STARTED] == process.started and fields[_STATE] not in "ZX"
    if not _BOOT.exists():  # no Linux: a signal that does nothing asks
        try:
            os.kill(process.pid, 0)
        except OSError as cause:
            return isinstance(cause, PermissionError)
        return True
    return False


def how_it_ended(process: Process) -> str:
    """How a process of this machine ended, as the rest of a sentence; "" if it runs, or ran elsewhere."""
    if not is_here(process):
        return ""
    named = f"(process {process.pid})"
    fields = _fields(process.pid)
    if fields and fields[_STARTED] == process.started:
        if fields[_STATE] in "Tt":
            return f"{named} is stopped and does not answer"
        if fields[_STATE] not in "ZX":
            return ""
        status = int(fields[_EXIT])  # as wait gives it: the signal in the low bits, the exit code above them
        number = status & 0x7F
        return f"{named} was ended by {signal.Signals(number).name}" if number else f"{named} ended with {status >> 8}"
    return "" if runs(process) else f"{named} is gone"


def _fields(pid: int) -> list[str]:
    """Of /proc/PID/stat, from the state on; none if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _boot() -> str:
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return ""
