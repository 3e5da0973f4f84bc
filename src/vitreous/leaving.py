"""How a process leaves the others that it worked with."""

from __future__ import annotations

import time
from contextlib import suppress

import torch.distributed as dist

_SETTLING = 0.2
"""Seconds that gloo's threads get to let go of the last exchange. They need Python's lock for it, and whoever ends the
group holds that lock and waits for them: without a pause about one run in five hung for ever (torch 2.13)."""


def leave_group() -> None:
    """Closes the connections to the other processes, once: who waits for this one ends."""
    if dist.is_initialized():
        time.sleep(_SETTLING)
        with suppress(RuntimeError):  # of who is gone
            dist.destroy_process_group()
