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


def check_fit(model: nn.Module, have: Shapes, path: Path, *, asked: str = "", has_config: bool = True) -> None:
    """Nothing, if the tensors are those of the model, name by name and shape by shape.

    Args:
        model: the architecture.
        have: what the file's tensors make.
        path: of the file, for the message.
        asked: what the user asked for, which is then to blame.
        has_config: whether a config.json says what the architecture is.

    Raises:
        CheckpointError: if not; up to ten differences are listed.
    """
    listed = misfit(model, have)
    if not listed:
        return
    said, remedy = "what its own names say", "copy or download it again"
    if has_config:
        said = "the architecture that config.json describes"
        remedy = "use the config.json that was saved with these weights"
    if asked:
        said, remedy = f"what was asked for ({asked})", "ask for what the tensors have"
    raise CheckpointError(f"{path} does not fit {said}\n{listed}\n{remedy}")


def misfit(model: nn.Module, have: Shapes) -> str:
    """How tensors differ from a model's, up to ten differences in one line; empty where they do not."""
    want = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    differences = [f"{name} is missing, want {want[name]}" for name in want if name not in have]
    differences += [f"{shown_name(name)} {have[name]} is unexpected" for name in have if name not in want]
    differences += [
        f"{name} has {have[name]}, want {want[name]}" for name in want if name in have and have[name] != want[name]
    ]
    more = len(differences) - _SHOWN
    return "; ".join(differences[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


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
