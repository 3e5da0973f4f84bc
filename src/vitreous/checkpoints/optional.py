"""Other libraries' models: imported when asked for, made with a fixed seed when random."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch

from vitreous.errors import ConfigError

RANDOM_SEED = 0
"""Seed of the weights of `NAME@random`."""


def import_optional(name: str) -> ModuleType:
    """A package that vitreous works with but does not need.

    Raises:
        ConfigError: if it is not installed, or does not import beside this torch.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as cause:
        if cause.name != name:
            raise ConfigError(f"{name} needs {cause.name}, which is missing: pip install {cause.name}") from cause
        raise ConfigError(f"{name} is not installed: pip install {name}") from cause
    except (ImportError, RuntimeError) as cause:
        raise ConfigError(
            f"{name} is installed, but does not import: {first_line(cause)}\n"
            f"install the versions of {name}, torchvision and torch {torch.__version__} that belong together"
        ) from cause


@contextmanager
def fixed_draws() -> Iterator[None]:
    """Inside, CPU weights are drawn from a fixed seed; afterwards the caller's draws go on as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(RANDOM_SEED)
        yield


def first_line(cause: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    lines = str(cause).strip().splitlines()
    return lines[0] if lines else type(cause).__name__
