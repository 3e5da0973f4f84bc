"""BEiT's own files, versions 1 and 2, and timm's of the same models.

Scores for each offset of patches take the place of positions, and keys have no bias.
"""

from __future__ import annotations

import math

from vitreous.checkpoints.containers.contract import Shapes
from vitreous.checkpoints.dialects.settled import STAND_IN, about_images
from vitreous.checkpoints.dialects.timm_names import (
    Named,
    has_timm_names,
    reading_of,
    told_by,
    with_layer_scale,
    without_keys,
)
from vitreous.checkpoints.formats.timm import check_sizes, class_names_from_timm, image_size_in, part_of, pooling_in
from vitreous.checkpoints.loaded import Decision
from vitreous.checkpoints.reading import Found, Part, Plan, Reading, asked_or, layers_of, same, shape_of
from vitreous.checkpoints.timm_preprocess import preprocess_from_timm
from vitreous.data.preprocess import HALF_MEAN, HALF_STD, Preprocess
from vitreous.errors import CheckpointError

TITLE = "BEiT"

_TABLE = "attn.relative_position_bias_table"
_SHARED = "rel_pos_bias.relative_position_bias_table"
_PREFIX_OFFSETS = 3  # class token to patches, patches to class token, class token to itself
_COMPUTED = "which offset each pair of tokens has; computed anew"
_UNUSED = {
    "mask_token": STAND_IN,
    "lm_head.": "the head over visual words, used in pre-training alone",
}


def recognises(found: Found) -> bool:
    """Whether timm's names come with a table of offsets."""
    tables = _SHARED in found.shapes or f"blocks.0.{_TABLE}" in found.shapes
    timms = str(found.described.get("architecture", "beit_")).startswith(("beit_", "beitv2_"))
    return tables and has_timm_names(found.shapes) and timms


def read(found: Found) -> Reading:
    """Features of a pre-trained file, logits of a fine-tuned one.

    Raises:
        CheckpointError: if it is another architecture, such as one with positions of both kinds.
    """
    if "pos_embed" in found.shapes:
        raise CheckpointError(
            "this BEiT has positions of two kinds (use_abs_pos_emb), vitreous has one kind a model; "
            "open it with its own library, microsoft/unilm/beit"
        )
    named = _in_timms_words(found)
    told = told_by(named)
    check_sizes(part_of(found.described, "model_args"), told)
    offsets, heads = shape_of(named.shapes, f"blocks.0.{_TABLE}", 2)
    image_size = _image_size(found, offsets - _PREFIX_OFFSETS, told["patch_size"])
    preprocess, about = _preprocess(found, (int(image_size.value[0]), int(image_size.value[1])))
    decisions = (
        asked_or("heads", found.asked, heads, "columns of the table of offsets"),
        asked_or("norm_eps", found.asked, 1e-6, "BEiT's code"),
        asked_or("activation", found.asked, "gelu", "BEiT's code, the exact GELU"),
        pooling_in(found, named, "BEiT's code without use_mean_pooling"),
        image_size,
        asked_or("positions", found.asked, "relative-bias", "there is a table of offsets"),
        asked_or("resampling", found.asked, "beit", "BEiT's run_class_finetuning.py"),
        Decision("bias of the keys", 0, "BEiT has none; adding 0 is exact"),
        *about,
    )
    names = class_names_from_timm(found.described, told["classes"])
    index = dict.fromkeys((name for name in found.shapes if name.endswith(".relative_position_index")), _COMPUTED)
    return reading_of(found, named, decisions, preprocess, reasons=_UNUSED | index, class_names=names)


def _in_timms_words(found: Found) -> Named:
    """Timm's names, with one joined bias, and the shared table in every block."""
    named = Named.of(found.shapes, with_layer_scale)
    shapes: Shapes = {}
    parts: Plan = {}
    for layer in range(layers_of(found.shapes, "blocks.")):
        before = f"blocks.{layer}.attn"
        if f"{before}.q_bias" in found.shapes:
            (length,) = shape_of(found.shapes, f"{before}.q_bias", 1)
            shape_of(found.shapes, f"{before}.v_bias", 1)
            shapes[f"{before}.qkv.bias"] = (3 * length,)
            parts[f"{before}.qkv.bias"] = Part((f"{before}.q_bias", f"{before}.v_bias"), without_keys)
        if _SHARED in found.shapes:
            shapes[f"blocks.{layer}.{_TABLE}"] = shape_of(found.shapes, _SHARED, 2)
            parts[f"blocks.{layer}.{_TABLE}"] = same(_SHARED)
    return named.but(shapes, parts)


def _preprocess(found: Found, size: tuple[int, int]) -> tuple[Preprocess, tuple[Decision, ...]]:
    if given := part_of(found.described, "pretrained_cfg"):
        return preprocess_from_timm(dict(given))
    preprocess = Preprocess(size, "crop", 0.875 if min(size) < 384 else 1.0, "bicubic", HALF_MEAN, HALF_STD)
    reason = "BEiT's datasets.py; version 2 was trained with ImageNet's mean and std"
    return preprocess, about_images(preprocess, reason, guessed=True)


def _image_size(found: Found, offsets: int, patch_size: tuple[int, int]) -> Decision:
    """From (2 * rows - 1) * (2 * columns - 1) offsets, which a square image makes the square of an odd number."""
    if size := image_size_in(found):
        return size
    side = math.isqrt(max(offsets, 0))
    if side * side != offsets or not side % 2:
        raise CheckpointError(
            f"the table has {offsets} offsets of patches, which are of no square image; "
            "say what it was made for: image_size=(height, width) in pixels"
        )
    rows = (side + 1) // 2
    square = [rows * patch_size[0], rows * patch_size[1]]
    return Decision("image_size", square, f"the table's {offsets} offsets, taken as those of {rows} x {rows} patches")
