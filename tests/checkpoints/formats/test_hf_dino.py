from __future__ import annotations

from typing import Any

import pytest
import torch

from vitreous.checkpoints.containers.contract import Shapes
from vitreous.checkpoints.formats import hf_dino, hf_vit
from vitreous.checkpoints.reading import Found
from vitreous.errors import CheckpointError

V2: dict[str, tuple[int, ...]] = {
    "norm1": (8,),
    "norm2": (8,),
    "attention.attention.query": (8, 8),
    "attention.attention.key": (8, 8),
    "attention.attention.value": (8, 8),
    "attention.output.dense": (8, 8),
    "mlp.fc1": (20, 8),
    "mlp.fc2": (8, 20),
}
V3: dict[str, tuple[int, ...]] = {
    "norm1": (8,),
    "norm2": (8,),
    "attention.q_proj": (8, 8),
    "attention.k_proj": (8, 8),
    "attention.v_proj": (8, 8),
    "attention.o_proj": (8, 8),
    "mlp.up_proj": (20, 8),
    "mlp.down_proj": (8, 20),
    "mlp.gate_proj": (20, 8),
}
DINOV2: dict[str, tuple[int, ...]] = {"model_type": "dinov2", "num_attention_heads": 2, "image_size": 16}
REGISTERS = DINOV2 | {"model_type": "dinov2_with_registers"}
DINOV3 = DINOV2 | {"model_type": "dinov3_vit", "hidden_act": "silu"}


def layers(before: str, named: dict[str, tuple[int, ...]]) -> Shapes:
    weights = {f"{before}{name}.weight": shape for name, shape in named.items()}
    return weights | {f"{before}{name}.bias": shape[:1] for name, shape in named.items()}


def dinov2(registers: int = 0) -> Shapes:
    shapes = layers("encoder.layer.0.", V2) | layers("", {"layernorm": (8,)})
    shapes |= layers("", {"embeddings.patch_embeddings.projection": (8, 3, 4, 4)})
    shapes |= {f"encoder.layer.0.layer_scale{branch}.lambda1": (8,) for branch in (1, 2)}
    shapes |= {"embeddings.cls_token": (1, 1, 8), "embeddings.mask_token": (1, 8)}
    shapes |= {"embeddings.position_embeddings": (1, 17, 8)}
    return shapes | ({"embeddings.register_tokens": (1, registers, 8)} if registers else {})


def dinov3(registers: int = 4) -> Shapes:
    shapes = layers("layer.0.", V3) | layers("", {"norm": (8,), "embeddings.patch_embeddings": (8, 3, 4, 4)})
    shapes |= {f"layer.0.layer_scale{branch}.lambda1": (8,) for branch in (1, 2)}
    del shapes["layer.0.attention.k_proj.bias"]
    tokens = {"embeddings.cls_token": (1, 1, 8), "embeddings.mask_token": (1, 1, 8)}
    return shapes | tokens | {"embeddings.register_tokens": (1, registers, 8)}


def test_registers_have_no_positions() -> None:
    reading = hf_dino.read(Found(dinov2(3), described=REGISTERS))
    table = torch.randn(1, 17, 8, generator=torch.Generator().manual_seed(0))
    ours = reading.plan["pos_embed"].make(table)
    assert torch.equal(ours[:, 1:4], torch.zeros(1, 3, 8))
    assert torch.equal(ours[:, [0, *range(4, 20)]], table)


def test_each_dino_moves_its_positions_by_its_own_rule() -> None:
    assert hf_dino.read(Found(dinov2(), described=DINOV2)).config.resampling == "transformers"
    assert hf_dino.read(Found(dinov2(3), described=REGISTERS)).config.resampling == "transformers-registers"
    assert hf_dino.read(Found(dinov2(3), asked={"heads": 2})).config.resampling == "transformers-registers"


def test_dinov3_without_registers_has_an_empty_tensor() -> None:
    reading = hf_dino.read(Found(dinov3(0), described=DINOV3))
    assert (reading.config.registers, reading.ignored["embeddings.register_tokens"]) == (0, "it is empty")


def test_positions_of_dinov3_are_turns_of_config_jsons_period() -> None:
    reading = hf_dino.read(Found(dinov3(), described=DINOV3 | {"rope_theta": 50}))
    assert (reading.config.positions, reading.config.rope_base, reading.config.registers) == ("rope", 50.0, 4)
    assert "pos_embed" not in reading.plan


@pytest.mark.parametrize(
    ("shapes", "described", "message"),
    [
        (dinov2(3), REGISTERS | {"num_register_tokens": 4}, "num_register_tokens 4, the weights 3"),
        (dinov2(), REGISTERS | {"num_register_tokens": 4}, "num_register_tokens 4, the weights 0"),
        (dinov2() | {"embeddings.register_tokens": (4,)}, DINOV2, "embeddings.register_tokens is "),
        (dinov2(), DINOV2 | {"use_swiglu_ffn": True}, "use_swiglu_ffn True, the weights False"),
        (dinov3(), DINOV3 | {"use_gated_mlp": False}, "use_gated_mlp False, the weights True"),
        (dinov3(), DINOV3 | {"key_bias": True}, "key_bias True, the weights False"),
        (dinov3(), DINOV3 | {"hidden_act": "gelu"}, "a gated MLP with hidden_act 'gelu' cannot be read"),
        (dinov3(), {name: value for name, value in DINOV3.items() if name != "hidden_act"}, "hidden_act 'gelu'"),
        (dinov3(), DINOV3 | {"rope_theta": "100"}, "rope_theta is '100'; it is a number"),
        (dinov3(), DINOV3 | {"image_size": 999_999}, "preprocessing cannot be"),
    ],
)
def test_what_cannot_be_is_refused(shapes: Shapes, described: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        hf_dino.read(Found(shapes, described=described))


def test_a_dino_without_its_layer_scale_is_refused() -> None:
    shapes = {name: shape for name, shape in dinov2().items() if "layer_scale" not in name}
    with pytest.raises(CheckpointError, match=r"layer_scale1\.lambda1 is missing"):
        hf_dino.read(Found(shapes, described=DINOV2))


def test_names_without_config_json_are_told_from_a_vits() -> None:
    assert hf_dino.recognises(Found(dinov2())) and hf_dino.recognises(Found(dinov3()))
    assert not hf_vit.recognises(Found(dinov2())) and not hf_vit.recognises(Found(dinov3()))
    assert not hf_dino.recognises(Found(dinov2(), described={"model_type": "vit"}))


@pytest.mark.parametrize(("width", "heads"), [(384, 6), (1280, 20), (4096, 32)])
def test_without_config_json_heads_are_those_of_released_dinov3s(width: int, heads: int) -> None:
    scaled = {8: width, 20: 4 * width}
    shapes = {name: tuple(scaled.get(n, n) for n in shape) for name, shape in dinov3().items()}
    assert hf_dino.read(Found(shapes)).config.heads == heads
