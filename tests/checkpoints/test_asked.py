from __future__ import annotations

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
        "a=b=c",
    ]
    assert settings_from_words(words) == {
        "heads": 6,
        "activation": "quick-gelu",
        "image_size": [384, 192],
        "norm_eps": 1e-5,
        "norm_after_pooling": None,
        "a": "b=c",
    }
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        settings_from_words(["heads"])
