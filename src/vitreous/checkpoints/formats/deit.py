"""DeiT and DeiT III: timm's names; some of DeiT's have a distillation token, III's layer scale and other positions."""

from __future__ import annotations

from vitreous.checkpoints.dialects.settled import about_images
from vitreous.checkpoints.dialects.timm_names import (
    Named,
    grid_of,
    has_timm_names,
    heads_of,
    pooling_of,
    positions_with_prefix,
    reading_of,
    told_by,
    with_layer_scale,
)
from vitreous.checkpoints.reading import Found, Reading, asked_or
from vitreous.data.pipelines import deit, deit3

TITLE = "DeiT"


def recognises(found: Found) -> bool:
    """Whether timm's names come with gamma_1 and a joined bias, with dist_token, or in a file called deit_..."""
    shapes = found.shapes
    if not has_timm_names(shapes) or "cls_token" not in shapes or "architecture" in found.described:
        return False
    scaled = "blocks.0.gamma_1" in shapes and "blocks.0.attn.q_bias" not in shapes and "masked_embed" not in shapes
    return scaled or "dist_token" in shapes or found.name.lower().rpartition("/")[2].startswith("deit")


def read(found: Found) -> Reading:
    """The classifier; with a distillation token its logits are the mean of both heads'.

    Raises:
        CheckpointError: if it is another architecture.
    """
    named = Named.of(found.shapes, with_layer_scale)
    told = told_by(named)
    prefix = 1 + told["distillation"]
    third = told["layer_scale"] is not None
    project = "DeiT III" if third else "DeiT"
    image_size, before = grid_of(found, named, (0, 1) if third else (prefix,))
    named, notes = positions_with_prefix(named, before, prefix)
    size = (image_size.value[0], image_size.value[1])
    preprocess = deit3(size) if third else deit(size)
    decisions = (
        heads_of(found, told["width"], f"{project}'s models"),
        asked_or("norm_eps", found.asked, 1e-6, f"{project}'s code"),
        asked_or("activation", found.asked, "gelu", f"{project}'s code, the exact GELU"),
        pooling_of(found, named, f"{project}'s code reads the class token"),
        image_size,
        asked_or("resampling", found.asked, "deit", "DeiT's main.py"),
        *notes,
        *about_images(preprocess, "DeiT's README_revenge.md" if third else "DeiT's datasets.py"),
    )
    return reading_of(found, named, decisions, preprocess)
