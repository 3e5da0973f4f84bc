from __future__ import annotations

import pytest

from vitreous.checkpoints.dialects.settled import about_classes, about_images, config_of
from vitreous.checkpoints.loaded import Decision
from vitreous.data.pipelines import dinov3, timm_default
from vitreous.errors import CheckpointError
from vitreous.model.config import ViTConfig


def test_a_crop_is_told_by_both_its_sizes() -> None:
    said = {decision.setting: decision for decision in about_images(timm_default((224, 224)), "its code")}
    assert said["resize"].value == "centre 224 x 224 of 256 x 256"
    assert said["interpolation"].value == "bicubic"
    assert said["mean and std"].value == [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]
    assert {(decision.reason, decision.guessed) for decision in said.values()} == {("its code", False)}


def test_a_squash_is_told_by_its_size_and_a_guess_is_marked_and_so_is_another_resampler_than_pillow() -> None:
    said = about_images(dinov3((256, 128)), "usual", guessed=True)
    assert [decision.value for decision in said][1:] == ["squashed to 256 x 128", "bilinear", "torch"]
    assert all(decision.guessed for decision in said)


def test_classes_are_said_once() -> None:
    assert [decision.value for decision in about_classes(ViTConfig(classes=7))] == [7]
    assert "no head" in about_classes(ViTConfig(classes=0))[0].reason
    assert about_classes(ViTConfig(classes=7), [Decision("classes", 7, "the projection")]) == ()


def test_settings_that_make_no_vit_are_refused_on_one_short_line() -> None:
    assert config_of({"image_size": [32, 32], "patch_size": [8, 8]}) == ViTConfig((32, 32), (8, 8))
    for values in ({"heads": 7}, {"activation": "\x1b[31m" + "x" * 999}, {"heads": None}):
        with pytest.raises(CheckpointError, match="make no ViT") as refusal:
            config_of(values)
        assert str(refusal.value).isprintable() and len(str(refusal.value)) < 400
