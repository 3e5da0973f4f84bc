from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitreous.checkpoints.timm_preprocess import preprocess_from_timm, preprocess_to_timm
from vitreous.data.preprocess import HALF_MEAN, HALF_STD, IMAGENET_MEAN, IMAGENET_STD, Preprocess
from vitreous.data.transforms import to_tensor
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
    assert guessed == {"preprocess.image_size", "interpolation", "crop_fraction", "mean", "std"}


def test_squash_keeps_the_whole_picture() -> None:
    preprocess, decisions = preprocess_from_timm(WHOLE | {"crop_mode": "squash", "crop_pct": 1.0})
    assert (preprocess.resize, preprocess.crop_fraction, decisions) == ("squash", 1.0, ())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"interpolation": "lanczos"},
        {"crop_mode": "border"},
        {"crop_mode": "border", "crop_pct": 1, "mean": [0.1, 0.4, 0.7]},
        {"crop_mode": "squash", "crop_pct": 0.8},
        {"crop_mode": "squash", "crop_pct": 1},
        {"crop_mode": None, "input_size": [3, 30, 30], "interpolation": "hamming"},
    ],
)
def test_pictures_are_prepared_as_timm_does_and_written_as_timm_reads(changes: dict[str, Any]) -> None:
    timm_data = pytest.importorskip("timm.data")
    theirs = timm_data.create_transform(**(WHOLE | changes))
    preprocess, decisions = preprocess_from_timm(WHOLE | changes)
    written, differences = preprocess_to_timm(preprocess)
    assert decisions == differences == ()
    assert preprocess_from_timm(written) == (preprocess, ())
    again = timm_data.create_transform(**written)
    for size in [(50, 37), (37, 50), (48, 32), (7, 5), (90, 20)]:
        values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        image = Image.fromarray(values)
        assert torch.equal(to_tensor(image, preprocess), theirs(image)), size
        assert torch.equal(to_tensor(image, preprocess), again(image)), size


@pytest.mark.parametrize(
    ("preprocess", "difference"),
    [
        (Preprocess(resampler="torch"), "timm resizes by Pillow, antialiased and in bytes, not by torch"),
        (Preprocess(interpolation="bilinear", resampler="tensorflow"), "not by tensorflow"),
        (Preprocess(rounding="transformers"), "odd number of spare pixels"),
        (Preprocess((20, 30), rounding="transformers"), "by the shorter edge alone"),
        (Preprocess(resize="none", crop_fraction=1.0), "resizes pictures of another size"),
        (Preprocess(resize="cut", crop_fraction=1.0), "resizes pictures of another size"),
    ],
)
def test_what_timm_cannot_say_is_said(preprocess: Preprocess, difference: str) -> None:
    assert any(difference in sentence for sentence in preprocess_to_timm(preprocess)[1])


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"interpolation": "random"}, "interpolation"),
        ({"crop_mode": "corner"}, "resize"),
        ({"crop_mode": ["center"]}, "resize"),
    ],
)
def test_what_has_no_counterpart_is_a_guess(changes: dict[str, Any], setting: str) -> None:
    _, decisions = preprocess_from_timm(WHOLE | changes)
    assert [decision.setting for decision in decisions if decision.guessed] == [setting]


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop_pct": 1.5},
        {"crop_pct": "x"},
        {"crop_pct": 10**400},
        {"mean": 0.5},
        {"std": [0, 0, 0]},
        {"input_size": 3},
        {"input_size": {"height": 3}},
        {"mean": ["a"] * 3},
    ],
)
def test_values_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"preprocessing in config.json cannot be used"):
        preprocess_from_timm(WHOLE | wrong)
