from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from transformers.activations import ACT2FN

from vitreous.checkpoints.dialects.hf_config import ACTIVATIONS, DEFAULTS, class_names_of, describe, preprocess_of
from vitreous.checkpoints.reading import Found
from vitreous.data import pipelines
from vitreous.data.preprocess import CLIP_MEAN, HALF_MEAN
from vitreous.errors import CheckpointError
from vitreous.model.mlp import ACTIVATIONS as FUNCTIONS

VISION = {"hidden_size": 48, "num_attention_heads": 3}


def settled(found: Found, setting: str, theirs: str, like: str = "vit") -> Any:
    return describe(found, like).settle(setting, theirs, "default", lambda name, value: value, "usual")


@pytest.mark.parametrize("model_type", DEFAULTS)
def test_the_defaults_are_those_of_transformers(model_type: str) -> None:
    config, ours = transformers.CONFIG_MAPPING[model_type](), DEFAULTS[model_type]
    assert (config.layer_norm_eps, config.hidden_act, config.num_attention_heads) == (
        ours.eps, ours.activation, ours.heads,
    )  # fmt: skip
    assert config.image_size == 224


@pytest.mark.parametrize(("theirs", "ours"), ACTIVATIONS.items())
def test_the_activations_are_those_of_transformers(theirs: str, ours: str) -> None:
    values = torch.linspace(-6, 6, 1001)
    expected = ACT2FN[theirs](values)
    apart = {name: (function(values) - expected).abs().max().item() for name, function in FUNCTIONS.items()}
    assert apart.pop(ours) <= 1e-6
    assert min(apart.values()) > 4e-4


def test_a_setting_is_what_was_asked_for_then_what_config_json_says_then_the_default() -> None:
    said = {"model_type": "vit", "num_attention_heads": 3}
    decision = settled(Found({}, described=said, asked={"heads": 2}), "heads", "num_attention_heads")
    assert (decision.value, decision.reason, decision.guessed) == (2, "as asked", False)
    decision = settled(Found({}, described=said), "heads", "num_attention_heads")
    assert (decision.value, decision.reason, decision.guessed) == (3, "num_attention_heads in config.json", False)
    for silent in ({"model_type": "vit"}, {"model_type": "vit", "num_attention_heads": None}):
        decision = settled(Found({}, described=silent), "heads", "num_attention_heads")
        assert (decision.value, decision.guessed) == ("default", False)
        assert decision.reason.startswith("transformers' default for vit")


def test_without_config_json_a_setting_is_a_guess_with_its_remedy() -> None:
    decision = settled(Found({}), "heads", "num_attention_heads", like="deit")
    assert (decision.value, decision.guessed) == ("usual", True)
    assert decision.reason == "usual for deit; no config.json says it; say heads=... to settle it"


@pytest.mark.parametrize("model_type", ["clip", "siglip"])
def test_of_a_model_for_images_and_texts_the_image_encoders_settings_are_read(model_type: str) -> None:
    described = {"model_type": model_type, "num_attention_heads": 9, "vision_config": VISION}
    described |= {"text_config": {"num_attention_heads": 8}}
    found = describe(Found({}, described=described), "vit")
    assert (found.settings, found.model_type, found.known) == (VISION, f"{model_type}_vision_model", True)


def test_of_two_parts_for_the_image_encoder_the_older_wins_as_in_transformers() -> None:
    described = {"vision_config": VISION, "vision_config_dict": {"num_attention_heads": 6}}
    expected = transformers.CLIPConfig(**described).vision_config
    assert (expected.num_attention_heads, expected.hidden_size) == (6, 768)  # not 48: the defaults win, too
    assert describe(Found({}, described={"model_type": "clip", **described}), "vit").settings == {
        "num_attention_heads": 6
    }
    described["vision_config_dict"] = None  # as in OpenAI's files
    assert describe(Found({}, described={"model_type": "clip", **described}), "vit").settings == VISION


@pytest.mark.parametrize("name", ["vision_config", "vision_config_dict"])
def test_a_part_that_is_no_object_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"{name} is \['x'\]; it is an object"):
        describe(Found({}, described={"model_type": "clip", name: ["x"]}), "vit")


@pytest.mark.parametrize("word", [None, 3, ["vit"]])
def test_a_model_type_that_is_no_word_is_none(word: Any) -> None:
    assert not describe(Found({}, described={"model_type": word}), "vit").known


def test_class_names_follow_their_numbers() -> None:
    assert class_names_of({"id2label": {"1": "dog", "0": "cat", "2": "owl"}}, 3) == ("cat", "dog", "owl")
    assert class_names_of({}, 3) == ()
    assert class_names_of({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, 2) == ()  # transformers' own, for no names
    assert class_names_of({"id2label": {"0": "LABEL_0", "1": "dog"}}, 2) == ("LABEL_0", "dog")


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [
        ("clip_vision_model", pipelines.clip((64, 64))),
        ("siglip_vision_model", pipelines.siglip((64, 64))),
        ("dinov2", pipelines.dinov2((64, 64))),
        ("dinov3_vit", pipelines.dinov3((64, 64))),
        ("deit", pipelines.deit((64, 64))),
        ("vit_mae", pipelines.mae((64, 64))),
    ],
)
def test_without_a_processor_a_model_gets_its_sources_preprocessing_as_a_guess(model_type: str, expected: Any) -> None:
    described = describe(Found({}, described={"model_type": model_type}), "vit")
    preprocess, decisions = preprocess_of(described, (64, 64), (8, 8))
    assert preprocess == expected
    assert {decision.setting for decision in decisions} >= {"mean and std", "resize", "interpolation"}
    assert all(decision.guessed for decision in decisions)


def test_dinov2_is_tested_at_fewer_pixels_than_its_positions_are_made_for() -> None:
    described = describe(Found({}, described={"model_type": "dinov2"}), "vit")
    assert preprocess_of(described, (518, 518), (14, 14))[0] == pipelines.dinov2((224, 224))


def test_a_processor_that_is_silent_has_its_class_defaults() -> None:
    found = Found({}, described={"model_type": "clip"}, processor={"do_resize": True})
    assert preprocess_of(describe(found, "vit"), (224, 224), (32, 32))[0].mean == CLIP_MEAN
    found = Found({}, described={"model_type": "vit"}, processor={"do_resize": True})
    assert preprocess_of(describe(found, "vit"), (224, 224), (32, 32))[0].mean == HALF_MEAN


def test_a_preprocessing_that_cannot_be_is_refused() -> None:
    described = describe(Found({}, described={"model_type": "dinov3_vit"}), "vit")
    with pytest.raises(CheckpointError, match="preprocessing cannot be: image_size"):
        preprocess_of(described, (1_000_000, 1_000_000), (16, 16))
