"""The same bits from the same seed: torch told so for a while, and put back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def reproducible(threads: int) -> Iterator[None]:
    """Inside, torch computes with this many threads and refuses operations whose result varies.

    Threads, the choice of operations and torch's own random numbers are afterwards as they were before.
    """
    threads_before = torch.get_num_threads()
    strict_before = torch.are_deterministic_algorithms_enabled()
    warns_before = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]):  # dropout draws from torch's own, seeded at each step
            yield
    finally:
        torch.use_deterministic_algorithms(strict_before, warn_only=warns_before)
        torch.set_num_threads(threads_before)
