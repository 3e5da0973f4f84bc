from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from vitreous.data.preprocess import Preprocess
from vitreous.errors import ConfigError
from vitreous.model.config import ViTConfig
from vitreous.training.config import Keeping, MaskedPatches, Optim, TrainConfig


def test_the_defaults_are_a_config() -> None:
    config = TrainConfig()
    assert config.preprocess.image_size == config.model.image_size
    with pytest.raises(FrozenInstanceError):
        config.epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "adan"},
        {"schedule": "cosin"},
        {"learning_rate": 0.0},
        {"learning_rate": math.inf},
        {"learning_rate": math.nan},
        {"weight_decay": -0.1},
        {"betas": (0.9, 1.0)},
        {"betas": (-0.1, 0.9)},
        {"momentum": 1.0},
        {"momentum_precision": "float16"},
        {"layer_decay": 0.0},
        {"layer_decay": 1.1},
        {"warmup": -1},
        {"warmup": 1.5},
        {"clip": 0.0},
    ],
)
def test_a_wrong_optimizer_setting_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"optimizer.{next(iter(wrong))} is "):
        Optim(**wrong)


@pytest.mark.parametrize("wrong", [{"state_seconds": -1.0}, {"states": 0}, {"models_every": -1}])
def test_a_wrong_setting_of_what_is_kept_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"keep.{next(iter(wrong))} is "):
        Keeping(**wrong)


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.0}, {"target": "colour"}])
def test_a_wrong_setting_of_what_is_hidden_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"masked.{next(iter(wrong))} is "):
        MaskedPatches(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"data": ""},
        {"epochs": 0},
        {"epochs": True},
        {"batch_size": 0},
        {"batch_size": 1.5},
        {"label_smoothing": 1.0},
        {"seed": -1},
        {"threads": 0},
        {"workers": -1},
        {"steps": 0},
        {"accumulate": 0},
        {"ema": 1.0},
        {"task": "captions"},
        {"loss": "hinge"},
        {"precision": "float16"},
        {"device": "tpu"},
        {"compile": "yes"},
        {"parallel": "pipeline"},
        {"unreadable": "guess"},
    ],
)
def test_a_wrong_setting_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} is "):
        replace(TrainConfig(), **wrong)


def test_settings_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"preprocess.image_size is \(32, 32\), but model.image_size"):
        TrainConfig(preprocess=Preprocess(image_size=(32, 32)))
    with pytest.raises(ConfigError, match=r"model\.channels is 1"):
        TrainConfig(model=ViTConfig(channels=1))
    with pytest.raises(ConfigError, match=r"model\.classes is 1"):
        TrainConfig(model=ViTConfig(classes=1))
    with pytest.raises(ConfigError, match="batch_size 64 is not a multiple of accumulate 3"):
        TrainConfig(accumulate=3)


def test_a_model_without_a_head_can_learn_from_hidden_patches_only() -> None:
    assert TrainConfig(model=ViTConfig(classes=0), task="masked-patches").model.classes == 0
    with pytest.raises(ConfigError, match=r"model\.classes is 0"):
        TrainConfig(model=ViTConfig(classes=0))


def test_configs_and_recipes_do_not_wait_for_torch() -> None:
    code = "import sys, vitreous.training.recipes, vitreous.training.settings_file; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_kept_epochs_are_the_first_weights_every_so_many_and_the_last() -> None:
    config = TrainConfig(epochs=7, keep=Keeping(models_every=3))
    assert [epoch for epoch in range(8) if config.keeps(epoch)] == [0, 3, 6]
    assert not any(TrainConfig(epochs=7).keeps(epoch) for epoch in range(8))
