from __future__ import annotations

from typing import Any

import pytest
import torch

from vitreous.errors import ConfigError
from vitreous.model.presets import SIZES, named_config
from vitreous.model.vit import VisionTransformer

GAP: dict[str, Any] = {"pooling": "mean", "class_token": False}

# Published counts: google-research/vision_transformer (vit_jax/models_test.py), and torchvision's documentation
# for the higher resolutions.
COUNTS: list[tuple[str, dict[str, Any], int]] = [
    ("Ti/16", {}, 5_717_416),
    ("S/16", {}, 22_050_664),
    ("S/32", {}, 22_878_952),
    ("B/8", {}, 86_576_872),
    ("B/16", {}, 86_567_656),
    ("B/32", {}, 88_224_232),
    ("L/16", {}, 304_326_632),
    ("L/32", {}, 306_535_400),
    ("H/14", {}, 632_045_800),
    ("B/16", GAP, 86_566_120),
    ("S/16", GAP, 22_049_896),
    ("R+Ti/16", {}, 6_337_704),
    ("R26+S/32", {}, 36_431_912),
    ("R26+B/32", {}, 101_383_976),
    ("R50+B/16", {}, 98_659_112),
    ("R50+L/32", {}, 328_994_856),
    ("R50+L/16", {}, 316_483_624),
    ("B/16", {"image_size": (384, 384)}, 86_859_496),
    ("L/16", {"image_size": (384, 384)}, 304_715_752),
    ("L/16", {"image_size": (512, 512)}, 305_174_504),
    ("H/14", {"image_size": (518, 518)}, 633_470_440),
    ("B/32", {"image_size": (384, 384)}, 88_297_192),
    ("B/16", {"classes": 0}, 85_798_656),
    ("L/16", {"classes": 0}, 303_301_632),
    ("H/14", {"classes": 0}, 630_764_800),
    ("B/16", {"positions": "none"}, 86_416_360),
    ("Ti/16", {"classes": 21843}, 9_740_115),
    ("S/16", {"classes": 21843}, 30_075_219),
    ("B/16", {"classes": 21843}, 102_595_923),
    ("B/32", {"classes": 21843}, 104_252_499),
    ("L/16", {"classes": 21843}, 325_690_707),
    ("L/32", {"classes": 21843}, 327_899_475),
    ("H/14", {"classes": 21843}, 658_745_683),
    ("Ti/16", {"classes": 21843, "hidden_head": True}, 9_777_171),
    ("S/16", {"classes": 21843, "hidden_head": True}, 30_223_059),
    ("B/16", {"classes": 21843, "hidden_head": True}, 103_186_515),
    ("B/32", {"classes": 21843, "hidden_head": True}, 104_843_091),
    ("L/16", {"classes": 21843, "hidden_head": True}, 326_740_307),
    ("L/32", {"classes": 21843, "hidden_head": True}, 328_949_075),
    ("H/14", {"classes": 21843, "hidden_head": True}, 660_385_363),
]


@pytest.mark.parametrize(("name", "changes", "parameters"), COUNTS)
def test_parameters_are_as_published(name: str, changes: dict[str, Any], parameters: int) -> None:
    config = named_config(name, **changes)
    with torch.device("meta"):
        model = VisionTransformer(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert config.parameters == parameters


@pytest.mark.parametrize("patch", range(8, 33))
def test_every_patch_from_8_to_32_has_a_name(patch: int) -> None:
    config = named_config(f"S/{patch}", image_size=(patch * 7, patch * 7))
    assert config.patch_size == (patch, patch)
    assert config.tokens == 50


def test_every_size_says_where_it_comes_from() -> None:
    assert all("arXiv" in size.source for size in SIZES.values())


def test_the_case_of_a_name_does_not_matter() -> None:
    assert named_config("b/16") == named_config("B/16")


@pytest.mark.parametrize("name", ["X/16", "B16", "B/", "vit", ""])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no ViT is called"):
        named_config(name)


def test_an_unknown_patch_is_refused() -> None:
    with pytest.raises(ConfigError, match="names go from 8 to 32"):
        named_config("B/64")


def test_a_patch_that_does_not_divide_the_image_is_refused() -> None:
    with pytest.raises(ConfigError, match="nearest are 216 and 228"):
        named_config("B/12")


@pytest.mark.parametrize("name", ["R26+B/16", "R51+B/16", "R50+B/8", "+B/16"])
def test_an_unknown_hybrid_is_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(ConfigError, match=r"no hybrid is called|no ViT is called"):
        named_config(name)
