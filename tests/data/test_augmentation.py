from __future__ import annotations

import math
from typing import Any

import pytest

from vitreous.data.augmentation import Augmentation
from vitreous.errors import ConfigError


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop": "centre"},
        {"crop_area": (0.0, 1.0)},
        {"crop_area": (0.5, 1.1)},
        {"crop_area": (0.6, 0.5)},
        {"crop_ratio": (2.0, 1.0)},
        {"policy": "augmix"},
        {"policy_layers": 0},
        {"policy_magnitude": 31},
        {"policy_magnitude": -1},
        {"shift": -1},
        {"rotation": math.nan},
        {"scale": 1.0},
        {"erasing": 1.5},
        {"mixup": -0.2},
        {"cutmix": math.inf},
        {"mix_probability": -0.1},
        {"repeats": 0},
    ],
)
def test_a_wrong_augmentation_setting_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"augmentation.{next(iter(wrong))} is "):
        Augmentation(**wrong)


def test_shares_may_be_all_and_nothing() -> None:
    assert Augmentation(erasing=1.0, mix_probability=0.0, crop_area=(1.0, 1.0)).erasing == 1.0
