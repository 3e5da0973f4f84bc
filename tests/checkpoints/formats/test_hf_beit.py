from __future__ import annotations

from typing import Any

import pytest
import torch

from vitreous.checkpoints.containers.contract import Shapes
from vitreous.checkpoints.formats import hf_beit
from vitreous.checkpoints.reading import Found
from vitreous.errors import CheckpointError

DENSE = {"attention.attention.query": (8, 8), "attention.attention.key": (8, 8), "attention.attention.value": (8, 8),
         "attention.output.dense": (8, 8), "intermediate.dense": (20, 8), "output.dense": (8, 20)}  # fmt: skip
NORMS = {"layernorm_before": (8,), "layernorm_after": (8,)}
OWN = "encoder.layer.0.attention.attention.relative_position_bias.relative_position_bias_table"
SHARED = "encoder.relative_position_bias.relative_position_bias_table"
BEIT = {"model_type": "beit", "num_attention_heads": 2, "image_size": 16, "layer_scale_init_value": 0.1}


def layers(before: str, named: dict[str, tuple[int, ...]]) -> Shapes:
    weights = {f"{before}{name}.weight": shape for name, shape in named.items()}
    return weights | {f"{before}{name}.bias": shape[:1] for name, shape in named.items()}


def beit(*tables: str) -> Shapes:
    shapes = layers("encoder.layer.0.", NORMS | DENSE)
    shapes |= layers("", {"embeddings.patch_embeddings.projection": (8, 3, 4, 4), "pooler.layernorm": (8,)})
    shapes |= {"encoder.layer.0.lambda_1": (8,), "encoder.layer.0.lambda_2": (8,), "embeddings.cls_token": (1, 1, 8)}
    del shapes["encoder.layer.0.attention.attention.key.bias"]
    return shapes | dict.fromkeys(tables, (52, 2))  # 7 x 7 offsets of 4 x 4 patches, and 3


def test_the_table_of_scores_tells_heads_and_grid() -> None:
    reading = hf_beit.read(Found(beit(OWN)))
    assert (reading.config.heads, reading.config.image_size, reading.config.positions) == (2, (16, 16), "relative-bias")
    assert "columns of" in next(decision.reason for decision in reading.decisions if decision.setting == "heads")


def test_a_blocks_own_scores_and_those_of_all_blocks_are_added() -> None:
    part = hf_beit.read(Found(beit(OWN, SHARED), described=BEIT)).plan["blocks.0.attn.relative_position_bias_table"]
    assert part.sources == (OWN, SHARED)
    assert torch.equal(part.make(torch.ones(52, 2), torch.full((52, 2), 2.0)), torch.full((52, 2), 3.0))


def test_the_place_of_the_norm_can_be_asked_for() -> None:
    assert "fc_norm.weight" in hf_beit.read(Found(beit(OWN), described=BEIT)).plan
    reading = hf_beit.read(Found(beit(OWN), described=BEIT, asked={"norm_after_pooling": False}))
    assert reading.plan["norm.weight"].sources == ("pooler.layernorm.weight",) and "fc_norm.weight" not in reading.plan


def test_numbers_of_offsets_are_left_out() -> None:
    index = OWN.replace("bias_table", "index")
    reading = hf_beit.read(Found(beit(OWN) | {index: (17, 17)}, described=BEIT))
    assert reading.ignored == {index: "numbers of offsets, which are computed"}


@pytest.mark.parametrize(
    ("shapes", "described", "message"),
    [
        (beit(OWN) | {"embeddings.position_embeddings": (1, 17, 8)}, BEIT, "absolute beside relative positions"),
        (beit(OWN) | {OWN: (3 * 11 + 3, 2)}, BEIT | {"image_size": [8, 24]}, "the grid of patches is no square"),
        (beit(OWN) | {OWN: (2, 2)}, BEIT, "the grid of patches is no square"),
        (beit(OWN), BEIT | {"image_size": 32}, "image_size 32 x 32 has other patches than the position table's 16"),
        (beit(OWN), BEIT | {"num_attention_heads": 4}, "num_attention_heads 4, the weights 2"),
        (beit(), BEIT | {"use_relative_position_bias": True}, "use_relative_position_bias True, the weights False"),
        (beit(OWN), BEIT | {"use_shared_relative_position_bias": True}, "use_shared_relative_position_bias True"),
        (beit(), BEIT | {"use_absolute_position_embeddings": True}, "use_absolute_position_embeddings True"),
        (beit(OWN), BEIT | {"layer_scale_init_value": 0}, "but there is encoder.layer.0.lambda_1"),
    ],
)
def test_what_cannot_be_is_refused(shapes: Shapes, described: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        hf_beit.read(Found(shapes, described=described))


def test_a_model_that_was_saved_without_its_last_norm_is_refused() -> None:
    shapes = {name: shape for name, shape in beit(OWN).items() if not name.startswith("pooler.")}
    with pytest.raises(CheckpointError, match="without a norm after its blocks cannot be read"):
        hf_beit.read(Found(shapes, described=BEIT))


def test_each_block_needs_scores_of_its_own() -> None:
    second = {name.replace(".0.", ".1."): shape for name, shape in beit().items() if ".0." in name}
    plan = hf_beit.read(Found(beit(OWN) | second, described=BEIT)).plan  # opening refuses a plan of absent tensors
    assert plan["blocks.1.attn.relative_position_bias_table"].sources == (OWN.replace(".0.", ".1."),)
