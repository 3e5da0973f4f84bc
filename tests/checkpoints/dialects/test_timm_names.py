from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from vitreous.checkpoints.dialects.timm_names import (
    Named,
    grid_of,
    has_timm_names,
    heads_of,
    pooling_of,
    positions_with_prefix,
    reading_of,
    renaming,
    told_by,
    with_layer_scale,
    without_keys,
)
from vitreous.checkpoints.loaded import Decision
from vitreous.checkpoints.reading import Found
from vitreous.data.pipelines import timm_default
from vitreous.errors import CheckpointError
from vitreous.model.presets import SIZES

BLOCK = {
    "norm1.weight": (64,),
    "attn.qkv.weight": (192, 64),
    "attn.proj.weight": (64, 64),
    "mlp.fc1.weight": (160, 64),
    "mlp.fc2.weight": (64, 160),
}
SHAPES: dict[str, tuple[int, ...]] = {
    "cls_token": (1, 1, 64),
    "pos_embed": (1, 17, 64),
    "patch_embed.proj.weight": (64, 3, 8, 4),
} | {f"blocks.0.{name}": shape for name, shape in BLOCK.items()}


def named(**changes: tuple[int, ...] | None) -> Named:
    shapes = {**SHAPES, **{name.replace("__", "."): shape for name, shape in changes.items()}}
    return Named.of({name: shape for name, shape in shapes.items() if shape is not None})


@pytest.mark.parametrize(("width", "heads"), [(1152, 16), (1408, 16), (1664, 16), (320, 5), (1536, 24)])
def test_heads_follow_the_width(width: int, heads: int) -> None:
    decision = heads_of(Found({}), width, "its models")
    assert (decision.value, decision.guessed) == (heads, False)
    assert heads_of(Found({}), width).guessed
    assert heads_of(Found({}, asked={"heads": 2}), width).value == 2


def test_heads_of_every_size_of_the_paper_are_right() -> None:
    assert {size: heads_of(Found({}), numbers.width, "x").value for size, numbers in SIZES.items()} == {
        size: numbers.heads for size, numbers in SIZES.items()
    }


def test_a_width_of_no_usual_heads_is_asked_for() -> None:
    with pytest.raises(CheckpointError, match=r"width of 100.*say heads=N"):
        heads_of(Found({}), 100, "its models")


@pytest.mark.parametrize(
    ("changes", "pooling", "guessed"),
    [
        ({}, "class", True),
        ({"fc_norm__weight": (64,)}, "mean", False),
        ({"cls_token": None}, "mean", False),
        ({"attn_pool__latent": (1, 1, 64), "cls_token": None}, "map", False),
    ],
)
def test_tensors_tell_the_pooling(changes: dict[str, Any], pooling: str, guessed: bool) -> None:
    decision = pooling_of(Found({}), named(**changes))
    assert (decision.value, decision.guessed) == (pooling, guessed)
    assert not pooling_of(Found({}), named(**changes), "its code").guessed
    assert pooling_of(Found({}, asked={"pooling": "class+mean"}), named(**changes)).value == "class+mean"


@pytest.mark.parametrize(
    ("rows", "may_be", "asked", "size", "before"),
    [
        (17, (1, 0), {}, [32, 16], 1),
        (16, (1, 0), {}, [32, 16], 0),
        (9, (5, 0), {}, [16, 8], 5),
        (9, (0, 5), {}, [24, 12], 0),
        (13, (1, 0), {"image_size": (24, 16)}, [24, 16], 1),
        (12, (1, 0), {"image_size": (24, 16)}, [24, 16], 0),
        (16, (0,), {"image_size": (16, 32)}, [16, 32], 0),
    ],
)
def test_the_table_tells_the_image_size(
    rows: int, may_be: tuple[int, ...], asked: dict[str, Any], size: list[int], before: int
) -> None:
    decision, found = grid_of(Found({}, asked=asked), named(pos_embed=(1, rows, 64)), may_be)
    assert (decision.value, found) == (size, before)


def test_rows_that_the_table_does_not_have_are_zeros_in_their_place() -> None:
    filled, notes = positions_with_prefix(named(), 1, 4)
    assert filled.shapes["pos_embed"] == (1, 20, 64)
    table = torch.arange(1.0, 18).view(1, 17, 1).expand(1, 17, 64)
    made = filled.parts["pos_embed"].make(table)[0, :, 0]
    assert made.tolist() == [1, 0, 0, 0, *range(2, 18)]
    assert notes[0].setting == "positions of the prefix"


def test_a_full_table_stays_as_it_is() -> None:
    whole = named()
    same, notes = positions_with_prefix(whole, 1, 1)
    assert same is whole
    assert notes == ()


def test_everything_but_a_few_settings_is_told() -> None:
    told = told_by(named(blocks__0__attn__qkv__bias=(192,), blocks__0__ls1__gamma=(64,), reg_token=(1, 3, 64)))
    assert told["patch_size"] == (8, 4)
    assert (told["width"], told["depth"], told["mlp_ratio"], told["registers"]) == (64, 1, 2.5, 3)
    assert (told["qkv_bias"], told["layer_scale"], told["gated_mlp"], told["stem"]) == (True, 1e-5, False, None)
    assert told_by(named(blocks__0__mlp__fc1__weight=(320, 64)))["gated_mlp"]
    narrow = {"blocks__0__attn__proj__weight": (64, 48), "blocks__0__attn__qkv__weight": (144, 64)}
    assert told_by(named(**narrow))["attention_width"] == 48


def test_units_of_a_stem_are_counted() -> None:
    before = "patch_embed.backbone."
    shapes = {f"{before}stem.conv.weight": (32, 3, 7, 7), "patch_embed.proj.weight": (64, 256, 2, 1)}
    shapes |= {f"{before}stages.{s}.blocks.{unit}.conv1.weight": (8, 8, 1, 1) for s in (0, 1) for unit in range(2 + s)}
    told = told_by(Named.of(SHAPES | shapes))
    assert (told["stem"], told["stem_width"], told["patch_size"], told["channels"]) == ((2, 3), 32, (16, 8), 3)
    root = {f"{before}conv.weight": (32, 3, 7, 7), "patch_embed.proj.weight": (64, 32, 2, 1)}
    told = told_by(Named.of(SHAPES | root))
    assert (told["stem"], told["patch_size"]) == ((), (8, 4))


def test_an_mlp_that_does_not_come_back_is_refused() -> None:
    with pytest.raises(CheckpointError, match="goes from 64 to 100 and from 160 back"):
        told_by(named(blocks__0__mlp__fc1__weight=(100, 64)))


def test_what_cannot_be_a_vit_is_refused_in_our_words() -> None:
    heads, eps = Decision("heads", 7, "x"), Decision("norm_eps", 1e-6, "x")
    size = Decision("image_size", [32, 16], "x")
    found = Found(dict(SHAPES))
    with pytest.raises(CheckpointError, match="make no ViT: width 64 is not a multiple of heads 7"):
        reading_of(found, named(), (heads, eps, size), timm_default((32, 16)))


def test_names_of_layer_scale_are_those_of_blocks_alone() -> None:
    assert with_layer_scale("blocks.11.gamma_2") == "blocks.11.ls2.gamma"
    assert with_layer_scale("blocks.11.gamma_3") == "blocks.11.gamma_3"
    assert with_layer_scale("other.gamma_1") == "other.gamma_1"


def test_a_project_without_timms_names_has_a_place_for_its_own_alone() -> None:
    rename = renaming(re.compile(r"layers\.(\d+)\.(.+)"), {"ln_1.": "norm1."}, {"ln.weight": "norm.weight"})
    assert (rename("layers.3.ln_1.bias"), rename("ln.weight")) == ("blocks.3.norm1.bias", "norm.weight")
    assert [rename(name) for name in ("layers.3.other", "norm.weight", "blocks.3.norm1.bias")] == ["", "", ""]


def test_keys_without_a_bias_get_zeros() -> None:
    assert without_keys(torch.tensor([1.0, 2]), torch.tensor([3.0, 4])).tolist() == [1, 2, 0, 0, 3, 4]


def test_a_patch_embedding_without_blocks_is_not_timms() -> None:
    assert has_timm_names(SHAPES)
    assert not has_timm_names({"patch_embed.proj.weight": (64, 3, 8, 8), "layers.0.norm1.weight": (64,)})
