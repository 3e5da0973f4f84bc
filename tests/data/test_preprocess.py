from __future__ import annotations

import json
from typing import Any

import pytest

from vitreous.data.preprocess import HALF_MEAN, HALF_STD, IMAGENET_MEAN, IMAGENET_STD, Preprocess
from vitreous.errors import ConfigError


def test_the_statistics_are_torchvisions_and_googles() -> None:
    from torchvision.models import ViT_B_16_Weights

    transforms = ViT_B_16_Weights.DEFAULT.transforms()
    assert (tuple(transforms.mean), tuple(transforms.std)) == (IMAGENET_MEAN, IMAGENET_STD)
    assert [(0 - m) / s for m, s in zip(HALF_MEAN, HALF_STD, strict=True)] == [-1, -1, -1]
    assert [(1 - m) / s for m, s in zip(HALF_MEAN, HALF_STD, strict=True)] == [1, 1, 1]


def test_it_survives_json() -> None:
    preprocess = Preprocess((32, 48), "squash", 1.0, "bilinear", HALF_MEAN, HALF_STD)
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image_size": (224,)}, "image_size"),
        ({"image_size": (0, 224)}, "image_size"),
        ({"image_size": (2.5, 224)}, "image_size"),
        ({"resize": "stretch"}, "choose one of squash, crop"),
        ({"interpolation": "lanczos"}, "choose one of bilinear, bicubic"),
        ({"crop_fraction": 0.0}, "crop_fraction is 0.0"),
        ({"crop_fraction": 1.1}, "crop_fraction is 1.1"),
        ({"crop_fraction": float("nan")}, "crop_fraction is nan"),
        ({"resize": "squash"}, "keeps the whole picture"),
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
