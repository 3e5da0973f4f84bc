from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from vitreous.checkpoints.formats import dino
from vitreous.checkpoints.reading import Found, Reading
from vitreous.errors import CheckpointError
from vitreous.model.vit import VisionTransformer

Build = Callable[[Reading, Mapping[str, np.ndarray]], VisionTransformer]


@pytest.mark.parametrize(
    ("case", "name"), [("dino", "dino_deitsmall16_pretrain"), ("ibot", "ibot_vits_16"), ("msn", "vitl16_600ep_msn")]
)
def test_features_are_those_of_the_projects_own_code_at_every_size(
    case: str, name: str, torch_state: Callable[[str], Any], build: Build
) -> None:
    state = torch_state(case)
    found = Found(state.shapes, "torch", name=name)
    assert dino.recognises(found)
    reading = dino.read(found)
    model = build(reading, state.arrays)
    for images, features in state.outputs:
        with torch.no_grad():
            assert (model(images) - features).abs().max() < 1e-5
    assert not {decision.setting for decision in reading.decisions if decision.guessed}
    assert {d.setting: d.reason for d in reading.decisions}["project"].startswith("the file's name")


@pytest.mark.parametrize(
    ("marker", "project", "interpolation"),
    [
        ({"masked_embed": (1, 64)}, "iBOT", "bicubic"),
        ({"fc.fc1.weight": (128, 64), "fc.fc1.bias": (128,), "pred.fc1.weight": (4, 64)}, "MSN", "bilinear"),
        ({"head.mlp.0.weight": (8, 64), "head.last_layer.weight_v": (9, 8)}, "DINO", "bicubic"),
        ({"head.last_layer.weight_v": (9, 8), "head.last_layer2.weight_v": (9, 8)}, "iBOT", "bicubic"),
    ],
)  # fmt: skip
def test_what_a_project_adds_names_it_and_is_left_out(
    marker: dict[str, tuple[int, ...]], project: str, interpolation: str, torch_state: Callable[[str], Any]
) -> None:
    found = Found(torch_state("dino").shapes | marker)
    assert dino.recognises(found)
    reading = dino.read(found)
    assert {d.setting: d.value for d in reading.decisions}["project"] == project
    assert set(reading.ignored) == set(marker)
    assert reading.preprocess.interpolation == interpolation
    assert (reading.preprocess.image_size, reading.preprocess.crop_fraction) == ((32, 32), 0.875)


@pytest.mark.parametrize("name", ["vit_small", "dinov2_vits14", "dino_v3_vitb16", "mask_dino", "casino", ""])
def test_names_of_other_projects_are_not_its_own(name: str, torch_state: Callable[[str], Any]) -> None:
    assert not dino.recognises(Found(torch_state("dino").shapes, name=name))


def test_heads_have_64_numbers_unless_the_user_says_otherwise(torch_state: Callable[[str], Any]) -> None:
    shapes = torch_state("dino").shapes
    assert dino.read(Found(shapes, name="dino")).config.heads == 1
    assert dino.read(Found(shapes, name="dino", asked={"heads": 4})).config.heads == 4


def test_a_table_of_no_square_asks_for_the_image_size(torch_state: Callable[[str], Any]) -> None:
    shapes = torch_state("dino").shapes | {"pos_embed": (1, 13, 64)}
    with pytest.raises(CheckpointError, match="no square grid"):
        dino.read(Found(shapes, name="dino"))
    assert dino.read(Found(shapes, name="dino", asked={"image_size": (24, 32)})).config.rows == 3
