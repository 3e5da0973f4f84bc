"""Being asked to stop: Ctrl-C and SIGTERM end the work in the same orderly way."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

AT_ONCE = 2.0
"""Seconds in which another signal is taken for an echo of the first: torchrun passes on what its processes got, too."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came; handled where Ctrl-C is."""


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Inside, SIGINT raises KeyboardInterrupt and SIGTERM raises Terminated, so that what was done can be saved.

    A second signal stops the saving, unless it comes within two seconds. Threads other than the main one get no
    signals: there nothing changes.
    """
    last = -math.inf

    def stop(number: int, frame: object) -> None:
        nonlocal last
        if time.monotonic() - last < AT_ONCE:
            return
        last = time.monotonic()
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated

    with _handled_by(stop):
        yield


class Stop:
    """Whether somebody asked the work to stop; looked at where it can.

    Attributes:
        signal: the first that came, None before.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def asked(self) -> bool:
        """Whether it is time to save and go."""
        return self.signal is not None

    def interrupt(self, message: str) -> KeyboardInterrupt:
        """What to raise when everything is saved: Terminated for SIGTERM, and KeyboardInterrupt for SIGINT and none."""
        return Terminated(message) if self.signal == signal.SIGTERM else KeyboardInterrupt(message)


@contextmanager
def stop_when_ready() -> Iterator[Stop]:
    """Inside, the first SIGINT or SIGTERM interrupts nothing but is noted, so that a step can be finished and saved.

    A second signal raises KeyboardInterrupt or Terminated at once, unless it comes within two seconds. SIGHUP is not
    heard: the work goes on where the terminal went away. Threads other than the main one get no signals: there nothing
    is ever asked.

    Yields:
        What to look at between two steps.
    """
    stop = Stop()
    last = -math.inf

    def note(number: int, frame: object) -> None:
        nonlocal last
        echo = time.monotonic() - last < AT_ONCE
        last = time.monotonic()
        if stop.signal is None:
            stop.signal = number
        elif not echo:
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated

    with _handled_by(note), _handled_by(signal.SIG_IGN, ("SIGHUP",)):
        yield stop


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Inside, SIGINT and SIGTERM end the process at once, as if it had never heard of them.

    For work that waits outside of Python, where no handler is called, and that has nothing to save. Threads other than
    the main one get no signals: there nothing changes.
    """
    with _handled_by(signal.SIG_DFL):
        yield


@contextmanager
def _handled_by(
    handler: Callable[[int, object], None] | signal.Handlers, names: Sequence[str] = ("SIGINT", "SIGTERM")
) -> Iterator[None]:
    """Inside, these signals, where the system has them, call this; outside of the main thread nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
