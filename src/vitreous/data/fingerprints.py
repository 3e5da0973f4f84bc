"""Which numbers these are, in 64 letters: to tell the same weights or images from others."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn


def hash_tensor(tensor: Tensor) -> str:
    """SHA-256 of a tensor's type, shape and values."""
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
    digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_weights(model: nn.Module) -> str:
    """SHA-256 of all parameters and buffers, with their names."""
    digest = hashlib.sha256()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        digest.update(f"{name} {hash_tensor(tensor)} ".encode())
    return digest.hexdigest()
