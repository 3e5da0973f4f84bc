"""DINOv2's files: timm's names, blocks in chunks, registers that have no position, and SwiGLU in the giant."""

from __future__ import annotations

import re

from vitreous.checkpoints.dialects.settled import STAND_IN, about_images
from vitreous.checkpoints.dialects.timm_names import (
    Named,
    grid_of,
    heads_of,
    pooling_of,
    positions_with_prefix,
    reading_of,
    told_by,
)
from vitreous.checkpoints.loaded import Decision
from vitreous.checkpoints.reading import Found, Reading, asked_or
from vitreous.data.pipelines import dinov2

TITLE = "DINOv2"

_LAYERS = {"mlp.w12.": "mlp.fc1.", "mlp.w3.": "mlp.fc2."}
_CHUNKED = re.compile(r"blocks\.\d+\.(\d+)\.(.+)")
_EVALUATED_AT = 224
_UNUSED = {"mask_token": STAND_IN}


def recognises(found: Found) -> bool:
    """Whether there are DINOv2's mask token, registers or joined SwiGLU beside timm's patch embedding."""
    shapes = found.shapes
    if "architecture" in found.described or "patch_embed.proj.weight" not in shapes or "pos_embed" not in shapes:
        return False
    markers = "register_tokens" in shapes or len(shapes.get("mask_token", ())) == 2
    return (markers or any(".mlp.w12." in name for name in shapes)) and "rope_embed.periods" not in shapes


def read(found: Found) -> Reading:
    """The backbone of DINOv2; its features are the class token's.

    Raises:
        CheckpointError: if it is another architecture.
    """
    named = Named.of(found.shapes, _in_timms_words)
    told = told_by(named)
    image_size, before = grid_of(found, named, (1,))
    named, notes = positions_with_prefix(named, before, 1 + told["registers"])
    rule = "dinov2-registers" if told["registers"] else "dinov2"
    preprocess = dinov2(_evaluation_size(found, told["patch_size"], image_size))
    decisions = (
        heads_of(found, told["width"], "DINOv2's models"),
        asked_or("norm_eps", found.asked, 1e-6, "DINOv2's code"),
        asked_or("activation", found.asked, "gelu", "DINOv2's code: the exact GELU, or SwiGLU where there is w12"),
        pooling_of(found, named, "DINOv2's code returns the class token"),
        image_size,
        asked_or("resampling", found.asked, rule, "DINOv2's interpolate_pos_encoding, as its hub sets it"),
        *notes,
        *about_images(preprocess, "DINOv2's make_classification_eval_transform"),
    )
    return reading_of(found, named, decisions, preprocess, reasons=_UNUSED)


def _in_timms_words(name: str) -> str:
    if match := _CHUNKED.fullmatch(name):
        name = f"blocks.{match[1]}.{match[2]}"
    for theirs, timms in _LAYERS.items():
        name = name.replace(theirs, timms)
    return "reg_token" if name == "register_tokens" else name


def _evaluation_size(found: Found, patch_size: tuple[int, int], trained: Decision) -> tuple[int, int]:
    """What DINOv2 evaluates at: 224 pixels, whatever its positions were learned at; else what they were."""
    fits = not _EVALUATED_AT % patch_size[0] and not _EVALUATED_AT % patch_size[1]
    small = min(trained.value) < _EVALUATED_AT
    if "image_size" in found.asked or not fits or small:
        return trained.value[0], trained.value[1]
    return _EVALUATED_AT, _EVALUATED_AT
