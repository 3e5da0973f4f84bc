"""Which weights decay, what learns, and how fast at each step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from vitreous.model.first_weights import TOKENS_AND_POSITIONS
from vitreous.training.config import Optim


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """A model's weights in two groups: matrices and convolutions, which decay, and all others, which do not.

    The others are biases, norms, scales, tokens and positions: none of them multiplies many inputs.
    """
    decayed: list[Tensor] = []
    kept: list[Tensor] = []
    for name, weight in model.named_parameters():
        is_kept = weight.ndim < 2 or name.rsplit(".", 1)[-1] in TOKENS_AND_POSITIONS
        (kept if is_kept else decayed).append(weight)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]


def make_optimizer(model: nn.Module, settings: Optim) -> torch.optim.Optimizer:
    """The optimizer of that name, over `parameter_groups`. The learning rate is set at each step."""
    groups = parameter_groups(model, settings.weight_decay)
    rate = settings.learning_rate
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=settings.betas, fused=True)
    if settings.name == "adam":
        return torch.optim.Adam(groups, lr=rate, betas=settings.betas, fused=True)
    return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, fused=True)


def learning_rate(step: int, steps: int, settings: Optim) -> float:
    """The learning rate of one step: up in a straight line, then down by the schedule.

    With `warmup` w and highest rate r: r (step + 1) / w before step w; afterwards, p being the share of the
    remaining steps that is done, r (1 + cos(pi p)) / 2, r (1 - p), or r.

    Args:
        step: from 0.
        steps: in the whole run.
        settings: the highest rate, the warm-up and the schedule.
    """
    highest, warmup = settings.learning_rate, settings.warmup
    if step < warmup:
        return highest * (step + 1) / warmup
    done = (step - warmup) / max(steps - warmup, 1)
    if settings.schedule == "cosine":
        return highest * (1 + math.cos(math.pi * done)) / 2
    if settings.schedule == "linear":
        return highest * (1 - done)
    return highest
