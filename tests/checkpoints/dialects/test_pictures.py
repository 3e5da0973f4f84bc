from __future__ import annotations

from vitreous.checkpoints.dialects.pictures import decided
from vitreous.data.pipelines import dinov3, timm_default


def test_a_crop_is_told_by_both_its_sizes() -> None:
    said = {decision.setting: decision for decision in decided(timm_default((224, 224)), "its code")}
    assert said["resize"].value == "centre 224 x 224 of 256 x 256"
    assert said["interpolation"].value == "bicubic"
    assert said["mean and std"].value == [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]
    assert {(decision.reason, decision.guessed) for decision in said.values()} == {("its code", False)}


def test_a_squash_is_told_by_its_size_and_a_guess_is_marked() -> None:
    said = decided(dinov3((256, 128)), "usual", guessed=True)
    assert [decision.value for decision in said][1:] == ["squashed to 256 x 128", "bilinear"]
    assert all(decision.guessed for decision in said)
