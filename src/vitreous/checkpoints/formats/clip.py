"""CLIP's image tower: OpenAI's archives, and state dicts of open_clip, whose timm towers are read as timm's.

The projection into the space that images share with texts is our head, without a bias: its outputs are no classes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from vitreous.checkpoints.dialects.settled import about_images
from vitreous.checkpoints.dialects.timm_names import Named, grid_of, heads_of, reading_of, renaming, told_by
from vitreous.checkpoints.formats import timm
from vitreous.checkpoints.loaded import Decision
from vitreous.checkpoints.reading import (
    Found,
    Part,
    Reading,
    asked_or,
    reshaped,
    same,
    shape_of,
    transposed,
    unused,
    zeros,
)
from vitreous.data.images import shown
from vitreous.data.pipelines import clip, siglip
from vitreous.data.preprocess import Colour, Preprocess
from vitreous.errors import CheckpointError

TITLE = "CLIP"

_VISUAL = "visual."
_TRUNK = "visual.trunk."
_BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)")
_WORDS = {
    "conv1.weight": "patch_embed.proj.weight", "conv1.bias": "patch_embed.proj.bias",
    "ln_pre.weight": "norm_pre.weight", "ln_pre.bias": "norm_pre.bias",
    "ln_post.weight": "norm.weight", "ln_post.bias": "norm.bias",
}  # fmt: skip
_IN_BLOCK = {
    "ln_1.": "norm1.", "ln_2.": "norm2.", "attn.in_proj_": "attn.qkv.", "attn.out_proj.": "attn.proj.",
    "mlp.c_fc.": "mlp.fc1.", "mlp.c_proj.": "mlp.fc2.", "ls_1.": "ls1.", "ls_2.": "ls2.",
}  # fmt: skip
_TEXT_NAMES = (
    "transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection", "text.", "logit_scale",
    "logit_bias", "attn_mask", "input_resolution", "context_length", "vocab_size", "cls_emb",
)  # fmt: skip
_UNUSED = dict.fromkeys(_TEXT_NAMES, "of the text tower, or of both together") | {
    "visual.image_mean": "what images are normalised with, which the preprocessing says",
    "visual.image_std": "what images are normalised with, which the preprocessing says",
}
_REFUSED = {
    "visual.attn_pool.": "attention pooling (CoCa)",
    "visual.layer1.": "a ResNet",
    "visual.patchnorm_pre_ln.": "a LayerNorm over pixels (input_patchnorm)",
    "visual.head.mlp.": "an MLP as projection",
    "text_decoder.": "a decoder of captions (CoCa)",
}
_QUICK = re.compile(r"openai|quickgelu|laion400m|metaclip|dfn|vit-?b-?(?:32|16)$|vit-?l-?14(?:@336px)?$", re.IGNORECASE)
_EXACT = re.compile(r"laion2b|datacomp|commonpool|laion5b|merged2b", re.IGNORECASE)


def recognises(found: Found) -> bool:
    """Whether there is an image tower of OpenAI's or open_clip's."""
    shapes = found.shapes
    alone = "class_embedding" in shapes and "conv1.weight" in shapes
    return alone or "visual.conv1.weight" in shapes or f"{_TRUNK}patch_embed.proj.weight" in shapes


def read(found: Found) -> Reading:
    """The image tower; with its projection the outputs are the image's place beside texts.

    Raises:
        CheckpointError: if the tower is of another kind, such as a ResNet or CoCa's.
    """
    for start, what in _REFUSED.items():
        if any(name.startswith(start) for name in found.shapes):
            raise CheckpointError(f"this CLIP has {what}, which vitreous has no word for; open it with open_clip")
    if f"{_TRUNK}patch_embed.proj.weight" in found.shapes:
        return _read_timm_tower(found)
    before = _VISUAL if "visual.conv1.weight" in found.shapes else ""
    named = _in_timms_words(found, before)
    told = told_by(named)
    image_size, _ = grid_of(found, named, (1,))
    tower = _mapping(_mapping(found.described, "model_cfg"), "vision_cfg")
    preprocess, about = _preprocess(found, (image_size.value[0], image_size.value[1]), clip)
    decisions = (
        _heads(found, told["width"], tower),
        asked_or("norm_eps", found.asked, 1e-5, "PyTorch's default, which CLIP and open_clip keep"),
        _activation(found),
        asked_or("pooling", found.asked, "class", "CLIP's code reads the class token"),
        image_size,
        asked_or("resampling", found.asked, "open_clip", "open_clip's resize_pos_embed; OpenAI's code has no rule"),
        *_about_the_projection(told["classes"]),
        *about,
    )
    return reading_of(found, named, decisions, preprocess, reasons=_UNUSED)


def _in_timms_words(found: Found, before: str) -> Named:
    visual = {name: shape for name, shape in found.shapes.items() if name.startswith(before)}
    rename = renaming(_BLOCK, _IN_BLOCK, _WORDS)
    named = Named.of(visual, lambda name: rename(name.removeprefix(before)))
    width = shape_of(found.shapes, f"{before}class_embedding", 1)[0]
    rows = shape_of(found.shapes, f"{before}positional_embedding", 2)[0]
    shapes: dict[str, tuple[int, ...]] = {"cls_token": (1, 1, width), "pos_embed": (1, rows, width)}
    parts = {
        "cls_token": reshaped(f"{before}class_embedding", 1, 1, -1),
        "pos_embed": Part((f"{before}positional_embedding",), lambda table: table.unsqueeze(0)),
    }
    if f"{before}proj" in visual:
        outputs = shape_of(found.shapes, f"{before}proj", 2)[1]
        shapes |= {"head.weight": (outputs, width), "head.bias": (outputs,)}
        parts |= {"head.weight": transposed(f"{before}proj"), "head.bias": zeros(outputs)}
    return named.but(shapes, parts)


def _heads(found: Found, width: int, tower: Mapping[str, Any]) -> Decision:
    head_dim = tower.get("head_width")
    if isinstance(head_dim, int) and head_dim > 0 and not width % head_dim and "heads" not in found.asked:
        return Decision("heads", width // head_dim, f"head_width {head_dim} in open_clip's configuration")
    return heads_of(found, width, "models of OpenAI and open_clip")


def _activation(found: Found) -> Decision:
    """OpenAI's models have quick-GELU; of open_clip's those do that were made to be like them."""
    described = _mapping(found.described, "model_cfg")
    if described:
        quick = bool(described.get("quick_gelu", False))
        return asked_or("activation", found.asked, "quick-gelu" if quick else "gelu", "quick_gelu in its configuration")
    if found.container == "torchscript" or "input_resolution" in found.shapes:
        return asked_or("activation", found.asked, "quick-gelu", "OpenAI's archive: all its models use quick-GELU")
    stem = found.name.rpartition("/")[2].removesuffix(".pt")
    if _QUICK.search(stem):
        return asked_or("activation", found.asked, "quick-gelu", f"the file's name, {stem[:60]!r}", guessed=True)
    if _EXACT.search(stem):
        return asked_or("activation", found.asked, "gelu", f"the file's name, {stem[:60]!r}", guessed=True)
    reason = "open_clip's default; say activation='quick-gelu' for weights of OpenAI, LAION-400M, MetaCLIP or DFN"
    return asked_or("activation", found.asked, "gelu", reason, guessed=True)


def _preprocess(
    found: Found, size: tuple[int, int], usual: Callable[[tuple[int, int]], Preprocess]
) -> tuple[Preprocess, tuple[Decision, ...]]:
    given = _mapping(found.described, "preprocess_cfg")
    preprocess, reason = usual(size), "what OpenAI's code does, and open_clip for most models"
    if given:
        try:
            preprocess = replace(
                preprocess,
                mean=_colour(given.get("mean") or preprocess.mean),
                std=_colour(given.get("std") or preprocess.std),
                interpolation=given.get("interpolation") or preprocess.interpolation,
                resize="squash" if given.get("resize_mode") == "squash" else "crop",
            )
        except (TypeError, ValueError) as cause:
            raise CheckpointError(
                f"preprocess_cfg cannot be used: {shown(str(cause))[:200]}; copy the file again"
            ) from cause
        reason = "preprocess_cfg in its configuration"
    return preprocess, about_images(preprocess, reason)


def _colour(numbers: Sequence[Any]) -> Colour:
    red, green, blue = (float(number) for number in numbers)
    return red, green, blue


def _about_the_projection(outputs: int) -> tuple[Decision, ...]:
    if not outputs:
        return ()
    reason = "the projection: numbers of the space that images share with texts, no classes"
    return (Decision("classes", outputs, reason),)


def _read_timm_tower(found: Found) -> Reading:
    """A tower that timm made, with open_clip's projection as its head where timm's own is left out."""
    inside = {name.removeprefix(_TRUNK): shape for name, shape in found.shapes.items() if name.startswith(_TRUNK)}
    own = {name: _TRUNK + name for name in inside}
    projection = "visual.head.proj.weight"
    if projection in found.shapes:
        inside["head.weight"] = shape_of(found.shapes, projection, 2)
        own["head.weight"] = projection
    described = _mapping(_mapping(found.described, "model_cfg"), "vision_cfg")
    name = str(described.get("timm_model_name") or found.name)
    reading = timm.read(Found(inside, found.container, name=name, asked=found.asked))
    plan = {ours: Part(tuple(own[source] for source in part.sources), part.make) for ours, part in reading.plan.items()}
    if projection in found.shapes:
        bias = "visual.head.proj.bias"
        plan["head.bias"] = same(bias) if bias in found.shapes else zeros(reading.config.classes)
    size = reading.config.image_size
    preprocess, about = _preprocess(found, size, siglip if reading.config.pooling == "map" else clip)
    told = ("mean and std", "resize", "interpolation", "classes")
    decisions = tuple(decision for decision in reading.decisions if decision.setting not in told)
    reasons = {own[name]: reason for name, reason in reading.ignored.items()}
    return replace(
        reading,
        plan=plan,
        preprocess=preprocess,
        decisions=(*decisions, *_about_the_projection(reading.config.classes), *about),
        ignored=unused(found, plan, reasons | _UNUSED),
    )


def _mapping(described: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = described.get(name)
    return value if isinstance(value, dict) else {}
