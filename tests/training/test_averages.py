from __future__ import annotations

import pytest
import torch
from torch import nn

from vitreous.training.averages import RunningAverage


def _layer() -> nn.Linear:
    layer = nn.Linear(3, 2)
    nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(0))
    return layer


def test_the_average_follows_its_rule_from_the_first_weights_on() -> None:
    layer = _layer()
    average, expected = RunningAverage(layer, 0.5), layer.weight.detach().double()
    for step in range(1, 21):
        nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(step))
        average.update(layer, step)
        kept = min(0.5, step / (step + 9))  # 0.1, 0.18, 0.25, ... and a half from the ninth step on
        expected = kept * expected + (1 - kept) * layer.weight.detach().double()
        torch.testing.assert_close(average.tensors()["average.weight"].double(), expected, atol=1e-6, rtol=0)


def test_equal_weights_stay_as_they_are() -> None:
    layer = _layer()
    average = RunningAverage(layer, 0.9999)
    for step in range(1, 5):
        average.update(layer, step)
    assert torch.equal(average.tensors()["average.weight"], layer.weight)


def test_the_model_has_the_average_inside_the_block_and_every_own_bit_afterwards() -> None:
    layer = _layer()
    average, first = RunningAverage(layer, 0.5), layer.weight.detach().clone()
    nn.init.ones_(layer.weight)
    with pytest.raises(KeyboardInterrupt), average.inside(layer):
        assert torch.equal(layer.weight, first)
        raise KeyboardInterrupt
    assert torch.equal(layer.weight, torch.ones(2, 3))


def test_the_average_comes_back_from_its_tensors() -> None:
    layer = _layer()
    average = RunningAverage(layer, 0.5)
    nn.init.ones_(layer.weight)
    average.update(layer, 1)
    other = RunningAverage(layer, 0.5)
    other.put({"model.weight": torch.zeros(2, 3), **{name: t.clone() for name, t in average.tensors().items()}})
    assert torch.equal(other.tensors()["average.weight"], average.tensors()["average.weight"])
