from __future__ import annotations

from typing import Any

import pytest

from vitreous.checkpoints.hf_preprocess import preprocess_from_hf
from vitreous.data.preprocess import HALF_MEAN, HALF_STD, IMAGENET_MEAN, IMAGENET_STD, Preprocess
from vitreous.errors import CheckpointError

# What google/vit-base-patch16-224 and facebook/dinov2-base have in their preprocessor_config.json.
VIT: dict[str, Any] = {
    "do_normalize": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
    "size": {"height": 224, "width": 224},
}
DINOV2: dict[str, Any] = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "image_mean": list(IMAGENET_MEAN),
    "image_std": list(IMAGENET_STD),
    "resample": 3,
    "size": {"shortest_edge": 256},
}


def test_googles_vit_is_squashed() -> None:
    expected = Preprocess((224, 224), "squash", 1.0, "bilinear", HALF_MEAN, HALF_STD)
    assert preprocess_from_hf(VIT, 224) == (expected, ())


def test_dinov2_is_cropped() -> None:
    expected = Preprocess((224, 224), "crop", 0.875, "bicubic", IMAGENET_MEAN, IMAGENET_STD)
    assert preprocess_from_hf(DINOV2, 518) == (expected, ())


@pytest.mark.parametrize("size", [224, [224, 224], (224, 224)])
def test_older_files_have_plain_numbers(size: Any) -> None:
    preprocess, decisions = preprocess_from_hf(VIT | {"size": size}, None)
    assert (preprocess.image_size, preprocess.resize, decisions) == ((224, 224), "squash", ())


def test_older_crops_have_plain_numbers() -> None:
    preprocess, decisions = preprocess_from_hf(DINOV2 | {"size": 256, "crop_size": 224}, None)
    assert (preprocess.image_size, preprocess.crop_fraction, decisions) == ((224, 224), 0.875, ())


def test_images_that_are_not_normalised_stay_as_they_are() -> None:
    preprocess, _ = preprocess_from_hf(VIT | {"do_normalize": False}, None)
    assert (preprocess.mean, preprocess.std) == ((0, 0, 0), (1, 1, 1))


def test_without_a_file_everything_is_a_guess_at_the_models_size() -> None:
    preprocess, decisions = preprocess_from_hf(None, 384)
    assert preprocess == Preprocess(image_size=(384, 384))
    assert decisions[0].guessed and "no preprocessor_config.json" in decisions[0].reason
    assert preprocess_from_hf(None, None)[0].image_size == (224, 224)
    assert preprocess_from_hf(None, [32, 48])[0].image_size == (32, 48)


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"resample": 1}, "interpolation"),
        ({"image_mean": None}, "mean and std"),
        ({"size": None}, "resize"),
        ({"size": {"shortest_edge": 224}}, "resize"),
    ],
)
def test_what_the_file_leaves_out_is_a_guess(changes: dict[str, Any], setting: str) -> None:
    _, decisions = preprocess_from_hf(VIT | changes, 224)
    assert [decision.setting for decision in decisions if decision.guessed] == [setting]


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": {"width": 3}},
        {"size": "large"},
        {"image_mean": [1]},
        {"do_center_crop": True, "crop_size": 300, "size": {"shortest_edge": 256}},
        {"do_center_crop": True, "crop_size": 300, "size": {"shortest_edge": 0}},
    ],
)
def test_values_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"preprocessor_config.json cannot be used"):
        preprocess_from_hf(VIT | wrong, 224)
