from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitreous.arrangement.layers import SpatialLayers
from vitreous.arrangement.seen_calls import first_tensor, seeing_calls


class Unpadded(nn.Module):
    """No list, convolutions without padding, one with another stride a side, poolings as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 5), nn.Conv2d(4, 4, 3, stride=(2, 1))
        self.third, self.last = nn.Conv2d(4, 4, 3), nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = F.max_pool2d(F.relu(self.first(images)), 2)
        features = F.avg_pool2d(self.second(F.pad(features, (1, 1, 2, 2))), 3, stride=2)
        return self.last(self.third(features).mean((2, 3)))


def test_strides_are_the_products_of_steps_not_the_ratio_of_sizes() -> None:
    layers = SpatialLayers(Unpadded().eval(), torch.randn(1, 3, 40, 40))
    # 40 -5x5-> 36 -pool-> 18 -pad-> 22, 20 -3x3 at (2, 1)-> 10, 18 -pool 3 at 2-> 4, 8 -3x3-> 2, 6
    assert layers.grids == ((36, 36), (10, 18), (2, 6))
    assert layers.strides == ((1, 1), (4, 2), (8, 4)) and layers.patch_size == (8, 4)


def test_sizes_are_those_that_convolutions_and_poolings_had() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.AdaptiveAvgPool2d((3, 2)), nn.Upsample(scale_factor=2))
    with seeing_calls(model, torch.zeros(1, 3, 12, 8)) as seen:
        model(torch.zeros(1, 3, 12, 8))
    assert seen.strides == {(12, 8): (1, 1), (3, 2): (4, 4), (6, 4): (2, 2)}


def test_calls_are_in_order_with_turns_and_what_was_changed_in_place() -> None:
    shared = nn.ReLU(inplace=True)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(shared, nn.Identity()), shared)
    with seeing_calls(model, torch.zeros(1, 3, 5, 5)) as seen:
        model(torch.zeros(1, 3, 5, 5))
    names = {module: name for name, module in model.named_modules()}
    assert [(names[call.module], call.turn) for call in seen.calls] == [
        ("", 0), ("0", 0), ("1", 0), ("1.0", 0), ("1.1", 0), ("1.0", 1)
    ]  # fmt: skip
    whole, convolution, inner, first, identity, second = seen.calls
    assert whole.returned is convolution.returned is inner.given is second.returned
    assert [call.changes for call in (convolution, first, identity, inner, second, whole)] == [0, 1, 1, 1, 2, 2]


def test_hooks_are_gone_when_a_pass_fails() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(RuntimeError), seeing_calls(model, torch.zeros(1, 3, 5, 5)):
        model(torch.zeros(1, 3))
    assert not model._forward_hooks and not model._forward_pre_hooks


def test_the_first_tensor_is_found_in_tuples_lists_and_mappings() -> None:
    wanted, other = torch.zeros(1), torch.ones(1)
    for value in (wanted, (None, [wanted, other]), {"a": 1, "b": (), "c": wanted, "d": other}, [{}, "x", (wanted,)]):
        assert first_tensor(value) is wanted
    assert first_tensor((None, {"a": "b"})) is None
