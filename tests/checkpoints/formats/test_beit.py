from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vitreous.checkpoints.formats import beit
from vitreous.checkpoints.reading import Found, Reading
from vitreous.errors import CheckpointError
from vitreous.model.vit import VisionTransformer

timm = pytest.importorskip("timm")

Build = Callable[[Reading, Mapping[str, np.ndarray]], VisionTransformer]
Randomised = Callable[[nn.Module], dict[str, np.ndarray]]

SMALL: dict[str, Any] = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": 5}


def make(size: tuple[int, int], **arguments: Any) -> nn.Module:
    with torch.random.fork_rng():
        return timm.create_model("beit_base_patch16_224", img_size=size, **SMALL, **arguments).eval()


@pytest.mark.parametrize("size", [(32, 32), (32, 48)])
@pytest.mark.parametrize(
    "arguments",
    [
        {"global_pool": "avg", "init_values": 0.1},
        {"global_pool": "token", "init_values": None},
        {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True},
        {"qkv_bias": False},
    ],
    ids=["fine-tuned", "class token", "shared table", "no bias"],
)
def test_logits_are_timms(
    arguments: dict[str, Any], size: tuple[int, int], build: Build, randomised: Randomised
) -> None:
    model = make(size, **arguments)
    arrays = randomised(model)
    index = {"blocks.0.attn.relative_position_index": (17, 17), "rel_pos_bias.relative_position_index": (17, 17)}
    shapes = {name: array.shape for name, array in arrays.items()} | index
    found = Found(shapes, "torch", asked={} if size == (32, 32) else {"image_size": size})
    assert beit.recognises(found)
    reading = beit.read(found)
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert (build(reading, arrays)(images) - model(images)).abs().max() < 1e-5
    assert set(index) <= set(reading.ignored)


def test_statistics_are_a_guess_because_its_versions_differ(randomised: Randomised) -> None:
    shapes = {name: array.shape for name, array in randomised(make((32, 32))).items()}
    reading = beit.read(Found(shapes | {"mask_token": (1, 1, 48), "lm_head.weight": (8192, 48)}))
    assert {d.setting for d in reading.decisions if d.guessed} == {"mean and std", "resize", "interpolation"}
    assert reading.preprocess.mean == (0.5, 0.5, 0.5)
    assert set(reading.ignored) == {"mask_token", "lm_head.weight"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pos_embed": (1, 17, 48)}, "positions of two kinds"),
        ({f"blocks.{layer}.attn.relative_position_bias_table": (50, 3) for layer in (0, 1)}, "of no square image"),
        ({f"blocks.{layer}.attn.relative_position_bias_table": (67, 3) for layer in (0, 1)}, "of no square image"),
        ({"blocks.0.attn.v_bias": (1, 2)}, "v_bias is"),
    ],
)
def test_other_forms_are_refused(changes: dict[str, Any], message: str, randomised: Randomised) -> None:
    shapes = {name: array.shape for name, array in randomised(make((32, 32))).items()}
    with pytest.raises(CheckpointError, match=message):
        beit.read(Found(shapes | changes))


def test_a_folder_of_timms_says_its_pooling_and_its_pictures(build: Build, randomised: Randomised) -> None:
    model = make((32, 48), global_pool="token", init_values=0.1)
    arrays = randomised(model)
    described = {
        "architecture": "beit_base_patch16_224",
        "global_pool": "token",
        "pretrained_cfg": {**model.pretrained_cfg, "input_size": [3, 32, 48], "label_names": list("abcde")},
    }
    found = Found({name: array.shape for name, array in arrays.items()}, described=described)
    assert beit.recognises(found)
    reading = beit.read(found)
    images = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert (build(reading, arrays)(images) - model(images)).abs().max() < 1e-5
    assert reading.class_names == ("a", "b", "c", "d", "e")
    with pytest.raises(CheckpointError, match="act_layer='relu', which vitreous has no word for"):
        beit.read(Found(found.shapes, described=described | {"model_args": {"act_layer": "relu"}}))
    assert reading.preprocess.mean == (0.5, 0.5, 0.5)
    assert not any(decision.guessed for decision in reading.decisions)
