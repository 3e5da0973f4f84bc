"""The running average of the weights, which is steadier than the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vitreous.training.distributed import share_again, share_of

_START = "average."


class RunningAverage:
    """a <- d a + (1 - d) w after each step, for every weight of a model.

    At the step n, from 1, d is min(decay, n / (n + 9)): without it the first weights, which are chance, would stay in
    the average for thousands of steps. Source: tf.train.ExponentialMovingAverage, whose `num_updates` counts from 0:
    (1 + n) / (10 + n).

    Args:
        model: from its weights the average starts; it has their shares where processes share them.
        decay: how much of the average stays at each step, in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._averages = {name: weight.detach().clone() for name, weight in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Takes in a model's weights after so many steps, from 1."""
        kept = min(self.decay, step / (step + 9))
        weights = [weight.detach() for _, weight in model.named_parameters()]
        torch._foreach_lerp_(list(self._averages.values()), weights, 1 - kept)

    @contextmanager
    def inside(self, model: nn.Module) -> Iterator[None]:
        """Inside, the model has the average for weights; afterwards its own again, every bit."""
        own = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        self._put(self._averages, model)
        try:
            yield
        finally:
            self._put(own, model)

    def tensors(self) -> dict[str, Tensor]:
        """The average by name, each behind `average.`: themselves, not copies."""
        return {_START + name: average for name, average in self._averages.items()}

    @torch.no_grad()
    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what `tensors` gave, whole tensors in place of shares; other names are left alone."""
        for name, average in self._averages.items():
            average.copy_(share_of(tensors[_START + name], average))

    @torch.no_grad()
    def _put(self, weights: Mapping[str, Tensor], model: nn.Module) -> None:
        share_again(model)  # it was tested
        for name, weight in model.named_parameters():
            weight.copy_(weights[name])
