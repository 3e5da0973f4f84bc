"""Several processes that share one run: which of them this is, where it computes, and what all of them saw."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from vitreous.errors import ConfigError, WorkerError
from vitreous.leaving import leave_group

PATIENCE = timedelta(minutes=30)
"""How long a process that is done waits for the others; one that fails is noticed at once."""


@contextmanager
def joined_ranks() -> Iterator[int]:
    """Inside, the processes that torchrun started know each other; nothing happens in a process that is alone.

    Yields:
        Which process this is, from 0.

    Raises:
        WorkerError: if the others cannot be reached.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield rank_and_world()[0]
        return
    try:
        dist.init_process_group("gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as cause:
        raise WorkerError(f"the other processes of this run cannot be reached: {_first_line(cause)}") from cause
    try:
        yield dist.get_rank()
    finally:
        leave_group()


def rank_and_world() -> tuple[int, int]:
    """Which process this is, from 0, and how many there are."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def device_of_this_process(wanted: str) -> torch.device:
    """Where a process computes; of several on one machine each takes a GPU of its own.

    Args:
        wanted: "auto" is a GPU where there is one, else the CPU; or a name that torch knows, such as "cuda:1".

    Raises:
        ConfigError: if there is no such device.
    """
    own_gpu = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    name = (own_gpu if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted
    try:
        return torch.zeros(0, device=name).device
    except (RuntimeError, AssertionError, ValueError) as cause:
        raise ConfigError(f"device {wanted!r} cannot be used: {_first_line(cause)}; choose auto or cpu") from cause


def gather_bytes(content: bytes) -> list[bytes]:
    """What every process gave, in their order; the same on all of them.

    Raises:
        WorkerError: if one of them was lost.
    """
    _, world = rank_and_world()
    if world == 1:
        return [content]
    gathered: list[bytes | None] = [None] * world
    try:
        dist.all_gather_object(gathered, content)
    except RuntimeError as cause:
        raise WorkerError(f"another process of this run was lost: {_first_line(cause)}") from cause
    return [part for part in gathered if part is not None]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
