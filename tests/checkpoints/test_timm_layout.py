from __future__ import annotations

from typing import Any

import pytest

from vitreous.checkpoints.timm_layout import class_names_from_timm, config_from_timm, timm_differences, to_timm
from vitreous.checkpoints.weights import Shapes
from vitreous.data.preprocess import Preprocess
from vitreous.errors import CheckpointError
from vitreous.model.config import ViTConfig

SHAPES: Shapes = {
    "cls_token": (1, 1, 192),
    "pos_embed": (1, 5, 192),
    "patch_embed.proj.weight": (192, 3, 8, 8),
    "patch_embed.proj.bias": (192,),
    "blocks.0.attn.qkv.weight": (576, 192),
    "blocks.0.attn.qkv.bias": (576,),
    "blocks.0.mlp.fc1.weight": (768, 192),
    "norm.weight": (192,),
    "head.weight": (10, 192),
}
CONFIG: dict[str, Any] = {
    "architecture": "vit_tiny_patch16_224",
    "global_pool": "token",
    "pretrained_cfg": {"input_size": [3, 16, 16]},
}


def test_a_plain_vit_is_read_off_its_tensors() -> None:
    config, decisions = config_from_timm(CONFIG, SHAPES)
    assert config == ViTConfig(
        image_size=(16, 16),
        patch_size=(8, 8),
        classes=10,
        width=192,
        depth=1,
        heads=3,
        norm_after_pooling=False,
    )
    reasons = {decision.setting: decision.reason for decision in decisions}
    assert reasons["heads"] == "timm's architecture vit_tiny_patch16_224"
    assert not any(decision.guessed for decision in decisions)


def test_what_timm_does_not_say_is_a_guess() -> None:
    config, decisions = config_from_timm({"architecture": "vit_tiny_patch16_224"}, SHAPES)
    assert {decision.setting for decision in decisions if decision.guessed} == {"pooling", "image_size"}
    assert (config.pooling, config.image_size) == ("class", (224, 224))


@pytest.mark.parametrize(
    "name",
    [
        "vit_base_patch16_224",
        "vit_small_patch14_reg4_dinov2",
        "deit_base_patch16_224",
        "deit3_large_patch16_384",
        "vit_base_patch16_224_miil",
    ],
)
def test_names_of_plain_vits_are_accepted(name: str) -> None:
    config_from_timm(CONFIG | {"architecture": name, "model_args": {"num_heads": 3}}, SHAPES)


@pytest.mark.parametrize(
    "name",
    [
        "resnet50",
        "vit_base_patch16_clip_quickgelu_224",
        "vit_so400m_patch14_siglip_224",
        "vit_small_patch16_rope_224",
        "vit_small_r26_s32_224",
        "eva02_base_patch14_224",
        None,
        7,
    ],
)
def test_names_of_other_architectures_are_refused(name: Any) -> None:
    with pytest.raises(CheckpointError, match="open it with timm itself"):
        config_from_timm(CONFIG | {"architecture": name}, SHAPES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_args": {"qk_norm": True}}, "qk_norm=True, which vitreous has no word for"),
        ({"model_args": {"act_layer": "quick_gelu"}}, "act_layer='quick_gelu'"),
        ({"model_args": {"embed_dim": 384}}, "embed_dim=384, the weights 192"),
        ({"model_args": {"depth": 12}}, "depth=12, the weights 1"),
        ({"model_args": {"num_heads": 5}}, "do not make a ViT: width 192 is not a multiple of heads 5"),
        ({"model_args": {"num_heads": "3"}}, "heads is '3'"),
        ({"model_args": []}, None),
        ({"model_args": [3]}, "it is an object of settings"),
        ({"global_pool": "map"}, "global_pool is 'map'"),
        ({"global_pool": ["avg"]}, "global_pool is"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changes: dict[str, Any], message: str | None) -> None:
    if message is None:
        config_from_timm(CONFIG | changes, SHAPES)
        return
    with pytest.raises(CheckpointError, match=message):
        config_from_timm(CONFIG | changes, SHAPES)


@pytest.mark.parametrize("name", ["patch_embed.proj.weight", "blocks.0.mlp.fc1.weight", "head.weight"])
def test_tensors_of_another_form_are_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match="not those of a timm ViT"):
        config_from_timm(CONFIG, SHAPES | {name: (3,)})
    with pytest.raises(CheckpointError, match="not those of a timm ViT"):
        config_from_timm(CONFIG, SHAPES | {name: (0,) * len(SHAPES[name])})


def test_class_names_come_as_a_list_or_as_an_object() -> None:
    assert class_names_from_timm({"label_names": ["a", "b"]}, 2) == ("a", "b")
    assert class_names_from_timm({"label_names": {"0": "a", "1": "b"}}, 2) == ("a", "b")
    assert class_names_from_timm({"pretrained_cfg": {"label_names": ["a"]}}, 1) == ("a",)
    assert class_names_from_timm({}, 3) == ()
    with pytest.raises(CheckpointError, match="has 1 label_names, the head 2 classes"):
        class_names_from_timm({"label_names": ["a"]}, 2)
    with pytest.raises(CheckpointError, match="label_names"):
        class_names_from_timm({"label_names": "ab"}, 2)


@pytest.mark.parametrize("ratio", [4.0, 2.3, 1 / 3, 4.3637, 0.07])
@pytest.mark.parametrize("width", [24, 96, 100, 192, 1408])
def test_timm_rounds_our_ratio_to_our_width(ratio: float, width: int) -> None:
    config = ViTConfig(width=width, heads=1, mlp_ratio=ratio)
    written = to_timm(config, Preprocess(), [], {})["model_args"]["mlp_ratio"]
    assert int(width * written) == config.mlp_width


def test_what_timm_has_no_word_for_is_named() -> None:
    assert timm_differences(ViTConfig(registers=2, layer_scale=0.1)) == []
    assert len(timm_differences(ViTConfig(hidden_head=True, patch_bias=False, norm_eps=1e-5))) == 3
