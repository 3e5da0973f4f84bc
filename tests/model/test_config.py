from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest

from vitreous.errors import ConfigError
from vitreous.model.config import ViTConfig


def test_the_defaults_are_the_papers_base_model() -> None:
    config = ViTConfig()
    assert (config.width, config.depth, config.heads, config.mlp_width) == (768, 12, 12, 3072)
    assert (config.rows, config.columns, config.prefix, config.tokens, config.head_dim) == (
        14,
        14,
        1,
        197,
        64,
    )


def test_a_non_square_image_has_a_non_square_grid() -> None:
    config = ViTConfig(image_size=(224, 160), patch_size=(16, 32), registers=4)
    assert (config.rows, config.columns) == (14, 5)
    assert (config.prefix, config.tokens) == (5, 75)


def test_the_norm_follows_the_pooling_unless_said_otherwise() -> None:
    assert not ViTConfig().has_norm_after_pooling
    assert ViTConfig(pooling="mean").has_norm_after_pooling
    assert ViTConfig(norm_after_pooling=True).has_norm_after_pooling
    assert not ViTConfig(pooling="mean", norm_after_pooling=False).has_norm_after_pooling


def test_a_config_survives_json() -> None:
    config = ViTConfig(image_size=(32, 48), patch_size=(4, 8), layer_scale=1e-5, pooling="mean", registers=3)
    assert ViTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_reading_a_config_does_not_load_torch() -> None:
    code = (
        "import sys, vitreous.model.config, vitreous.model.presets, vitreous.data.preprocess; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_setting_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'registers'"):
        ViTConfig.from_dict({"register": 4})
    with pytest.raises(ConfigError, match="there are image_size"):
        ViTConfig.from_dict({"zzz": 4})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image_size": (224,)}, r"image_size is \(224,\)"),
        ({"image_size": 224}, "image_size is 224"),
        ({"image_size": (224.0, 224.0)}, "whole pixels"),
        ({"patch_size": (0, 16)}, "patch_size"),
        ({"image_size": (225, 224)}, "height of 225 pixels .* nearest are 224 and 240"),
        ({"image_size": (224, 8)}, "width of 8 pixels .* nearest are 16 and 16"),
        ({"channels": 0}, "channels is 0"),
        ({"classes": -1}, "classes is -1"),
        ({"width": True}, "width is True"),
        ({"depth": -1}, "depth is -1"),
        ({"depth": 0}, "depth is 0: without blocks .* give it a stem"),
        ({"depth": 0, "stem": (1,), "pooling": "mean", "positions": "none"}, "no class token"),
        ({"depth": 0, "stem": (1,), "pooling": "mean", "class_token": False}, "positions 'none'"),
        ({"stem": (1,), "stem_root": "tiny"}, "stem_root is 'tiny'; choose one of imagenet, small"),
        ({"stem": (1, 1, 1), "stem_root": "small", "patch_size": (2, 2)}, "not a multiple of the stem's stride 4"),
        ({"heads": 5}, "width 768 is not a multiple of heads 5"),
        ({"registers": 1.5}, "registers is 1.5"),
        ({"mlp_ratio": 0.0}, "mlp_ratio is 0.0"),
        ({"mlp_ratio": float("nan")}, "mlp_ratio is nan"),
        ({"mlp_ratio": 1e-9}, "from 1 to 2147483648"),
        ({"norm_eps": 0.0}, "norm_eps"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"drop_path": -0.1}, "drop_path is -0.1"),
        ({"layer_scale": "yes"}, "layer_scale"),
        ({"pooling": "max"}, "choose one of class, mean"),
        ({"positions": "sines"}, "choose one of learned, learned-2d"),
        ({"qkv_bias": 1}, "qkv_bias is 1; it is True or False"),
        ({"class_token": False}, "use pooling 'mean'"),
        ({"hidden_head": True, "classes": 0}, "no hidden layer"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ViTConfig(**wrong)


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ViTConfig().width = 3  # type: ignore[misc]


@pytest.mark.parametrize("wrong", [{"mlp_ratio": 1e308}, {"mlp_ratio": 1e30}, {"norm_eps": 10**400}])
def test_numbers_beyond_all_bounds_are_refused_like_others(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ViTConfig(**wrong)
