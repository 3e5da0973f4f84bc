from __future__ import annotations

from dataclasses import replace

import pytest

from vitreous.checkpoints.asked import Asked, settings_from_words
from vitreous.checkpoints.loaded import Decision
from vitreous.checkpoints.reading import Reading
from vitreous.data.preprocess import Preprocess
from vitreous.errors import ConfigError
from vitreous.model.config import ViTConfig

READING = Reading(
    ViTConfig(),
    {},
    Preprocess(),
    (Decision("heads", 12, "64 numbers a head is usual", guessed=True), Decision("norm_eps", 1e-6, "its own")),
)


def test_what_is_asked_wins_and_is_no_guess_any_more() -> None:
    asked = Asked.of({"heads": 6, "image_size": [384, 192], "preprocess.mean": [0.5, 0.25, 0.125]})
    settled = asked.settle(READING)
    assert (settled.config.heads, settled.config.image_size) == (6, (384, 192))
    assert settled.preprocess.mean == (0.5, 0.25, 0.125)
    decisions = {decision.setting: decision for decision in settled.decisions}
    assert decisions["heads"] == Decision("heads", 6, "as asked")
    assert decisions["image_size"].value == [384, 192]
    assert decisions["norm_eps"].reason == "its own"


def test_of_several_weights_one_is_asked_for_by_name() -> None:
    assert Asked.of({"weights": "student"}, strict=True) == Asked(weights="student", strict=True)


@pytest.mark.parametrize(
    ("name", "hint"), [("head", "did you mean 'heads'"), ("preprocess.meen", "preprocess.mean"), ("zzz", "there are")]
)
def test_an_unknown_setting_is_refused_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        Asked.of({name: 1})


@pytest.mark.parametrize("settings", [{"heads": 5}, {"heads": "x"}, {"image_size": 15}, {"preprocess.std": [0, 0, 0]}])
def test_a_value_that_cannot_be_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Asked.of(settings).settle(READING)


def test_one_number_is_a_square() -> None:
    assert Asked.of({"image_size": 384, "patch_size": [8, 16]}).architecture == {
        "image_size": (384, 384),
        "patch_size": (8, 16),
    }
    with pytest.raises(ConfigError, match=r"image_size is \[224\]"):
        Asked.of({"image_size": [224]})


def test_settings_are_spelled_as_on_a_command_line() -> None:
    words = [
        "heads=6",
        "activation=quick-gelu",
        "image_size=[384,192]",
        "norm_eps=1e-5",
        "norm_after_pooling=null",
    ]
    assert settings_from_words(words) == {
        "heads": 6,
        "activation": "quick-gelu",
        "image_size": [384, 192],
        "norm_eps": 1e-5,
        "norm_after_pooling": None,
    }
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        settings_from_words(["heads"])


@pytest.mark.parametrize(
    "word", ["a=b", "source=3", "strict=1", "heads=foo", "activation=relu", "norm_eps=" + "9" * 400]
)
def test_words_that_no_model_has_are_refused_before_a_file_is_blamed(word: str) -> None:
    with pytest.raises(ConfigError):
        settings_from_words([word])


def test_what_vitreous_recorded_is_no_guess_and_what_is_asked_wins_over_it() -> None:
    asked = replace(Asked.of({"dropout": 0.5}), recorded={"dropout": 0.1, "resampling": "dino"})
    settled = asked.settle(READING)
    assert (settled.config.dropout, settled.config.resampling) == (0.5, "dino")
    reasons = {decision.setting: decision.reason for decision in settled.decisions}
    assert reasons["dropout"] == "as asked" and reasons["resampling"] == "saved in the file by vitreous"


def test_another_pooling_leaves_the_last_norm_where_the_file_has_it() -> None:
    settled = Asked.of({"pooling": "mean"}).settle(READING)
    assert settled.config.pooling == "mean" and not settled.config.has_norm_after_pooling


def test_a_picture_that_patches_do_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"preprocess.image_size is \(225, 225\)"):
        Asked.of({"preprocess.image_size": 225}).settle(READING)
    settled = Asked.of({"preprocess.image_size": 240}).settle(READING)
    assert (settled.preprocess.image_size, settled.config.image_size) == ((240, 240), (224, 224))
    assert "image_size" not in {decision.setting for decision in settled.decisions}
