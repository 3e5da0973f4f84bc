from __future__ import annotations

import math

import pytest
import torch

from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer
from vitreous.training.config import Optim
from vitreous.training.optimizer import learning_rate, make_optimizer, parameter_groups

CONFIG = ViTConfig((8, 8), (4, 4), classes=3, width=8, depth=2, heads=2, registers=1, layer_scale=0.1)


def _model() -> VisionTransformer:
    return VisionTransformer(CONFIG, generator=torch.Generator().manual_seed(0))


def test_only_matrices_and_convolutions_decay() -> None:
    model = _model()
    names = {id(weight): name for name, weight in model.named_parameters()}
    decayed, kept = ([names[id(w)] for w in group["params"]] for group in parameter_groups(model, 0.1))
    inner = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    blocks = [f"blocks.{layer}.{name}.weight" for layer in (0, 1) for name in inner]
    assert sorted(decayed) == sorted(["patch_embed.proj.weight", "head.weight", *blocks])
    assert sorted(decayed + kept) == sorted(names.values())


def test_tokens_and_positions_do_not_decay_though_timm_gives_them_three_axes() -> None:
    kept = parameter_groups(_model(), 0.1)[1]
    assert kept["weight_decay"] == 0
    assert sum(weight.ndim == 3 for weight in kept["params"]) == 3


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_the_warm_up_is_a_straight_line_that_ends_at_the_highest_rate(schedule: str) -> None:
    settings = Optim(learning_rate=0.8, warmup=4, schedule=schedule)
    rates = [learning_rate(step, 100, settings) for step in range(5)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])


def test_each_schedule_has_its_closed_form() -> None:
    for step in range(10, 110):
        done = (step - 10) / 100
        settings = {"learning_rate": 0.3, "warmup": 10}
        wanted = {"cosine": 0.15 * (1 + math.cos(math.pi * done)), "linear": 0.3 * (1 - done), "constant": 0.3}
        for schedule, rate in wanted.items():
            assert learning_rate(step, 110, Optim(schedule=schedule, **settings)) == pytest.approx(rate)


def test_without_warm_up_the_first_step_has_the_highest_rate() -> None:
    assert learning_rate(0, 10, Optim(learning_rate=0.5, warmup=0)) == 0.5


def test_a_run_shorter_than_its_warm_up_only_warms_up() -> None:
    assert learning_rate(2, 3, Optim(learning_rate=1.0, warmup=100)) == pytest.approx(0.03)


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_a_step_follows_the_published_rule(name: str) -> None:
    settings = Optim(name=name, learning_rate=0.1, weight_decay=0.5, betas=(0.8, 0.9), momentum=0.7)
    layer = torch.nn.Linear(3, 2, bias=False, dtype=torch.float64)
    weight = layer.weight.detach().clone()
    optimizer = make_optimizer(layer, settings)
    first, second, velocity = torch.zeros(3), torch.zeros(3), torch.zeros(3)
    for step in range(1, 5):
        gradient = torch.full((2, 3), 0.5 * step, dtype=torch.float64)
        layer.weight.grad = gradient.clone()
        optimizer.step()
        if name == "adamw":
            weight = weight - 0.1 * 0.5 * weight
        else:
            gradient = gradient + 0.5 * weight
        if name == "sgd":
            velocity = 0.7 * velocity + gradient
            weight = weight - 0.1 * velocity
            continue
        first = 0.8 * first + 0.2 * gradient
        second = 0.9 * second + 0.1 * gradient**2
        corrected = (second / (1 - 0.9**step)).sqrt() + 1e-8
        weight = weight - 0.1 * first / (1 - 0.8**step) / corrected
    torch.testing.assert_close(layer.weight.detach(), weight)
