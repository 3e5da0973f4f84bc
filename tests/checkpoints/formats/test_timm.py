from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vitreous.checkpoints.formats import timm as format_timm
from vitreous.checkpoints.reading import Found, Reading
from vitreous.errors import CheckpointError
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer

timm = pytest.importorskip("timm")

Build = Callable[[Reading, Mapping[str, np.ndarray]], VisionTransformer]
Randomised = Callable[[nn.Module], dict[str, np.ndarray]]

SMALL: dict[str, Any] = {"img_size": (32, 48), "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
HYBRID: dict[str, Any] = {"img_size": 64, "embed_dim": 48, "depth": 1, "num_heads": 3}
NARROW: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 1}


def described(name: str, model: nn.Module, arguments: dict[str, Any]) -> dict[str, Any]:
    """What timm's save_for_hf writes beside the weights."""
    size = [3, *model.patch_embed.img_size]
    return {
        "architecture": name,
        "num_classes": model.num_classes,
        "global_pool": model.global_pool,
        "model_args": {key: list(v) if isinstance(v, tuple) else v for key, v in arguments.items()},
        "pretrained_cfg": {**model.pretrained_cfg, "input_size": size},
    }


def make(name: str, arguments: dict[str, Any]) -> nn.Module:
    with torch.random.fork_rng():
        return timm.create_model(name, **arguments).eval()


def images(model: nn.Module) -> torch.Tensor:
    return torch.randn(2, 3, *model.patch_embed.img_size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("vit_base_patch16_224", SMALL),
        ("vit_base_patch16_224", SMALL | {"global_pool": "avg"}),
        ("vit_base_patch16_224", SMALL | {"global_pool": "avg", "fc_norm": False, "class_token": False}),
        ("vit_base_patch16_224", SMALL | {"qk_norm": True, "init_values": 0.1, "act_layer": "gelu_tanh"}),
        ("vit_base_patch16_224", SMALL | {"qkv_bias": False, "reg_tokens": 2, "num_classes": 0}),
        ("vit_base_patch16_224", SMALL | {"pos_embed": "none", "mlp_ratio": 2.3}),
        ("vit_base_patch16_224", SMALL | {"no_embed_class": True, "reg_tokens": 3}),
        ("vit_base_patch16_clip_quickgelu_224", SMALL),
        ("vit_large_patch14_clip_224", SMALL),
        ("vit_base_patch16_siglip_224", SMALL),
        ("vit_so400m_patch16_siglip_256", SMALL | {"num_classes": 4}),
        ("vit_so150m_patch16_reg4_map_256", SMALL),
        ("vit_base_patch16_siglip_gap_224", SMALL),
        ("vit_small_patch14_dinov2", SMALL),
        ("vit_giant_patch14_reg4_dinov2", SMALL | {"num_classes": 4}),
        ("vit_medium_patch16_reg4_gap_256", SMALL),
        ("vit_little_patch16_reg1_gap_256", SMALL),
        ("deit_base_distilled_patch16_224", SMALL),
        ("deit_small_distilled_patch16_224", SMALL | {"num_classes": 0}),
        ("deit3_small_patch16_224", SMALL),
        ("flexivit_small", SMALL),
        ("eva_large_patch14_196", SMALL),
    ],
)
def test_a_folder_of_timms_gives_timms_logits(
    name: str, arguments: dict[str, Any], build: Build, randomised: Randomised
) -> None:
    model = make(name, arguments)
    arrays = randomised(model)
    found = Found({n: a.shape for n, a in arrays.items()}, described=described(name, model, arguments))
    assert format_timm.recognises(found)
    reading = format_timm.read(found)
    ours = build(reading, arrays)
    with torch.no_grad():
        assert (ours(images(model)) - model(images(model))).abs().max() < 1e-5
    assert not reading.ignored


@pytest.mark.parametrize("name", ["vit_tiny_r_s16_p8_224", "vit_small_r26_s32_224", "vit_base_r50_s16_224"])
def test_a_hybrid_gives_timms_logits(name: str, build: Build, randomised: Randomised) -> None:
    model = make(name, HYBRID)
    arrays = randomised(model)
    found = Found({n: a.shape for n, a in arrays.items()}, described=described(name, model, HYBRID))
    reading = format_timm.read(found)
    ours = build(reading, arrays)
    with torch.no_grad():
        theirs = model(images(model))
        assert (ours(images(model)) - theirs).abs().max() < 1e-5 * theirs.abs().max()
    assert reading.config.stem_constants == "timm"


def reasons(reading: Reading) -> dict[str, str]:
    return {decision.setting: decision.reason for decision in reading.decisions}


def guesses(reading: Reading) -> set[str]:
    return {decision.setting for decision in reading.decisions if decision.guessed}


def bare(name: str, arguments: dict[str, Any], randomised: Randomised, **asked: Any) -> tuple[Any, ...]:
    """A timm model, its arrays, and what is found of them without config.json and without a name."""
    model = make(name, arguments)
    arrays = randomised(model)
    return model, arrays, Found({n: a.shape for n, a in arrays.items()}, asked=asked)


@pytest.mark.parametrize(
    ("name", "arguments", "asked", "guessed"),
    [
        ("vit_base_patch16_224", NARROW, {}, {"heads", "pooling"}),
        ("vit_base_patch16_224", NARROW | {"global_pool": "avg"}, {}, {"heads"}),
        ("vit_small_patch14_reg4_dinov2", NARROW, {}, {"heads", "pooling"}),
        ("vit_base_patch16_clip_224", NARROW, {}, {"heads", "pooling", "norm_eps", "activation"}),
        ("vit_base_patch16_siglip_224", NARROW, {}, {"heads", "activation"}),
        ("vit_base_patch16_siglip_gap_224", NARROW, {}, {"heads"}),
        ("vit_base_patch16_224", SMALL, {"heads": 3, "image_size": (32, 48), "pooling": "class"}, set()),
    ],
)
def test_weights_alone_are_read_by_names_and_shapes_and_guesses_are_marked(
    name: str, arguments: dict[str, Any], asked: dict[str, Any], guessed: set[str], build: Build, randomised: Randomised
) -> None:
    heads = {} if "num_heads" in arguments else {"num_heads": 2}
    model, arrays, found = bare(name, arguments | heads, randomised, **asked)
    assert format_timm.recognises(found)
    reading = format_timm.read(found)
    with torch.no_grad():
        assert (build(reading, arrays)(images(model)) - model(images(model))).abs().max() < 1e-5
    assert guesses(reading) - {"mean and std", "resize", "interpolation"} == guessed


@pytest.mark.parametrize(
    "found",
    [
        {"name": "vit_base_patch16_clip_quickgelu_224.openai"},
        {"extras": {"arch": "vit_base_patch16_clip_quickgelu_224"}},
    ],
)
def test_an_architectures_name_settles_what_the_tensors_do_not_tell(
    found: dict[str, Any], build: Build, randomised: Randomised
) -> None:
    model, arrays, _ = bare(
        "vit_base_patch16_clip_quickgelu_224", NARROW | {"num_heads": 12, "embed_dim": 96}, randomised
    )
    reading = format_timm.read(Found({n: a.shape for n, a in arrays.items()}, **found))
    with torch.no_grad():
        assert (build(reading, arrays)(images(model)) - model(images(model))).abs().max() < 1e-5
    assert {"heads", "norm_eps", "activation"} & guesses(reading) == set()
    assert "vit_base_patch16_clip_quickgelu_224" in reasons(reading)["activation"]


def test_classes_are_named_by_label_names(randomised: Randomised) -> None:
    model = make("vit_base_patch16_224", SMALL | {"num_classes": 2})
    shapes = {n: a.shape for n, a in randomised(model).items()}
    names = described("vit_base_patch16_224", model, SMALL) | {"label_names": ["cat", "dog"]}
    assert format_timm.read(Found(shapes, described=names)).class_names == ("cat", "dog")


def test_a_width_of_no_usual_heads_asks_for_them(randomised: Randomised) -> None:
    *_, found = bare("vit_base_patch16_224", SMALL, randomised)
    with pytest.raises(CheckpointError, match=r"width of 48.*say heads=N"):
        format_timm.read(found)


SHAPES = {
    "cls_token": (1, 1, 192),
    "pos_embed": (1, 5, 192),
    "patch_embed.proj.weight": (192, 3, 8, 8),
    "patch_embed.proj.bias": (192,),
    "blocks.0.norm1.weight": (192,),
    "blocks.0.attn.qkv.weight": (576, 192),
    "blocks.0.attn.qkv.bias": (576,),
    "blocks.0.attn.proj.weight": (192, 192),
    "blocks.0.mlp.fc1.weight": (768, 192),
    "blocks.0.mlp.fc2.weight": (192, 768),
    "norm.weight": (192,),
    "head.weight": (10, 192),
}
CONFIG: dict[str, Any] = {
    "architecture": "vit_tiny_patch16_224",
    "global_pool": "token",
    "pretrained_cfg": {"input_size": [3, 16, 16]},
}


def read(changes: dict[str, Any], shapes: dict[str, tuple[int, ...]] | None = None) -> Reading:
    return format_timm.read(Found({**SHAPES, **(shapes or {})}, described=CONFIG | changes))


def test_what_config_json_says_is_no_guess() -> None:
    reading = read({})
    assert reading.config == ViTConfig(
        image_size=(16, 16), patch_size=(8, 8), classes=10, width=192, depth=1, heads=3, norm_after_pooling=False
    )
    assert reasons(reading)["heads"] == "timm's architecture vit_tiny_patch16_224"
    assert not guesses(reading) & {"heads", "pooling", "norm_eps", "activation", "image_size"}


def test_what_config_json_leaves_out_is_told_by_the_tensors_or_guessed() -> None:
    reading = format_timm.read(Found(SHAPES, described={"architecture": "vit_tiny_patch16_224"}))
    assert reading.config.image_size == (16, 16)
    assert reading.config.pooling == "class"
    assert "pooling" in guesses(reading)


def test_an_empty_global_pool_leaves_the_choice_open() -> None:
    reading = read({"global_pool": ""})
    assert reading.config.pooling == "class"
    assert "pooling" in guesses(reading)


@pytest.mark.parametrize(
    "name",
    [
        "vit_base_patch16_224",
        "vit_small_patch14_reg4_dinov2",
        "deit_base_patch16_224",
        "deit3_large_patch16_384",
        "vit_base_patch16_224_miil",
        "vit_base_patch16_clip_quickgelu_224",
        "vit_so400m_patch14_siglip_224",
        "vit_small_r26_s32_224",
    ],
)
def test_names_of_vits_are_accepted(name: str) -> None:
    assert read({"architecture": name, "model_args": {"num_heads": 3}}).config.width == 192


@pytest.mark.parametrize(
    "name",
    [
        "resnet50",
        "vit_base_patch16_rpn_224",
        "vit_small_patch16_18x2_224",
        "vit_small_patch16_rope_224",
        "vit_pwee_patch16_reg1_gap_256",
        "vit_base_patch16_radio_v3",
        "vit_small_resnet26d_224",
        "eva02_base_patch14_224",
        "beit3_base_patch16_224",
        "vit_intern300m_patch14_448",
        None,
        7,
        "vit_" + "x" * 300,
    ],
)
def test_names_of_other_architectures_are_refused(name: Any) -> None:
    with pytest.raises(CheckpointError, match="open it with timm itself") as refusal:
        read({"architecture": name})
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_args": {"scale_attn_norm": True}}, "scale_attn_norm=True, which vitreous has no word for"),
        ({"model_args": {"\x1b[31m": 1}}, r"has \\x1b\[31m=1, which vitreous has no word for"),
        ({"model_args": {"act_layer": "silu"}}, "act_layer='silu', which"),
        ({"model_args": {"norm_layer": "rmsnorm"}}, "norm_layer='rmsnorm', which"),
        ({"model_args": {"final_norm": False}}, "final_norm=False, which"),
        ({"model_args": {"proj_bias": False}}, "proj_bias=False, which"),
        ({"model_args": {"qk_norm": True}}, "qk_norm=True, the weights False"),
        ({"model_args": {"embed_dim": 384}}, "embed_dim=384, the weights 192"),
        ({"model_args": {"depth": 12}}, "depth=12, the weights 1"),
        ({"model_args": {"num_heads": 5}}, "make no ViT: width 192 is not a multiple of heads 5"),
        ({"model_args": {"num_heads": "3"}}, "heads is '3'"),
        ({"model_args": {"img_size": "224"}}, "image size is '224'"),
        ({"model_args": [3]}, "it is an object of settings"),
        ({"global_pool": "avgmax"}, "global_pool is 'avgmax'"),
        ({"global_pool": ["avg"]}, "global_pool is"),
        ({"model_args": {"global_pool": "avg", "pool_include_prefix": True}}, "pool_include_prefix=True, which"),
        ({"architecture": "vit_giant_patch14_dinov2"}, "MLP's shapes are not those of"),
        ({"label_names": ["a"]}, "has 1 label_names, the head 10 classes"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(changes)


@pytest.mark.parametrize("name", ["patch_embed.proj.weight", "blocks.0.mlp.fc1.weight", "head.weight", "pos_embed"])
def test_tensors_of_another_form_are_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match=f"{name} is"):
        read({}, {name: (3,)})
    with pytest.raises(CheckpointError, match=f"{name} is"):
        read({}, {name: (0,) * len(SHAPES[name])})


def test_a_tensor_without_a_place_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"no place for 'blocks\.0\.attn\.lambda_q1'"):
        read({}, {"blocks.0.attn.lambda_q1": (8,)})


def test_a_block_that_differs_from_the_first_is_refused() -> None:
    more = {name.replace(".0.", ".1."): shape for name, shape in SHAPES.items() if name.startswith("blocks.")}
    assert read({}, more).config.depth == 2
    with pytest.raises(CheckpointError, match=r"blocks are not all alike: some have ls1\.gamma"):
        read({}, more | {"blocks.1.ls1.gamma": (192,)})


def test_pooling_over_the_tokens_before_the_patches_is_refused_unless_there_are_none() -> None:
    pooled = {"norm.weight": (192,)}
    shapes = {name: shape for name, shape in SHAPES.items() if name != "cls_token"} | {"pos_embed": (1, 4, 192)}
    arguments = {"model_args": {"global_pool": "avg", "pool_include_prefix": True}}
    assert format_timm.read(Found(shapes | pooled, described=CONFIG | arguments)).config.pooling == "mean"
    with pytest.raises(CheckpointError, match="pool_include_prefix"):
        read(arguments)
