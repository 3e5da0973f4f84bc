"""torchvision's Vision Transformers, its own and SWAG's: one key for queries, keys and values, names of its own."""

from __future__ import annotations

import re
from typing import Any

from vitreous.checkpoints.dialects.settled import about_images
from vitreous.checkpoints.dialects.timm_names import Named, grid_of, heads_of, reading_of, renaming, told_by
from vitreous.checkpoints.loaded import Decision
from vitreous.checkpoints.reading import Found, Reading, asked_or
from vitreous.data.pipelines import swag, torchvision
from vitreous.data.preprocess import Preprocess, fraction_for
from vitreous.errors import CheckpointError

TITLE = "torchvision"

_WORDS = {
    "class_token": "cls_token", "encoder.pos_embedding": "pos_embed",
    "conv_proj.weight": "patch_embed.proj.weight", "conv_proj.bias": "patch_embed.proj.bias",
    "encoder.ln.weight": "norm.weight", "encoder.ln.bias": "norm.bias",
    "heads.head.weight": "head.weight", "heads.head.bias": "head.bias",
    "heads.pre_logits.weight": "pre_logits.weight", "heads.pre_logits.bias": "pre_logits.bias",
}  # fmt: skip
_LAYER = re.compile(r"encoder\.layers\.encoder_layer_(\d+)\.(.+)")
_IN_LAYER = {
    "ln_1.": "norm1.", "ln_2.": "norm2.", "self_attention.in_proj_": "attn.qkv.",
    "self_attention.out_proj.": "attn.proj.", "mlp.0.": "mlp.fc1.", "mlp.3.": "mlp.fc2.",
    "mlp.linear_1.": "mlp.fc1.", "mlp.linear_2.": "mlp.fc2.",
}  # fmt: skip
_SWAG_SIZES = {384, 512, 518}  # of the end-to-end fine-tuned weights; torchvision's own are all of 224


def recognises(found: Found) -> bool:
    """Whether there are torchvision's first convolution and first block."""
    return "conv_proj.weight" in found.shapes and any(_LAYER.fullmatch(name) for name in found.shapes)


def read(found: Found) -> Reading:
    """The classifier.

    Raises:
        CheckpointError: if it is another architecture, such as one with a convolutional stem.
    """
    named = Named.of(found.shapes, renaming(_LAYER, _IN_LAYER, _WORDS))
    told = told_by(named)
    image_size, _ = grid_of(found, named, (1,))
    preprocess, reason, guessed = _preprocess(found, told, (image_size.value[0], image_size.value[1]))
    decisions = (
        heads_of(found, told["width"], "torchvision's models"),
        asked_or("norm_eps", found.asked, 1e-6, "torchvision's code"),
        asked_or("activation", found.asked, "gelu", "torchvision's code, the exact GELU"),
        asked_or("pooling", found.asked, "class", "torchvision's code reads the class token"),
        image_size,
        asked_or("resampling", found.asked, "torchvision", "torchvision's interpolate_embeddings"),
        *_hidden_head(found, told["width"]),
        *about_images(preprocess, reason, guessed=guessed),
    )
    return reading_of(found, named, decisions, preprocess)


def _hidden_head(found: Found, width: int) -> tuple[Decision, ...]:
    shape = found.shapes.get("heads.pre_logits.weight")
    if shape is None:
        return ()
    if shape != (width, width):
        raise CheckpointError(
            f"heads.pre_logits.weight is {shape}; vitreous has a hidden layer of the token's width alone, {width}; "
            "open it with torchvision itself"
        )
    return (Decision("hidden_head", True, "there is heads.pre_logits"),)


def _preprocess(found: Found, told: dict[str, Any], size: tuple[int, int]) -> tuple[Preprocess, str, bool]:
    """Evaluation of torchvision's own weights or of SWAG's, which their sizes tell apart but for 224 pixels."""
    if "swag" in found.name.lower() or set(size) & _SWAG_SIZES or told["width"] == 1280:
        return swag(size), "SWAG's weights in torchvision, told by size or name", False
    settle = "SWAG's linear weights keep the shorter side whole, bicubic: preprocess.crop_fraction=1"
    if (told["width"], told["patch_size"]) == (1024, (16, 16)):
        preprocess = Preprocess(size, "crop", fraction_for(224, 242), "bilinear")
        return preprocess, f"torchvision's own weights of vit_l_16; {settle}", True
    return torchvision(size), f"torchvision's own weights; {settle}", True
