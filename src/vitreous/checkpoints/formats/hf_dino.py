"""transformers' DINOv2, DINOv2 with registers and DINOv3."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from vitreous.checkpoints.containers.contract import Shapes
from vitreous.checkpoints.dialects.hf_blocks import DENSE, Blocks, dense, read_blocks
from vitreous.checkpoints.dialects.hf_config import CLASSIFIER, Described, describe, model_type_of, number
from vitreous.checkpoints.dialects.hf_encoder import (
    PATCHES,
    both,
    check_said,
    classes_of,
    encoder_settings,
    last_norm,
    make_reading,
    name_before,
)
from vitreous.checkpoints.dialects.settled import STAND_IN
from vitreous.checkpoints.loaded import Decision
from vitreous.checkpoints.reading import Found, Part, Plan, Reading, asked_or, same, shape_of
from vitreous.model.config import ViTConfig

TITLE = "transformers DINO"

_V3_PATCHES = "embeddings.patch_embeddings.weight"
_SCALE = "layer_scale1.lambda1"
_TYPES = ("dinov2", "dinov2_with_registers")
_V3 = "dinov3_vit"
_ROPE_BASE = 100.0

_BIASES = {
    "query_bias": "queries", "key_bias": "keys", "value_bias": "values", "proj_bias": "attn.proj",
    "mlp_bias": "mlp.fc2",
}  # fmt: skip
"""DINOv3's switches, and whose bias each is."""

_LEFT_OUT = {
    "embeddings.mask_token": STAND_IN,
    "rope_embeddings.": "turns of rotary positions, which are computed",
}


def recognises(found: Found) -> bool:
    """Whether config.json says so; without one, whether there is DINO's layer scale."""
    model_type = model_type_of(found)
    if model_type:
        ending = _V3_PATCHES if model_type == _V3 else PATCHES if model_type in _TYPES else None
        return ending is not None and any(name.endswith(ending) for name in found.shapes)
    scaled = any(name.endswith(_SCALE) for name in found.shapes)
    return scaled and any(name.endswith((PATCHES, _V3_PATCHES)) for name in found.shapes)


def read(found: Found) -> Reading:
    """The encoder, with the classifier if there is one, which reads class token and mean of patches.

    Raises:
        CheckpointError: if tensors and config.json do not fit each other, or say what a ViT cannot be.
    """
    shapes = found.shapes
    is_rotary = any(name.endswith(_V3_PATCHES) for name in shapes)
    ending = _V3_PATCHES if is_rotary else PATCHES
    before = name_before(shapes, ending)
    registers = _registers(shapes, f"{before}embeddings.register_tokens")
    described = describe(found, _V3 if is_rotary else "dinov2_with_registers" if registers else "dinov2")
    blocks = read_blocks(shapes, before, DENSE if is_rotary else ())
    _check_parts(described, blocks, registers)
    patches = None if is_rotary else shape_of(shapes, f"{before}embeddings.position_embeddings", 3)[1] - 1
    rule = "transformers-registers" if described.model_type == "dinov2_with_registers" else "transformers"
    told, decisions = encoder_settings(described, blocks, before + ending, patches, rule=rule)
    told |= {"registers": registers, "classes": classes_of(shapes, CLASSIFIER)}
    if is_rotary:
        told["positions"] = "rope"
        decisions.append(described.settle("rope_base", "rope_theta", _ROPE_BASE, number))
    decisions.append(_pooling(found, described.model_type, has_head=bool(told["classes"])))
    plan = partial(_plan, shapes, before, ending, blocks)
    reasons = both(before, _LEFT_OUT)
    if not registers:
        reasons |= both(before, {"embeddings.register_tokens": "it is empty"})
    return make_reading(described, told, decisions, plan, reasons)


def _registers(shapes: Shapes, name: str) -> int:
    """How many there are; DINOv3 without any writes an empty tensor."""
    return 0 if 0 in shapes.get(name, (0,)) else shape_of(shapes, name, 3)[1]


def _check_parts(described: Described, blocks: Blocks, registers: int) -> None:
    """Refuses a file that lacks what config.json says; without these parts a model computes something else."""
    shape_of(described.found.shapes, f"{blocks.path}0.{_SCALE}", 1)
    told: dict[str, Any] = {"num_register_tokens": registers, "use_swiglu_ffn": blocks.gated_mlp}
    told |= {"use_gated_mlp": blocks.gated_mlp, "qkv_bias": blocks.qkv_bias}
    told |= {name: layer in blocks.biases for name, layer in _BIASES.items()}
    check_said(described, told)


def _pooling(found: Found, model_type: str, *, has_head: bool) -> Decision:
    if has_head:
        return asked_or("pooling", found.asked, "class+mean", f"as transformers' {model_type} classifiers have it")
    return asked_or("pooling", found.asked, "class", f"transformers' {model_type} gives the class token as its output")


def _plan(shapes: Shapes, before: str, ending: str, blocks: Blocks, config: ViTConfig) -> Plan:
    around = f"{before}embeddings."
    plan = dict(blocks.plan)
    plan["cls_token"] = same(f"{around}cls_token")
    if config.registers:
        plan["reg_token"] = same(f"{around}register_tokens")
    if config.positions == "learned":
        plan["pos_embed"] = _with_registers(shapes, f"{around}position_embeddings", config.registers)
    patches = (before + ending).removesuffix(".weight")
    plan |= dense(patches, "patch_embed.proj")
    plan |= last_norm(config, before + ("norm" if ending == _V3_PATCHES else "layernorm"))
    if config.classes:
        plan |= dense(CLASSIFIER, "head")
    return plan


def _with_registers(shapes: Shapes, table: str, registers: int) -> Part:
    """The position table with rows of zeros for registers, which this source adds no positions to."""
    width = shape_of(shapes, table, 3)[2]

    def make(rows: Tensor) -> Tensor:
        return torch.cat([rows[:, :1], rows.new_zeros(1, registers, width), rows[:, 1:]], dim=1)

    return Part((table,), make) if registers else same(table)
