from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vitreous.checkpoints.formats import dinov3
from vitreous.checkpoints.reading import Found, Reading
from vitreous.errors import CheckpointError
from vitreous.model.vit import VisionTransformer

timm = pytest.importorskip("timm")

Randomised = Callable[[nn.Module], dict[str, np.ndarray]]
Build = Callable[[Reading, Mapping[str, np.ndarray]], VisionTransformer]
State = Callable[[str], Any]


def arrays_with_masks(state: Any, mask: float | None) -> dict[str, np.ndarray]:
    """The parameters, and masks of one number, or as DINOv3 fills them."""
    masks = {}
    for name, shape in state.shapes.items():
        if name.endswith("bias_mask"):
            filled = np.repeat(np.array([1, 0, 1], np.float32), shape[0] // 3)
            masks[name] = filled if mask is None else np.full(shape, mask, np.float32)
    return state.arrays | masks


@pytest.mark.parametrize("mask", [None, np.nan], ids=["filled", "never filled"])
@pytest.mark.parametrize("case", ["dinov3", "dinov3_swiglu"])
def test_features_are_those_of_dinov3s_own_code_at_every_size(
    case: str, mask: float | None, torch_state: State, build: Build
) -> None:
    state = torch_state(case)
    found = Found(state.shapes, "torch")
    assert dinov3.recognises(found)
    reading = dinov3.read(found)
    model = build(reading, arrays_with_masks(state, mask))
    for images, features in state.outputs:
        with torch.no_grad():
            assert (model(images) - features).abs().max() < 1e-5
    assert set(reading.ignored) == {"mask_token", "rope_embed.periods"}
    assert not any(decision.guessed for decision in reading.decisions)


def test_a_mask_of_ones_would_keep_the_bias_of_the_keys(torch_state: State, build: Build) -> None:
    state = torch_state("dinov3")
    reading = dinov3.read(Found(state.shapes))
    name = "blocks.0.attn.qkv.bias"
    with_ones = build(reading, arrays_with_masks(state, 1.0)).state_dict()[name]
    filled = build(reading, arrays_with_masks(state, None)).state_dict()[name]
    assert torch.equal(with_ones[:64], filled[:64])
    assert with_ones[64:128].abs().min() > 0
    assert filled[64:128].abs().max() == 0


def test_the_rotation_tells_the_heads(torch_state: State) -> None:
    shapes = torch_state("dinov3").shapes
    assert shapes["rope_embed.periods"] == (16,)
    assert dinov3.read(Found(shapes)).config.heads == 1
    assert dinov3.read(Found(shapes | {"rope_embed.periods": (4,)})).config.heads == 4


def test_another_image_size_needs_nothing_but_the_word(torch_state: State) -> None:
    reading = dinov3.read(Found(torch_state("dinov3").shapes, asked={"image_size": (24, 40)}))
    assert (reading.config.rows, reading.config.columns) == (3, 5)
    assert reading.preprocess.image_size == (24, 40)


def test_what_only_training_uses_is_left_out_and_what_cannot_be_told_apart_is_refused(torch_state: State) -> None:
    shapes = torch_state("dinov3").shapes
    local = {"local_cls_norm.weight": (64,), "local_cls_norm.bias": (64,)}
    assert set(local) < set(dinov3.read(Found(shapes | local)).ignored)
    with pytest.raises(CheckpointError, match="class token and patches apart"):
        dinov3.read(Found(shapes | {"cls_norm.weight": (64,), "cls_norm.bias": (64,)}))


def test_half_of_a_gated_mlp_is_refused(torch_state: State) -> None:
    shapes = dict(torch_state("dinov3_swiglu").shapes)
    del shapes["blocks.0.mlp.w2.weight"]
    with pytest.raises(CheckpointError, match=r"w2\.weight is missing"):
        dinov3.read(Found(shapes))


@pytest.mark.parametrize("pool", ["token", "avg"])
@pytest.mark.parametrize(
    "name", ["vit_small_patch16_dinov3", "vit_base_patch16_dinov3_qkvb", "vit_small_plus_patch16_dinov3_qkvb"]
)
def test_timms_own_files_of_it_give_timms_numbers(name: str, pool: str, build: Build, randomised: Randomised) -> None:
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 2, "num_heads": 2, "num_classes": 4}
    with torch.random.fork_rng():
        model = timm.create_model(name, global_pool=pool, **arguments)
    arrays = randomised(model)
    given = {
        "architecture": name,
        "global_pool": pool,
        "model_args": {"num_heads": 2},
        "pretrained_cfg": {"input_size": [3, 32, 32]},
        "label_names": ["cat", "dog", "owl", "crane"],
    }
    found = Found({key: array.shape for key, array in arrays.items()}, described=given)
    assert dinov3.recognises(found)
    images = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert (build(dinov3.read(found), arrays)(images) - model(images)).abs().max() < 1e-5
    assert dinov3.read(found).class_names == ("cat", "dog", "owl", "crane")
    bare = Found(found.shapes, asked={"pooling": "mean" if pool == "avg" else "class"})
    assert dinov3.recognises(bare)
    with torch.no_grad():
        assert (build(dinov3.read(bare), arrays)(images) - model(images)).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"rope_temperature": 10.0}, "rope_temperature=10.0, which vitreous has no word for"),
        ({"use_rot_pos_emb": False}, "use_rot_pos_emb=False, which"),
        ({"depth": 7}, "depth=7, the weights 2"),
    ],
)
def test_arguments_that_change_more_than_sizes_are_refused(
    argument: dict[str, Any], message: str, torch_state: State
) -> None:
    described = {"architecture": "vit_small_patch16_dinov3", "model_args": argument}
    with pytest.raises(CheckpointError, match=message):
        dinov3.read(Found(torch_state("dinov3").shapes, described=described))


@pytest.mark.parametrize("name", ["vit_small_patch16_224", "vit_small_patch16_rope_224", 7])
def test_other_names_of_timms_are_not_its_own(name: Any, torch_state: State) -> None:
    assert not dinov3.recognises(Found(torch_state("dinov3").shapes, described={"architecture": name}))


@pytest.mark.parametrize(
    ("name", "width", "mean", "guessed"),
    [
        ("dinov3_vitl16_pretrain_sat493m-eadcf0ff", 1024, 0.430, False),
        ("dinov3_vitl16_pretrain_lvd1689m-8aa4cbdd", 1024, 0.485, False),
        ("weights", 1024, 0.485, True),
        ("weights", 384, 0.485, False),
        ("dinov3_vit7b16_pretrain_sat493m", 4096, 0.430, False),
    ],
)
def test_weights_of_satellite_images_have_statistics_of_their_own(
    name: str, width: int, mean: float, guessed: bool
) -> None:
    block = {
        "norm1.weight": (width,), "attn.qkv.weight": (3 * width, width), "attn.proj.weight": (width, width),
        "mlp.fc1.weight": (4 * width, width), "mlp.fc2.weight": (width, 4 * width),
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {f"blocks.0.{part}": shape for part, shape in block.items()}
    shapes |= {"patch_embed.proj.weight": (width, 3, 16, 16), "rope_embed.periods": (16,), "cls_token": (1, 1, width)}
    reading = dinov3.read(Found(shapes, name=name))
    assert reading.preprocess.mean[0] == mean
    assert {d.setting for d in reading.decisions if d.guessed} == ({"mean and std"} if guessed else set())
    assert reading.config.heads == width // (128 if width == 4096 else 64)
