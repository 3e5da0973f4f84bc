from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer

CONFIG = ViTConfig(
    image_size=(64, 64),
    patch_size=(8, 8),
    width=192,
    depth=2,
    heads=3,
    classes=10,
    registers=4,
    layer_scale=1e-5,
)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    model = VisionTransformer(CONFIG, generator=torch.Generator().manual_seed(0))
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def test_a_new_models_loss_is_the_logarithm_of_the_classes() -> None:
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    loss = F.cross_entropy(VisionTransformer(CONFIG)(images), torch.tensor([0, 3, 6, 9]))
    assert loss.item() == pytest.approx(math.log(10), abs=1e-6)


def test_the_same_generator_gives_the_same_weights_and_leaves_the_global_one_alone() -> None:
    before = torch.random.get_rng_state()
    first = VisionTransformer(CONFIG, generator=torch.Generator().manual_seed(3)).state_dict()
    second = VisionTransformer(CONFIG, generator=torch.Generator().manual_seed(3)).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_without_a_generator_the_global_seed_decides() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        first = VisionTransformer(CONFIG).state_dict()
        torch.manual_seed(5)
        second = VisionTransformer(CONFIG).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("part", range(3))
def test_queries_keys_and_values_are_each_xavier_uniform(weights: dict[str, torch.Tensor], part: int) -> None:
    bound = math.sqrt(6 / (192 + 192))
    values = weights["blocks.0.attn.qkv.weight"].chunk(3)[part]
    assert 0.99 * bound < values.abs().max() <= bound
    assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_dense_layers_are_xavier_uniform(weights: dict[str, torch.Tensor]) -> None:
    bound = math.sqrt(6 / (192 + 768))
    for name in ("blocks.1.mlp.fc1.weight", "blocks.1.mlp.fc2.weight"):
        assert weights[name].std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_patch_embedding_has_the_variance_of_one_input(weights: dict[str, torch.Tensor]) -> None:
    kernel = weights["patch_embed.proj.weight"]
    std = 1 / math.sqrt(3 * 8 * 8)
    assert kernel.std().item() == pytest.approx(std, rel=0.02)
    assert kernel.abs().max() <= 2 * std / 0.8796


def test_tokens_biases_norms_and_scales_start_as_the_papers_code(weights: dict[str, torch.Tensor]) -> None:
    assert weights["pos_embed"].std().item() == pytest.approx(0.02, rel=0.03)
    assert weights["reg_token"].std().item() == pytest.approx(0.02, rel=0.1)
    assert weights["blocks.0.mlp.fc1.bias"].std().item() == pytest.approx(1e-6, rel=0.1)
    for name in ("cls_token", "head.weight", "head.bias", "blocks.0.attn.qkv.bias", "norm.bias"):
        assert not weights[name].any(), name
    for name in ("norm.weight", "blocks.1.norm1.weight", "blocks.1.norm2.weight"):
        assert (weights[name] == 1).all(), name
    assert (weights["blocks.1.ls2.gamma"] == 1e-5).all()


def test_a_hidden_head_starts_with_a_hidden_layer_and_a_zero_one() -> None:
    config = ViTConfig(image_size=(8, 8), patch_size=(4, 4), width=192, depth=1, heads=3, hidden_head=True)
    model = VisionTransformer(config, generator=torch.Generator().manual_seed(0))
    assert model.pre_logits is not None and model.head is not None
    assert model.pre_logits.weight.std().item() == pytest.approx(1 / math.sqrt(192), rel=0.02)
    assert not model.head.weight.any()


def test_what_the_paper_has_not_starts_as_its_nearest_kin() -> None:
    config = replace(
        CONFIG, image_size=(128, 128), patch_size=(16, 16), stem=(1,), pooling="map", positions="relative-bias",
        distillation=False, layer_scale=None,
    )  # fmt: skip
    model = VisionTransformer(config, generator=torch.Generator().manual_seed(0))
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    table = weights["blocks.0.attn.relative_position_bias_table"]
    assert table.std().item() == pytest.approx(0.02, rel=0.1)
    root = weights["patch_embed.backbone.stem.conv.weight"]
    assert root.std().item() == pytest.approx(1 / math.sqrt(3 * 7 * 7), rel=0.05)
    assert (weights["patch_embed.backbone.stem.norm.weight"] == 1).all()
    assert not weights["patch_embed.backbone.stages.0.blocks.0.norm3.weight"].any()  # as Google's code starts it
    assert weights["attn_pool.latent"].std().item() == pytest.approx(0.02, rel=0.3)


def test_both_heads_of_a_distilled_model_start_at_0() -> None:
    model = VisionTransformer(replace(CONFIG, distillation=True))
    assert model.head_dist is not None and not model.head_dist.weight.any()
    assert model.dist_token is not None and model.dist_token.any()
