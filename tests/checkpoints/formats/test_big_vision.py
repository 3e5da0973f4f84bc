from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from vitreous.checkpoints.formats import big_vision
from vitreous.checkpoints.reading import Found
from vitreous.data import pipelines
from vitreous.errors import CheckpointError
from vitreous.model.config import ViTConfig

WITH_HEAD = (
    "bv_tok", "bv_gap", "bv_map", "bv_hidden_head", "bv_wide_image", "bv_sincos2d", "bv_scan", "bv_optimizer",
    "bv_old_positions", "bv_old_gap", "bv_inlined_probe", "bv_lit", "bv_bfloat16",
)  # fmt: skip
HEADLESS = ("bv_siglip", "bv_siglip_scan")
CONFIG = ViTConfig(
    image_size=(32, 32), patch_size=(8, 8), width=24, depth=2, heads=3, mlp_ratio=40 / 24, classes=5,
    activation="gelu-tanh", norm_after_pooling=False, resampling="google",
)  # fmt: skip
MEAN = {"class_token": False, "pooling": "mean"}
MAP = {"class_token": False, "pooling": "map"}


@pytest.mark.parametrize("name", WITH_HEAD)
def test_the_logits_are_those_of_big_visions_code(name: str, google_cases: Any, build: Any) -> None:
    case = google_cases[name]
    model = build(big_vision.read(case.found(image_size=case.image_size)), case.arrays)
    with torch.no_grad():
        logits = model(case.images)
    assert (logits - case.outputs["logits"]).abs().max() <= 1e-4
    assert logits.std() > 0.3  # the classes differ


@pytest.mark.parametrize("name", HEADLESS)
def test_the_features_of_an_image_tower_are_those_of_big_visions_code(name: str, google_cases: Any, build: Any) -> None:
    case = google_cases[name]
    reading = big_vision.read(case.found())
    with torch.no_grad():
        assert (build(reading, case.arrays)(case.images) - case.outputs["features"]).abs().max() <= 1e-4
    assert set(reading.ignored) == {"params/txt/head/kernel", "params/t", "params/b"}
    assert "text tower" in reading.ignored["params/txt/head/kernel"]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("bv_tok", {}),
        ("bv_gap", MEAN),
        ("bv_map", MAP),
        ("bv_hidden_head", {"hidden_head": True}),
        ("bv_scan", {}),
        ("bv_old_positions", {}),
        ("bv_old_gap", MEAN),
        ("bv_siglip", MAP | {"classes": 0}),
        ("bv_siglip_scan", MAP | {"classes": 0}),
        ("bv_sincos2d", MEAN | {"positions": "sincos-2d", "image_size": (224, 224)}),
    ],
)
def test_names_and_shapes_tell_the_architecture(name: str, changes: dict[str, Any], google_cases: Any) -> None:
    assert big_vision.read(google_cases[name].found()).config == replace(CONFIG, **changes)


def test_what_the_file_does_not_tell_is_stated_and_guesses_are_marked(google_cases: Any) -> None:
    reading = big_vision.read(google_cases["bv_sincos2d"].found())
    decided = {decision.setting: decision for decision in reading.decisions}
    assert decided["activation"].value == "gelu-tanh"
    assert decided["norm_eps"].value == 1e-6
    assert decided["positions"].value == "sincos-2d"
    assert decided["pooling"].value == "mean"
    assert {name for name, decision in decided.items() if decision.guessed} == {
        "image_size", "mean and std", "resize", "interpolation", "resampler",
    }  # fmt: skip
    assert reading.preprocess == pipelines.big_vision((224, 224))


def test_the_class_token_has_a_position_of_zeros_unless_the_file_has_one(google_cases: Any, build: Any) -> None:
    new, old = google_cases["bv_tok"], google_cases["bv_old_positions"]
    table = build(big_vision.read(new.found()), new.arrays).pos_embed
    assert torch.equal(table[0, 0], torch.zeros(24))
    assert np.array_equal(table[:, 1:].detach().numpy(), new.arrays["params/pos_embedding"])
    whole = build(big_vision.read(old.found()), old.arrays).pos_embed
    assert np.array_equal(whole.detach().numpy(), old.arrays["params/Transformer/pos_embedding"])


def test_the_position_of_a_class_token_that_was_taken_away_is_left_out(google_cases: Any) -> None:
    shapes = google_cases["bv_old_gap"].shapes | {"params/Transformer/pos_embedding": (1, 17, 24)}
    reading = big_vision.read(Found(shapes, "npz"))
    table = torch.randn(1, 17, 24, generator=torch.Generator().manual_seed(0))
    assert reading.config.image_size == (32, 32)
    assert torch.equal(reading.plan["pos_embed"].make(table), table[:, 1:])


@pytest.mark.parametrize(("rows", "side", "own"), [(1, 8, 0), (2, 8, 1), (4, 16, 0), (5, 16, 1)])
def test_a_row_more_than_a_square_belongs_to_the_class_token(rows: int, side: int, own: int, google_cases: Any) -> None:
    shapes = google_cases["bv_tok"].shapes | {"params/pos_embedding": (1, rows, 24)}
    reading = big_vision.read(Found(shapes, "npz"))
    made = reading.plan["pos_embed"].make(torch.ones(1, rows, 24))
    assert reading.config.image_size == (side, side)
    assert made.shape == (1, reading.config.tokens, 24)
    assert made[0, 0, 0] == own


@pytest.mark.parametrize(("rows", "own"), [(24, 0), (25, 1)])
def test_an_asked_image_size_tells_whether_the_class_token_has_a_position(
    rows: int, own: int, google_cases: Any
) -> None:
    shapes = google_cases["bv_tok"].shapes | {"params/pos_embedding": (1, rows, 24)}
    reading = big_vision.read(Found(shapes, "npz", asked={"image_size": (32, 48)}))
    made = reading.plan["pos_embed"].make(torch.ones(1, rows, 24))
    assert made.shape == (1, 25, 24)
    assert made[0, 0, 0] == own


def test_a_table_that_fits_no_square_needs_the_image_size(google_cases: Any) -> None:
    with pytest.raises(CheckpointError, match="24 patches"):
        big_vision.read(google_cases["bv_wide_image"].found())


def test_one_layer_of_a_scanned_encoder_does_not_hold_the_others_in_memory(google_cases: Any) -> None:
    case = google_cases["bv_scan"]
    plan = big_vision.read(case.found()).plan
    part = plan["blocks.1.norm1.weight"]
    stacked = torch.from_numpy(case.arrays[part.sources[0]])
    assert torch.equal(part.make(stacked), stacked[1])
    assert part.make(stacked).untyped_storage().nbytes() == stacked[1].nbytes


def test_two_blocks_are_not_taken_for_each_other(google_cases: Any) -> None:
    plan = big_vision.read(google_cases["bv_map"].found()).plan
    for ours, part in plan.items():
        layer = ours.split(".")[1] if ours.startswith("blocks.") else None
        assert layer is None or all(f"encoderblock_{layer}/" in source for source in part.sources)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("params/MAPHead_0/LayerNorm_1/scale", (24,), "no place for 'params/MAPHead_0/LayerNorm_1/scale'"),
        ("params/register_tokens", (1, 4, 24), "no place for 'params/register_tokens'"),
        ("params/Transformer/encoderblock_3/LayerNorm_0/scale", (24,), "not numbered from 0 on; there are 0, 1, 3"),
        ("params/pos_embedding", (4, 4, 24, 1), "it has 3 axes"),
    ],
)
def test_what_does_not_belong_is_refused_by_name(name: str, shape: Any, message: str, google_cases: Any) -> None:
    shapes = google_cases["bv_map"].shapes | {name: shape}
    with pytest.raises(CheckpointError, match=message):
        big_vision.read(Found(shapes, "npz"))


def test_a_missing_array_is_named(google_cases: Any) -> None:
    shapes = google_cases["bv_map"].shapes
    del shapes["params/Transformer/encoderblock_0/MlpBlock_0/Dense_0/kernel"]
    with pytest.raises(CheckpointError, match="encoderblock_0/MlpBlock_0/Dense_0/kernel is missing"):
        big_vision.read(Found(shapes, "npz"))
