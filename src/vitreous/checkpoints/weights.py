"""Whether weights fit an architecture, and the identity of weights in a file or in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from vitreous.checkpoints.containers.contract import Shapes, shown_name
from vitreous.errors import CheckpointError

_SHOWN = 10


def check_fit(model: nn.Module, have: Shapes, path: Path) -> None:
    """Nothing, if the tensors are those of the model, name by name and shape by shape.

    Raises:
        CheckpointError: if not; up to ten differences are listed.
    """
    want = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    differences = [f"{name} is missing, want {want[name]}" for name in want if name not in have]
    differences += [f"{shown_name(name)} {have[name]} is unexpected" for name in have if name not in want]
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


def hash_of_hashes(hashes: Sequence[str]) -> str:
    """Identity of several files: "sha256:" and the digest of theirs, in this order."""
    return f"sha256:{hashlib.sha256(' '.join(hashes).encode()).hexdigest()}"


def hash_weights(model: nn.Module) -> str:
    """Identity of weights in memory: names, shapes, types and bytes, in the order of the state dict."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            continue
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"weights-sha256:{digest.hexdigest()}"
