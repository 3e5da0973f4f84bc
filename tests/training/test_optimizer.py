from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer
from vitreous.training.config import Optim
from vitreous.training.optimizer import FACTOR, learning_rate, make_optimizers, parameter_groups, set_learning_rate

CONFIG = ViTConfig((8, 8), (4, 4), classes=3, width=8, depth=3, heads=2, registers=1, layer_scale=0.1)


def _model(config: ViTConfig = CONFIG) -> VisionTransformer:
    return VisionTransformer(config, generator=torch.Generator().manual_seed(0))


def _names(model: nn.Module, group: dict[str, Any]) -> list[str]:
    names = {id(weight): name for name, weight in model.named_parameters()}
    return [names[id(weight)] for weight in group["params"]]


def test_only_matrices_and_convolutions_decay() -> None:
    model = _model()
    decayed, kept = (_names(model, group) for group in parameter_groups(model, Optim(weight_decay=0.1)))
    inner = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    blocks = [f"blocks.{layer}.{name}.weight" for layer in range(3) for name in inner]
    assert sorted(decayed) == sorted(["patch_embed.proj.weight", "head.weight", *blocks])
    assert sorted(decayed + kept) == sorted(name for name, _ in model.named_parameters())


def test_tokens_and_positions_do_not_decay_though_timm_gives_them_three_axes() -> None:
    kept = parameter_groups(_model(), Optim(weight_decay=0.1))[1]
    assert kept["weight_decay"] == 0
    assert sum(weight.ndim == 3 for weight in kept["params"]) == 3


def _factors(model: nn.Module, groups: list[dict[str, Any]], key: str) -> dict[str, float]:
    return {name: group[key] for group in groups for name in _names(model, group)}


def test_the_layer_decay_is_that_of_beit() -> None:
    model = _model()
    groups = parameter_groups(model, Optim(weight_decay=0.1, layer_decay=0.65))
    found = _factors(model, groups, FACTOR)
    layers = 3
    values = [0.65 ** (layers + 1 - i) for i in range(layers + 2)]  # LayerDecayValueAssigner of optim_factory.py
    for name, factor in found.items():  # its get_num_layer_for_vit
        if name.startswith(("cls_token", "reg_token", "pos_embed", "patch_embed")):
            expected = values[0]
        elif name.startswith("blocks."):
            expected = values[int(name.split(".")[1]) + 1]
        else:
            expected = values[-1]
        assert factor == pytest.approx(expected, rel=1e-12), name
    assert len(found) == len(list(model.parameters()))
    decays = _factors(model, groups, "weight_decay")
    assert decays == _factors(model, parameter_groups(model, Optim(weight_decay=0.1)), "weight_decay")


def test_the_layer_decay_is_timms_but_for_the_last_norm() -> None:
    import timm

    theirs = timm.create_model(
        "vit_tiny_patch16_224", img_size=8, patch_size=4, embed_dim=8, depth=3, num_heads=2, num_classes=3, reg_tokens=1
    )
    expected = _factors(theirs, param_groups_layer_decay(theirs, layer_decay=0.65), "lr_scale")
    model = _model(ViTConfig((8, 8), (4, 4), classes=3, width=8, depth=3, heads=2, registers=1))
    found = _factors(model, parameter_groups(model, Optim(layer_decay=0.65)), FACTOR)
    assert set(found) == set(expected)
    different = {name for name in found if found[name] != pytest.approx(expected[name], rel=1e-12)}
    assert different == {"norm.weight", "norm.bias"}


@pytest.mark.parametrize(("place", "powers"), [("layers", [3, 2, 1]), ("layers-shared", [4])])
def test_positions_of_a_layer_learn_as_fast_as_the_layer(place: Any, powers: list[int]) -> None:
    """Of three blocks the first has decay to the power of 3; tables that all share come before it."""
    model = _model(ViTConfig((8, 8), (4, 4), classes=3, width=8, depth=3, heads=2, positions_at=place))
    for name in ("adamw", "muon"):
        found: dict[str, float] = {}
        for optimizer in make_optimizers(model, Optim(name=name, layer_decay=0.5)):  # type: ignore[arg-type]
            found |= _factors(model, optimizer.param_groups, FACTOR)
        tables = [found[f"layer_positions.{layer}.pos_embed"] for layer in range(len(powers))]
        assert tables == [0.5**power for power in powers]
        assert found["blocks.0.norm1.weight"] == 0.5**3
        assert len(found) == len(list(model.parameters()))


def test_a_task_with_weights_beside_the_model_has_the_models_layers() -> None:
    class Learner(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model, self.colours = model, nn.Linear(8, 4)

    learner = Learner(_model())
    found = _factors(learner, parameter_groups(learner, Optim(layer_decay=0.5)), FACTOR)
    assert [found[f"model.{name}"] for name in ("pos_embed", "blocks.0.mlp.fc1.bias", "head.bias")] == [
        0.5**4,
        0.125,
        1,
    ]
    assert found["colours.weight"] == 1


def test_each_group_learns_at_the_rate_of_the_step_times_its_factor() -> None:
    model = _model()
    optimizers = make_optimizers(model, Optim(name="muon", layer_decay=0.5))
    set_learning_rate(optimizers, 0.8)
    rates: dict[str, float] = {}
    for optimizer in optimizers:
        rates |= _factors(model, optimizer.param_groups, "lr")
    assert rates["blocks.2.mlp.fc1.weight"] == pytest.approx(0.4)
    assert rates["blocks.2.mlp.fc1.bias"] == pytest.approx(0.4)
    assert rates["patch_embed.proj.weight"] == pytest.approx(0.05)
    assert rates["head.weight"] == pytest.approx(0.8)
    assert len(rates) == len(list(model.parameters()))


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


def _gradients() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, generator=generator, dtype=torch.float64) for _ in range(5)]


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_a_step_follows_the_published_rule(name: str) -> None:
    settings = Optim(name=name, learning_rate=0.1, weight_decay=0.5, betas=(0.8, 0.9), momentum=0.7)
    layer = torch.nn.Linear(3, 2, bias=False, dtype=torch.float64)
    weight = layer.weight.detach().clone()
    (optimizer,) = make_optimizers(layer, settings)
    first, second, velocity = torch.zeros(3), torch.zeros(3), torch.zeros(3)
    for step, gradient in enumerate(_gradients(), start=1):
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


def _rounded(value: float) -> float:
    """To bfloat16 by hand: the nearest number with 8 bits, the even one of two."""
    if value == 0:
        return 0.0
    exponent = math.floor(math.log2(abs(value)))
    unit = 2.0 ** (exponent - 7)
    return round(value / unit) * unit


def test_momentum_in_bfloat16_is_rounded_between_steps_and_nowhere_else() -> None:
    settings = Optim(
        name="sgd", learning_rate=0.1, weight_decay=0.5, momentum=0.7, momentum_precision="bfloat16", clip=None
    )
    layer = torch.nn.Linear(3, 2, bias=False)
    weights = layer.weight.detach().double().flatten().tolist()
    (optimizer,) = make_optimizers(layer, settings)
    kept = [0.0] * 6
    for gradient in _gradients():
        layer.weight.grad = gradient.float()
        optimizer.step()
        for n, slope in enumerate(gradient.float().double().flatten().tolist()):
            moved = 0.7 * kept[n] + slope + 0.5 * weights[n]
            kept[n] = _rounded(moved)
            weights[n] -= 0.1 * moved
    expected = torch.tensor(weights, dtype=torch.float64).view(2, 3)
    torch.testing.assert_close(layer.weight.detach().double(), expected, atol=2e-6, rtol=0)
    (state,) = optimizer.state.values()
    assert state["momentum_buffer"].dtype == torch.bfloat16
    assert state["momentum_buffer"].flatten().tolist() == kept


def test_muons_steps_follow_the_published_rule() -> None:
    """Kept from one step to the next: m <- 0.9 m + 0.1 g; the step is the orthogonal part of 0.9 m + 0.1 g."""
    settings = Optim(name="muon", learning_rate=0.1, weight_decay=0.5, momentum=0.9)
    model = _model()
    muon, rest = make_optimizers(model, settings)
    inner = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    chosen = [f"blocks.{layer}.{name}.weight" for layer in range(3) for name in inner]
    assert [name for group in muon.param_groups for name in _names(model, group)] == chosen
    assert isinstance(rest, torch.optim.AdamW)
    weight = model.blocks[0].mlp.fc1.weight  # (32, 8)
    expected, momentum = weight.detach().double(), torch.zeros(32, 8, dtype=torch.float64)
    for step in range(3):
        gradient = torch.randn(32, 8, generator=torch.Generator().manual_seed(step))
        weight.grad = gradient.clone()
        muon.step()
        momentum = 0.9 * momentum + 0.1 * gradient.double()
        direction = _newton_schulz(0.1 * gradient.double() + 0.9 * momentum)
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * 0.2 * math.sqrt(32) * direction
        values = torch.linalg.svdvals(direction)
        assert values.min() > 0.6 and values.max() < 1.3  # nearly orthogonal, as the rule promises
    # the iteration runs in bfloat16: 8 bits, five times over
    torch.testing.assert_close(weight.detach().double(), expected, atol=0.03, rtol=0)
    assert (weight.detach().double() - expected).norm() < 0.02 * expected.norm()


def _newton_schulz(matrix: Tensor) -> Tensor:
    """Five steps of X <- a X + (b A + c A A) X with A = X X^T, on the flat side. Source: Jordan et al. 2024."""
    flat = matrix.T / matrix.norm()
    for _ in range(5):
        square = flat @ flat.T
        flat = 3.4445 * flat + (-4.7750 * square + 2.0315 * square @ square) @ flat
    return flat.T


def test_muon_takes_matrices_as_torchs_own_does_to_the_bit() -> None:
    mine, theirs = _model(), _model()
    muon, _ = make_optimizers(mine, Optim(name="muon", learning_rate=0.1, weight_decay=0.5, momentum=0.9))
    names = [name for group in muon.param_groups for name in _names(mine, group)]
    other = torch.optim.Muon(
        [theirs.get_parameter(name) for name in names],
        lr=0.1,
        weight_decay=0.5,
        momentum=0.9,
        adjust_lr_fn="match_rms_adamw",
    )
    for group in muon.param_groups:
        group["lr"] = 0.1
    for seed in range(3):
        for name in names:
            weight = mine.get_parameter(name)
            weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
            theirs.get_parameter(name).grad = weight.grad.clone()
        muon.step()
        other.step()
    assert len(names) == 12
    assert all(torch.equal(mine.get_parameter(name), theirs.get_parameter(name)) for name in names)


def test_muon_takes_each_kernel_as_a_row() -> None:
    """A model without blocks: its stage's convolutions follow Muon; root, patch embedding and head follow AdamW."""
    config = ViTConfig(
        (8, 8), (4, 4), classes=3, width=8, depth=0, heads=2, stem=(1,), stem_width=8, class_token=False,
        positions="none", pooling="mean",
    )  # fmt: skip
    model = _model(config)
    muon, rest = make_optimizers(model, Optim(name="muon", learning_rate=0.1, weight_decay=0.5, momentum=0.9))
    assert [name.rpartition("blocks.0.")[2] for group in muon.param_groups for name in _names(model, group)] == [
        "downsample.conv.weight",
        "conv1.weight",
        "conv2.weight",
        "conv3.weight",
    ]
    assert sum(len(group["params"]) for group in rest.param_groups) == len(list(model.parameters())) - 4
    kernels = model.patch_embed.backbone.stages[0].blocks[0].conv2.weight  # (8, 8, 3, 3)
    before, gradient = kernels.detach().clone(), torch.randn(kernels.shape, generator=torch.Generator().manual_seed(0))
    kernels.grad = gradient.clone()
    muon.step()
    direction = _newton_schulz(gradient.flatten(1).T.double()).T
    expected = -(0.1 * 0.2 * math.sqrt(72) * direction).view(kernels.shape)
    moved = kernels.detach().double() - (1 - 0.1 * 0.5) * before.double()
    assert (moved - expected).norm() < 0.02 * expected.norm()  # 8 bits, five times over
