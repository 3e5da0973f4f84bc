from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from vitreous.data.preprocess import (
    CLIP_MEAN,
    CLIP_STD,
    HALF_MEAN,
    HALF_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Preprocess,
    Resampler,
    fraction_for,
)
from vitreous.errors import ConfigError


def test_the_statistics_are_torchvisions_and_googles() -> None:
    from torchvision.models import ViT_B_16_Weights

    transforms = ViT_B_16_Weights.DEFAULT.transforms()
    assert (tuple(transforms.mean), tuple(transforms.std)) == (IMAGENET_MEAN, IMAGENET_STD)
    assert [(0 - m) / s for m, s in zip(HALF_MEAN, HALF_STD, strict=True)] == [-1, -1, -1]
    assert [(1 - m) / s for m, s in zip(HALF_MEAN, HALF_STD, strict=True)] == [1, 1, 1]


def test_clips_statistics_are_open_ais() -> None:
    from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    assert (list(CLIP_MEAN), list(CLIP_STD)) == (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)


def test_it_survives_json() -> None:
    for preprocess in (
        Preprocess((32, 48), "squash", 1.0, "bilinear", HALF_MEAN, HALF_STD),
        Preprocess((32, 48), "crop", 1.3, "bicubic", resampler="torch", rounding="transformers"),
    ):
        assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess


def test_records_without_a_resampler_mean_what_they_meant() -> None:
    saved = {"image_size": [224, 224], "resize": "crop", "crop_fraction": 0.9, "interpolation": "bilinear",
             "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}  # fmt: skip
    preprocess = Preprocess.from_dict(saved)
    assert (preprocess.resampler, preprocess.rounding) == ("pillow", "torchvision")
    assert preprocess == Preprocess((224, 224), "crop", 0.9, "bilinear", HALF_MEAN, HALF_STD)


def test_every_size_has_a_fraction_that_resizes_to_it_exactly() -> None:
    assert fraction_for(224, 256) == 0.875
    for crop in range(1, 90):
        for resized in range(max(1, crop - 20), 600, 7):
            preprocess = Preprocess((crop, crop), "crop", fraction_for(crop, resized), rounding="transformers")
            assert preprocess.enlarged_size == (resized, resized)


def test_pixels_are_whole_numbers_unless_someone_leaves_fractions() -> None:
    whole = {r: Preprocess(interpolation="bilinear", resampler=r).has_bytes for r in get_args(Resampler)}
    assert [resampler for resampler, is_whole in whole.items() if not is_whole] == ["torch-float", "tensorflow"]
    assert Preprocess(resize="cut", crop_fraction=1.0, interpolation="bilinear", resampler="tensorflow").has_bytes


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image_size": (224,)}, "image_size"),
        ({"image_size": (0, 224)}, "image_size"),
        ({"image_size": (2.5, 224)}, "image_size"),
        ({"resize": "stretch"}, "choose one of squash, crop"),
        ({"interpolation": "cubic"}, "choose one of nearest, bilinear, bicubic"),
        ({"resampler": "opencv"}, "choose one of pillow, torch, torch-float, tensorflow"),
        ({"rounding": "up"}, "choose one of torchvision, transformers"),
        ({"resampler": "torch", "interpolation": "lanczos"}, "'torch' does not have; choose one of nearest, bilinear"),
        ({"resampler": "tensorflow"}, "'tensorflow' does not have; choose one of bilinear"),
        ({"crop_fraction": 0.0}, "crop_fraction is 0.0"),
        ({"crop_fraction": 1.1}, "crop_fraction is 1.1"),
        ({"crop_fraction": float("nan")}, "crop_fraction is nan"),
        ({"crop_fraction": 1.1, "resize": "border", "rounding": "transformers"}, "crop_fraction is 1.1"),
        ({"crop_fraction": float("inf"), "rounding": "transformers"}, "does not resize to 1 to 16384"),
        ({"crop_fraction": 0.001}, "does not resize to 1 to 16384"),
        ({"resize": "squash"}, "keeps the whole picture"),
        ({"resize": "cut"}, "'cut' resizes nothing"),
        ({"resize": "none"}, "'none' resizes nothing"),
        ({"mean": (0.5,)}, "three finite numbers"),
        ({"mean": (0.5, 0.5, float("inf"))}, "three finite numbers"),
        ({"std": (0.5, 0.0, 0.5)}, "must be above 0"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Preprocess(**wrong)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ConfigError, match="no setting 'size'"):
        Preprocess.from_dict({"size": 3})
