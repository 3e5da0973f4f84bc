"""What a tensor file of any container is read as, and what may be in one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vitreous.data.images import shown

Shapes = dict[str, tuple[int, ...]]
Container = Literal["safetensors", "npz", "torch", "torchscript"]
Read = Callable[[str], Tensor]

DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, name)
    for name in (
        *("float64", "float32", "float16", "bfloat16"),
        *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
        *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool"),
        *("complex64", "complex128"),
    )
}
"""Every type of number that is read, under PyTorch's name."""

LARGEST_NAME = 512
"""Characters of a tensor's name; the longest of a known model has under 120."""

MOST_TENSORS = 8_192
"""Tensors in a file; a model of 40 blocks has about 800, five times as many with an average and an optimizer."""

MOST_AXES = 16

_SHOWN = 80


@dataclass(frozen=True)
class TensorFile:
    """A file of tensors, open: what is in it is known and fits the file's size, and no tensor is in memory yet.

    Attributes:
        path: of the file, or of the index of several.
        container: what it is, by its content.
        shapes: of each tensor. Nested dictionaries are flattened with dots; names in an npz file keep their slashes.
        dtypes: of each tensor, a key of `DTYPES`.
        extras: short plain values beside the tensors, flattened likewise; of a safetensors file its metadata.
        read: one tensor in memory of its own, in the file's type. Where the container has checksums they are checked.
            Raises CheckpointError if the file is damaged there, MemoryLimitError if there is no room for it.
    """

    path: Path
    container: Container
    shapes: Shapes
    dtypes: dict[str, str]
    extras: dict[str, Any]
    read: Read


def why_not_a_name(name: str) -> str | None:
    """What is wrong with a tensor's name, or None. Names are never used as paths; one that looks so is an attempt."""
    if not name:
        return "a tensor without a name"
    if len(name) > LARGEST_NAME:
        return f"a name of {len(name):,} characters; {LARGEST_NAME} are the most"
    if not name.isprintable():
        return f"the name {shown_name(name)}, which cannot be printed"
    if "\\" in name or name.startswith("/") or ".." in name.split("/"):
        return f"the name {shown_name(name)}, which leads out of a folder"
    return None


def shown_name(name: str) -> str:
    """A name from a file, safe on a terminal: one line, at most 80 characters of it."""
    return shown(name[:_SHOWN]) + ("..." if len(name) > _SHOWN else "")
