"""Other libraries' models: imported when asked for, made with a fixed seed when random."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
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
    let_torchvision_import()
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


@cache
def let_torchvision_import() -> torch.library.Library | None:
    """Declares two of torchvision's operators where its compiled part was built for another torch; else does nothing.

    A torchvision for CUDA beside a torch for CPU cannot load its extension, and then fails to import, and timm with it,
    because it describes operators that are not there. Models need neither of them.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return None
    for extension in Path(found.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(str(extension))
            return None
        except (OSError, RuntimeError):
            continue
    library = torch.library.Library("torchvision", "DEF")  # definitions live as long as it does: the cache keeps it
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


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
