"""Being asked to stop: Ctrl-C and SIGTERM end the work in the same orderly way."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
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

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
