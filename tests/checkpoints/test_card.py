from __future__ import annotations

import pytest

from vitreous.checkpoints.card import model_card
from vitreous.data.pipelines import google, timm_default
from vitreous.model.config import ViTConfig


def rows(card: str) -> dict[str, str]:
    """The table of a card."""
    cells = [line.strip("| ").split(" | ") for line in card.splitlines() if line.startswith("| ")]
    return {row[0]: row[1] for row in cells if len(row) == 2}


def test_a_plain_model_opens_everywhere() -> None:
    card = model_card(ViTConfig(), timm_default((224, 224)), ["a"] * 1000)
    assert 'timm.create_model("local-dir:this-folder"' in card
    assert "AutoModelForImageClassification" in card
    assert "otherwise" not in card
    table = rows(card)
    assert table["parameters"] == "86,567,656"
    assert table["classes"] == "1000, named in config.json"
    assert (table["activation"], table["LayerNorm epsilon"], table["positions"]) == ("gelu", "1e-06", "learned")


def test_what_timm_cannot_say_is_said() -> None:
    card = model_card(ViTConfig(hidden_head=True, patch_norms=True), timm_default((224, 224)), [])
    assert "import timm" not in card
    assert "no word for the hidden layer of the pre-training head and LayerNorms around the patch embedding." in card


def test_a_folder_in_transformers_layout_is_not_opened_by_timm() -> None:
    card = model_card(ViTConfig(), timm_default((224, 224)), [], layout="transformers")
    assert "library_name: transformers" in card
    assert "timm" not in card
    assert "AutoModelForImageClassification" in card


def test_other_arithmetic_and_other_sizes_are_said() -> None:
    card = model_card(ViTConfig(image_size=(384, 384), resampling="google"), google((224, 224)), [])
    assert "timm resizes by Pillow, antialiased and in bytes, not by tensorflow." in card
    assert "by timm's rule there, by google's here." in card
    assert "- ." not in card and card.endswith("here.\n")
    assert rows(card)["prepared to"] == "224 x 224 pixels"


@pytest.mark.parametrize(
    ("config", "row", "value"),
    [
        (ViTConfig(distillation=True), "prefix tokens", "1 class, 1 distillation, 0 registers"),
        (ViTConfig(stem=(3, 4, 9)), "stem", "ResNet of [3, 4, 9] units, 64 channels"),
        (
            ViTConfig(stem=(2, 2), stem_root="small"),
            "stem",
            "ResNet of [2, 2] units, 64 channels, a 3x3 root at stride 1",
        ),
        (ViTConfig(positions_at="layers"), "positions", "learned, at the start of each layer"),
        (ViTConfig(positions_at="layers-shared"), "positions", "learned, shared, at the start of each layer"),
        (ViTConfig(gated_mlp=True), "activation", "SwiGLU"),
    ],
)
def test_what_few_models_have_is_in_the_table(config: ViTConfig, row: str, value: str) -> None:
    assert rows(model_card(config, timm_default((224, 224)), []))[row] == value


def test_what_transformers_would_make_up_is_not_recommended() -> None:
    card = model_card(ViTConfig(gated_mlp=True), timm_default((224, 224)), [])
    assert "import timm" in card and "AutoModel" not in card and "makes up a layer scale" in card
    card = model_card(ViTConfig(gated_mlp=True, layer_scale=0.1), timm_default((224, 224)), [])
    assert "AutoModel" in card and "makes up" not in card
