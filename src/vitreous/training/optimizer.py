"""Which weights decay, which of them learn slower, what learns, and how fast at each step."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from vitreous.model.first_weights import TOKENS_AND_POSITIONS
from vitreous.training.config import Optim

FACTOR = "rate_factor"
"""Of a group of weights: what the learning rate of the step is multiplied by."""

_BLOCK = re.compile(r"(?:model\.)?blocks\.(\d+)\.")  # `model.` where a task trains weights beside the model
_HIDDEN = re.compile(r"(?:model\.)?(?:blocks\.\d+|patch_embed\.backbone\.stages\.\d+)\.")
_TABLE = re.compile(r"(?:model\.)?layer_positions\.(\d+)\.")
_BEFORE_BLOCKS = re.compile(r"(?:model\.)?(?:patch_embed|norm_pre)\.")


def parameter_groups(model: nn.Module, settings: Optim) -> list[dict[str, Any]]:
    """A model's weights in groups: matrices and convolutions, which decay, and all others, which do not.

    The others are biases, norms, scales, tokens and positions: none of them multiplies many inputs. With a layer decay
    below 1 each layer has two groups of its own, those before the blocks first, the last norm and the head last.

    Source of the layers and of their factors, `layer_decay` to the power of layers above: BEiT's `optim_factory.py`.
    timm counts the last norm with the last block, not with the head.
    """
    return _groups(list(model.named_parameters()), _blocks(model) + 1, settings)


def make_optimizers(model: nn.Module, settings: Optim) -> list[torch.optim.Optimizer]:
    """The optimizer of that name over `parameter_groups`, its learning rate to be set at each step.

    Muon's is followed by an adamw for all that is no matrix of a block and no convolution of a ResNet's stage.
    """
    rate, betas, momentum = settings.learning_rate, settings.betas, settings.momentum
    if settings.name == "muon":
        return _muon(model, settings)
    groups = parameter_groups(model, settings)
    if settings.name == "adamw":
        return [torch.optim.AdamW(groups, lr=rate, betas=betas, fused=True)]
    if settings.name == "adam":
        return [torch.optim.Adam(groups, lr=rate, betas=betas, fused=True)]
    if settings.momentum_precision == "bfloat16":
        return [RoundedSGD(groups, rate, momentum)]
    has_shares = any(hasattr(weight, "full_tensor") for weight in model.parameters())  # torch's fused SGD knows none
    return [torch.optim.SGD(groups, lr=rate, momentum=momentum, fused=not has_shares)]


def set_learning_rate(optimizers: Iterable[torch.optim.Optimizer], rate: float) -> None:
    """Gives each group of weights this rate times its factor."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group[FACTOR]


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


class WithMomentum(torch.optim.Optimizer, ABC):
    """What follows the momentum of each weight, kept in a tensor of its own."""

    def __init__(self, params: Iterable[dict[str, Any]], lr: float, momentum: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step; nothing is evaluated again, and so there is no closure."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, self.state[weight], group)

    @abstractmethod
    def _move(self, weight: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        """Moves one weight and its momentum, which `state` has after the first step, in place."""


class RoundedSGD(WithMomentum):
    """Gradient descent whose momentum is kept in bfloat16: half the memory, as in the paper's fine-tuning.

    m <- momentum m + g, in float32;  w <- w - rate m;  m is rounded afterwards, for the next step only.

    Source: google-research/vision_transformer, optax.sgd with `accumulator_dtype="bfloat16"`.
    """

    def _move(self, weight: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        moved = gradient.add(weight, alpha=group["weight_decay"])
        if _MOMENTUM in state:
            moved = moved.add(state[_MOMENTUM].to(moved.dtype), alpha=group["momentum"])
        state[_MOMENTUM] = moved.bfloat16()
        weight.add_(moved, alpha=-group["lr"])


class Muon(WithMomentum):
    """Steps along the orthogonal part of the momentum: all its singular values are nearly 1.

    m <- b m + (1 - b) g;  w <- (1 - rate decay) w - 0.2 rate sqrt(max(rows, columns)) orthogonal(b m + (1 - b) g)

    torch's own refuses convolutions; here each kernel is a row of a matrix. On matrices they agree to the bit.

    Source: Jordan et al. 2024; the factor 0.2 sqrt(...), which makes steps as long as AdamW's: arXiv 2502.16982,
    section 2.2.
    """

    def _move(self, weight: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        if _MOMENTUM not in state:
            state[_MOMENTUM] = torch.zeros_like(gradient)
        state[_MOMENTUM].lerp_(gradient, 1 - group["momentum"])
        direction = _orthogonal(gradient.lerp(state[_MOMENTUM], group["momentum"]).flatten(1))
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(direction.view_as(weight), alpha=-group["lr"] * (0.2 * math.sqrt(max(direction.shape))))


_MOMENTUM = "momentum_buffer"


def _orthogonal(matrix: Tensor) -> Tensor:
    """Five steps of X <- a X + (b A + c A A) X with A = X X^T, in bfloat16. Source: Jordan et al. 2024."""
    flat = matrix.bfloat16()
    is_tall = flat.shape[0] > flat.shape[1]
    flat = flat.T if is_tall else flat
    flat = flat / flat.norm().clamp(min=1e-7)
    for _ in range(5):
        square = flat @ flat.T
        flat = torch.addmm(flat, torch.addmm(square, square, square, beta=-4.7750, alpha=2.0315), flat, beta=3.4445)
    return flat.T if is_tall else flat


def _muon(model: nn.Module, settings: Optim) -> list[torch.optim.Optimizer]:
    hidden: list[tuple[str, Tensor]] = []
    others: list[tuple[str, Tensor]] = []
    for name, weight in model.named_parameters():
        (hidden if _HIDDEN.match(name) and _decays(name, weight) else others).append((name, weight))
    last = _blocks(model) + 1
    rest = torch.optim.AdamW(
        _groups(others, last, settings), lr=settings.learning_rate, betas=settings.betas, fused=True
    )
    if not hidden:
        return [rest]
    return [Muon(_groups(hidden, last, settings), settings.learning_rate, settings.momentum), rest]


def _groups(weights: list[tuple[str, Tensor]], last: int, settings: Optim) -> list[dict[str, Any]]:
    """Groups of some weights, from the first layer to the last; in each those that decay come first."""
    groups: dict[tuple[int, bool], list[Tensor]] = {}
    tables = {table[1] for name, _ in weights if (table := _TABLE.match(name))}
    is_shared = len(tables) < last - 1
    for name, weight in weights:
        layer = _layer(name, last, is_shared) if settings.layer_decay < 1 else last
        groups.setdefault((layer, not _decays(name, weight)), []).append(weight)
    return [
        {
            "params": members,
            "weight_decay": 0.0 if is_kept else settings.weight_decay,
            FACTOR: settings.layer_decay ** (last - layer),
        }
        for (layer, is_kept), members in sorted(groups.items(), key=itemgetter(0))
    ]


def _decays(name: str, weight: Tensor) -> bool:
    return weight.ndim >= 2 and name.rpartition(".")[2] not in TOKENS_AND_POSITIONS


def _layer(name: str, last: int, is_shared: bool) -> int:
    """0 before the blocks, 1 for the first block, `last` behind the last one.

    Positions that a block adds are its own, but those that all blocks share come before the first.
    """
    block = _BLOCK.match(name) or (None if is_shared else _TABLE.match(name))
    if block:
        return int(block[1]) + 1
    is_added = name.rpartition(".")[2] in TOKENS_AND_POSITIONS - {"latent"}  # the latent is the pooling's query
    return 0 if is_added or _BEFORE_BLOCKS.match(name) else last


def _blocks(model: nn.Module) -> int:
    return sum(1 for name, _ in model.named_parameters() if _BLOCK.match(name) and name.endswith(".norm1.weight"))
