"""Weights that cannot be meant: not finite, or nothing but zeros where a model would then do nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vitreous.checkpoints.loaded import Decision
from vitreous.errors import CheckpointError

_SHOWN = 3
_NEEDED = re.compile(r"patch_embed\.proj\.weight|blocks\.\d+\.(attn|mlp)\.(qkv|proj|fc1|fc2)\.weight")


def odd_numbers(weights: Mapping[str, Tensor], path: Path, *, strict: bool) -> tuple[Decision, ...]:
    """What the user must know of the numbers themselves, as guesses: that these weights are meant.

    Args:
        weights: by our names.
        path: of the file, for the message.
        strict: whether to refuse weights that are not finite.

    Raises:
        CheckpointError: if strict, and a number is NaN or infinite.
    """
    spoilt, empty = [], []
    for name, weight in weights.items():
        if not weight.numel():
            continue
        low, high = torch.aminmax(weight)
        if not (torch.isfinite(low) and torch.isfinite(high)):
            spoilt.append(f"{name} has {int((~torch.isfinite(weight)).sum())} of {weight.numel()}")
        elif not (low or high) and _NEEDED.fullmatch(name):
            empty.append(name)
    if spoilt and strict:
        raise CheckpointError(
            f"{path} has weights that are NaN or infinite: {_listed(spoilt)}\n"
            "take an earlier checkpoint; without strict they are loaded as they are"
        )
    notes = []
    if spoilt:
        notes.append(
            Decision("not finite", _listed(spoilt), "NaN or infinite as float32, kept as they are", guessed=True)
        )
    if (head := weights.get("head.weight")) is not None and not head.any():
        notes.append(Decision("head", "all zero", "as before the first step of training: all classes are alike"))
    if empty:
        notes.append(Decision("all zero", _listed(empty), "zeros in the file, kept as they are", guessed=True))
    return tuple(notes)


def _listed(names: list[str]) -> str:
    return "; ".join(names[:_SHOWN]) + (f"; and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
