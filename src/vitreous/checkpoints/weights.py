"""Tensors in a safetensors file, which may come from anywhere: sizes are checked before memory is taken."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vitreous.errors import CheckpointError, InputError

Shapes = dict[str, tuple[int, ...]]

_FLOATS = ("F64", "F32", "F16", "BF16")
_SHOWN = 10


def check_file(path: Path) -> None:
    """Nothing, if `path` is a file with something in it.

    Raises:
        InputError: if it is missing, empty, no regular file (a folder, a pipe, a device), or cannot be read.
    """
    try:
        status = path.stat()
    except FileNotFoundError as cause:
        raise InputError(f"{path} does not exist; check the path") from cause
    except OSError as cause:
        raise InputError(f"{path} cannot be read: {cause.strerror}; check its permissions") from cause
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is not a regular file; give the path of a file")
    if not status.st_size:
        raise InputError(f"{path} is empty; copy or download it again")


def read_shapes(path: Path) -> Shapes:
    """Name and shape of each tensor in a file, without reading one.

    Raises:
        InputError: if the file is missing, empty, or not a regular one.
        CheckpointError: if it is not a whole safetensors file, or holds other than floating-point numbers.
    """
    check_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 -- not a dict
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
            kinds = {name: part.get_dtype() for name, part in slices.items()}
    except (SafetensorError, OSError) as cause:
        raise CheckpointError(
            f"{path} is not a whole safetensors file: {cause}\n"
            "copy or download it again; pickles (.bin, .pt, .pth) are never opened, because they can run code"
        ) from cause
    for name, kind in kinds.items():
        if kind not in _FLOATS:
            raise CheckpointError(f"{path}: {name} holds {kind}; weights are one of {', '.join(_FLOATS)}")
    return shapes


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a file that `read_shapes` accepted, as float32 copies that no longer need it."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name).to(torch.float32, copy=True) for name in file.keys()}  # noqa: SIM118


def check_fit(model: nn.Module, have: Shapes, path: Path) -> None:
    """Nothing, if the tensors are those of the model, name by name and shape by shape.

    Raises:
        CheckpointError: if not; up to ten differences are listed.
    """
    want = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    differences = [f"{name} is missing, want {want[name]}" for name in want if name not in have]
    differences += [f"{name} {have[name]} is unexpected" for name in have if name not in want]
    differences += [
        f"{name} has {have[name]}, want {want[name]}" for name in want if name in have and have[name] != want[name]
    ]
    if not differences:
        return
    more = len(differences) - _SHOWN
    listed = "; ".join(differences[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
    raise CheckpointError(
        f"{path} does not fit the architecture that config.json describes\n{listed}\n"
        "use the config.json that was saved with these weights"
    )


def hash_file(path: Path) -> str:
    """Identity of a file: "sha256:" and the digest of its bytes."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def hash_weights(model: nn.Module) -> str:
    """Identity of weights in memory: names, shapes, types and bytes, in the order of the state dict."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            continue
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"weights-sha256:{digest.hexdigest()}"
