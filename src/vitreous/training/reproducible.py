"""The same bits from the same seed: torch told so for a while, and put back as it was."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def reproducible(threads: int) -> Iterator[None]:
    """Inside, torch computes with this many threads and refuses operations whose result varies.

    Threads, the choice of operations and torch's own random numbers are afterwards as they were before.
    """
    threads_before = torch.get_num_threads()
    strict_before = torch.get_deterministic_debug_mode()
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it older versions refuse any product on a GPU
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms would import torch's whole compiler
    try:
        with torch.random.fork_rng(devices=[]):  # dropout draws from torch's own, seeded at each step
            yield
    finally:
        torch.set_deterministic_debug_mode(strict_before)
        torch.set_num_threads(threads_before)
