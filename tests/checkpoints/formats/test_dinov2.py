from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vitreous.checkpoints.formats import dinov2
from vitreous.checkpoints.reading import Found, Reading
from vitreous.errors import CheckpointError
from vitreous.model.vit import VisionTransformer

Build = Callable[[Reading, Mapping[str, np.ndarray]], VisionTransformer]
State = Callable[[str], Any]


@pytest.mark.parametrize(
    ("case", "rule"),
    [("dinov2", "dinov2"), ("dinov2_registers", "dinov2-registers"), ("dinov2_swiglu", "dinov2")],
)
def test_features_are_those_of_dinov2s_own_code_at_every_size(
    case: str, rule: str, torch_state: State, build: Build
) -> None:
    state = torch_state(case)
    found = Found(state.shapes, "torch")
    assert dinov2.recognises(found)
    reading = dinov2.read(found)
    model = build(reading, state.arrays)
    for images, features in state.outputs:
        with torch.no_grad():
            assert (model(images) - features).abs().max() < 1e-5
    assert reading.config.resampling == rule
    assert set(reading.ignored) == {"mask_token"}
    assert not any(decision.guessed for decision in reading.decisions)


def test_timm_reads_the_same_file_alike(torch_state: State, build: Build) -> None:
    timm = pytest.importorskip("timm")
    convert = timm.models.vision_transformer.checkpoint_filter_fn
    state = torch_state("dinov2_registers")
    with torch.random.fork_rng():
        reference: nn.Module = timm.create_model(
            "vit_small_patch14_reg4_dinov2", img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=1
        ).eval()
    weights = {name: torch.from_numpy(array) for name, array in state.arrays.items()}
    reference.load_state_dict(convert(weights, reference))
    images, _ = state.outputs[0]
    with torch.no_grad():
        ours = build(dinov2.read(Found(state.shapes)), state.arrays)(images)
        assert (ours - reference(images)).abs().max() < 1e-5


def test_registers_have_no_position(torch_state: State) -> None:
    reading = dinov2.read(Found(torch_state("dinov2_registers").shapes))
    reason = {d.setting: d.reason for d in reading.decisions}["positions of the prefix"]
    assert reason == "the table has the class token and patches only, not 4 other tokens; adding 0 is exact"


def test_images_are_prepared_for_224_pixels_though_positions_are_of_518() -> None:
    shapes = sizes_of_a_small_14()
    reading = dinov2.read(Found(shapes))
    assert (reading.config.image_size, reading.preprocess.image_size) == ((518, 518), (224, 224))
    assert reading.preprocess.enlarged_size == (256, 256)
    asked = dinov2.read(Found(shapes, asked={"image_size": (518, 518)}))
    assert asked.preprocess.image_size == (518, 518)


def test_a_tensor_without_a_place_is_refused(torch_state: State) -> None:
    with pytest.raises(CheckpointError, match=r"no place for 'head_extra\.weight'"):
        dinov2.read(Found(torch_state("dinov2").shapes | {"head_extra.weight": (3, 64)}))


def sizes_of_a_small_14() -> dict[str, tuple[int, ...]]:
    block = {
        "norm1.weight": (64,), "norm1.bias": (64,), "attn.qkv.weight": (192, 64), "attn.proj.weight": (64, 64),
        "mlp.fc1.weight": (256, 64), "mlp.fc2.weight": (64, 256),
    }  # fmt: skip
    first = {"patch_embed.proj.weight": (64, 3, 14, 14), "cls_token": (1, 1, 64), "pos_embed": (1, 1370, 64)}
    return first | {"mask_token": (1, 64)} | {f"blocks.0.{name}": shape for name, shape in block.items()}
