from __future__ import annotations

from typing import Any

import pytest

from vitreous.checkpoints.timm_preprocess import preprocess_from_timm
from vitreous.data.preprocess import HALF_MEAN, HALF_STD, IMAGENET_MEAN, IMAGENET_STD, Preprocess
from vitreous.errors import CheckpointError

WHOLE: dict[str, Any] = {
    "input_size": [3, 32, 48],
    "interpolation": "bilinear",
    "crop_pct": 0.9,
    "crop_mode": "center",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
}


def test_what_timm_says_is_taken() -> None:
    preprocess, decisions = preprocess_from_timm(WHOLE)
    assert preprocess == Preprocess((32, 48), "crop", 0.9, "bilinear", HALF_MEAN, HALF_STD)
    assert decisions == ()


def test_what_timm_leaves_out_is_its_default_and_a_guess() -> None:
    preprocess, decisions = preprocess_from_timm({})
    assert preprocess == Preprocess((224, 224), "crop", 0.875, "bicubic", IMAGENET_MEAN, IMAGENET_STD)
    guessed = {decision.setting for decision in decisions if decision.guessed}
    assert guessed == {"input_size", "interpolation", "crop_pct", "mean", "std"}


def test_squash_keeps_the_whole_picture() -> None:
    preprocess, decisions = preprocess_from_timm(WHOLE | {"crop_mode": "squash", "crop_pct": 1.0})
    assert (preprocess.resize, preprocess.crop_fraction, decisions) == ("squash", 1.0, ())


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"interpolation": "lanczos"}, "interpolation"),
        ({"crop_mode": "border"}, "resize"),
        ({"crop_mode": "squash", "crop_pct": 0.9}, "resize"),
    ],
)
def test_what_has_no_counterpart_is_a_guess(changes: dict[str, Any], setting: str) -> None:
    _, decisions = preprocess_from_timm(WHOLE | changes)
    assert [decision.setting for decision in decisions if decision.guessed] == [setting]


@pytest.mark.parametrize(
    "wrong",
    [{"crop_pct": 1.5}, {"crop_pct": "x"}, {"mean": 0.5}, {"std": [0, 0, 0]}, {"input_size": 3}, {"mean": ["a"] * 3}],
)
def test_values_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"preprocessing in config.json cannot be used"):
        preprocess_from_timm(WHOLE | wrong)
