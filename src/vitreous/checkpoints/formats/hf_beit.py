"""transformers' BEiT and Data2VecVision: positions are scores for each offset of two patches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from vitreous.checkpoints.containers.contract import Shapes
from vitreous.checkpoints.dialects.hf_blocks import Blocks, dense, read_blocks
from vitreous.checkpoints.dialects.hf_config import CLASSIFIER, Described, describe, model_type_of, number, refuse
from vitreous.checkpoints.dialects.hf_encoder import (
    PATCHES,
    both,
    check_said,
    classes_of,
    contradiction,
    encoder_settings,
    last_norm,
    make_reading,
    name_before,
)
from vitreous.checkpoints.dialects.settled import STAND_IN
from vitreous.checkpoints.loaded import Decision
from vitreous.checkpoints.reading import Found, Part, Plan, Reading, asked_or, same, shape_of
from vitreous.model.config import ViTConfig

TITLE = "transformers BEiT"

_TYPES = ("beit", "data2vec-vision")
_SCORES = "relative_position_bias_table"
_OF_BLOCK = (
    "attention.attention.relative_position_bias.relative_position_bias_table",
    "relative_position_bias.relative_position_bias_table",
)
_OF_ALL = (
    "encoder.relative_position_bias.relative_position_bias_table",
    "shared_position_bias.relative_position_bias_table",
)
_ABSOLUTE = "embeddings.position_embeddings"
_AFTER = "pooler.layernorm"
_BEFORE = "layernorm"

_LEFT_OUT = {
    "embeddings.mask_token": STAND_IN,
    "lm_head.": "the head of the pre-training, which names hidden patches",
}


def recognises(found: Found) -> bool:
    """Whether config.json says so; without one, whether there is BEiT's layer scale or its table of scores."""
    if not any(name.endswith(PATCHES) for name in found.shapes):
        return False
    model_type = model_type_of(found)
    if model_type:
        return model_type in _TYPES
    return any(name.endswith((".lambda_1", _SCORES)) for name in found.shapes)


def read(found: Found) -> Reading:
    """The encoder, with the classifier if there is one.

    Raises:
        CheckpointError: if there are absolute positions beside relative ones, or patches in a grid that is no square
            with relative ones, or tensors and config.json do not fit each other.
    """
    shapes = found.shapes
    before = name_before(shapes, PATCHES)
    described = describe(found, "beit")
    blocks = read_blocks(shapes, before, ("keys",))
    tables = _tables(shapes, before, blocks.path)
    absolute = before + _ABSOLUTE in shapes
    if tables and absolute:
        raise refuse("BEiT with absolute beside relative positions", "vitreous has one or the other")
    _check_parts(described, blocks, tables, absolute=absolute)
    patches, scores = _patches(shapes, before, tables), next(iter(tables), None)
    told, decisions = encoder_settings(described, blocks, before + PATCHES, patches, scores=scores)
    positions = "learned" if absolute else "relative-bias" if tables else "none"
    norm, pooling = _last(shapes, before, described)
    told |= {"positions": positions, "classes": classes_of(shapes, CLASSIFIER)}
    told["norm_after_pooling"] = norm == before + _AFTER
    decisions.append(pooling)
    plan = partial(_plan, shapes, before, blocks, norm)
    reasons = both(before, _LEFT_OUT)
    computed = [name for name in shapes if name.endswith("relative_position_index")]
    reasons |= dict.fromkeys(computed, "numbers of offsets, which are computed")
    if f"{_BEFORE}.weight" in shapes and norm != _BEFORE:
        reasons[f"{_BEFORE}."] = "the norm before the head of the pre-training"
    return make_reading(described, told, decisions, plan, reasons)


def _tables(shapes: Shapes, before: str, block: str) -> list[str]:
    """The tables of scores of the first block: its own, the one of all blocks, or both."""
    names = [*(f"{block}0.{name}" for name in _OF_BLOCK), *(before + name for name in _OF_ALL)]
    return [name for name in names if name in shapes]


def _check_parts(described: Described, blocks: Blocks, tables: Sequence[str], *, absolute: bool) -> None:
    """Refuses a file that lacks what config.json says; without these parts a model computes something else."""
    own = [table for table in tables if table.startswith(blocks.path)]
    told = {"use_relative_position_bias": bool(own), "use_shared_relative_position_bias": len(tables) > len(own)}
    check_said(described, told | {"use_absolute_position_embeddings": absolute})
    first = described.settings.get("layer_scale_init_value")
    if first is not None and (number("layer_scale_init_value", first) > 0) != blocks.has_layer_scale:
        said = f"has layer_scale_init_value {first}"
        raise contradiction(said, f"{blocks.path}0.lambda_1", is_there=blocks.has_layer_scale)


def _patches(shapes: Shapes, before: str, tables: Sequence[str]) -> int | None:
    """How many patches the positions are made for: of a square grid, if they are relative."""
    if not tables:
        return shape_of(shapes, before + _ABSOLUTE, 3)[1] - 1 if before + _ABSOLUTE in shapes else None
    offsets = shape_of(shapes, tables[0], 2)[0] - 3  # three belong to the class token
    side = (math.isqrt(max(offsets, 0)) + 1) // 2
    if side < 1 or (2 * side - 1) ** 2 != offsets:
        why = "transformers mixes up rows and columns where the grid of patches is no square"
        raise refuse(f"BEiT with {offsets} relative positions", why)
    return side * side


def _last(shapes: Shapes, before: str, described: Described) -> tuple[str, Decision]:
    """The name of the last norm, and what the head reads, which the place of the norm tells."""
    asked = described.found.asked
    if f"{before}{_AFTER}.weight" in shapes:
        reason = f"there is {_AFTER}, which stands behind the mean of patches"
        return before + _AFTER, asked_or("pooling", asked, "mean", reason)
    own = f"{before}{_BEFORE}.weight" in shapes
    if own and "lm_head.weight" not in shapes:
        reason = f"there is {_BEFORE}, and so the output is the class token"
        return before + _BEFORE, asked_or("pooling", asked, "class", reason)
    if own or f"{_BEFORE}.weight" in shapes:
        reason = "the head of the pre-training reads patches, and says nothing of the whole image"
        return before + _BEFORE if own else _BEFORE, asked_or("pooling", asked, "class", reason, guessed=True)
    raise refuse("a BEiT without a norm after its blocks", "it was saved without its pooler")


def _plan(shapes: Shapes, before: str, blocks: Blocks, norm: str, config: ViTConfig) -> Plan:
    plan = dict(blocks.plan)
    plan["cls_token"] = same(f"{before}embeddings.cls_token")
    plan |= dense(before + PATCHES.removesuffix(".weight"), "patch_embed.proj")
    if config.positions == "learned":
        plan["pos_embed"] = same(before + _ABSOLUTE)
    if config.positions == "relative-bias":
        for layer in range(blocks.depth):
            plan[f"blocks.{layer}.attn.{_SCORES}"] = _scores(_tables(shapes, before, blocks.path), blocks.path, layer)
    plan |= last_norm(config, norm)
    if config.classes:
        plan |= dense(CLASSIFIER, "head")
    return plan


def _scores(tables: Sequence[str], path: str, layer: int) -> Part:
    """A block's own table, or the one of all blocks; with both, their sum, as transformers adds the scores."""
    names = tuple(name.replace(f"{path}0.", f"{path}{layer}.", 1) for name in tables)
    return Part(names, lambda *tensors: sum(tensors[1:], tensors[0]))
