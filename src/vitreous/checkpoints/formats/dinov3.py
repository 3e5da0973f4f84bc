"""DINOv3's own files, and timm's of the same models: rotary positions, registers, keys without a bias.

DINOv3's file keeps a bias for the keys and a mask of zeros that takes it away again; here both are multiplied once.
timm's has a bias for queries and values alone, or none.
"""

from __future__ import annotations

import re
from dataclasses import replace

import torch
from torch import Tensor

from vitreous.checkpoints.containers.contract import Shapes
from vitreous.checkpoints.dialects.settled import STAND_IN, about_images
from vitreous.checkpoints.dialects.timm_names import Named, reading_of, told_by, with_layer_scale, without_keys
from vitreous.checkpoints.formats.timm import check_sizes, class_names_from_timm, image_size_in, part_of, pooling_in
from vitreous.checkpoints.loaded import Decision
from vitreous.checkpoints.reading import Found, Part, Plan, Reading, asked_or, joined, shape_of
from vitreous.checkpoints.timm_preprocess import preprocess_from_timm
from vitreous.data.pipelines import dinov3
from vitreous.data.preprocess import Preprocess
from vitreous.errors import CheckpointError

TITLE = "DINOv3"

_TRAINED_AT = (256, 256)
_ANY_SIZE = "DINOv3's README; turned positions fit every size"
_WIDTH_OF_7B = 4096
_WIDTHS_OF_BOTH = (1024, _WIDTH_OF_7B)  # sizes of which there are weights for photographs and for satellite images
_SATELLITE_MEAN = (0.430, 0.411, 0.296)
_SATELLITE_STD = (0.213, 0.156, 0.143)
_TIMMS = re.compile(r"vit_(?:tiny|small|small_plus|base|large|huge_plus|7b)_patch16_dinov3(?:_qkvb)?")
_GATED = {".mlp.w1.": ".mlp.w2.", ".mlp.fc1_g.": ".mlp.fc1_x."}
_UNUSED = {
    "mask_token": STAND_IN,
    "rope_embed.periods": "the rotation's periods, computed anew from rope_base; their values are not compared",
    "local_cls_norm.": "a LayerNorm for small crops, used in pre-training alone",
}


def recognises(found: Found) -> bool:
    """Whether there are storage tokens or rotary periods; or timm's name, or what timm's files of it alone lack."""
    shapes = found.shapes
    if "architecture" in found.described:
        return _TIMMS.fullmatch(str(found.described["architecture"])) is not None
    marked = "storage_tokens" in shapes or "rope_embed.periods" in shapes
    timms = {"reg_token", "blocks.0.gamma_1", "cls_token"} <= shapes.keys() and "pos_embed" not in shapes
    return (marked or timms) and "patch_embed.proj.weight" in shapes


def read(found: Found) -> Reading:
    """The backbone of DINOv3; its features are the class token's.

    Raises:
        CheckpointError: if it is another architecture, or class token and patches have LayerNorms of their own.
    """
    if "cls_norm.weight" in found.shapes:
        raise CheckpointError(
            "this DINOv3 normalises class token and patches apart (cls_norm), which vitreous has no word for; "
            "open it with its own library, facebookresearch/dinov3"
        )
    named = _in_timms_words(found)
    told = told_by(named)
    check_sizes(part_of(found.described, "model_args"), told)
    width = told["width"]
    size = image_size_in(found) or Decision("image_size", list(_TRAINED_AT), _ANY_SIZE)
    preprocess, about = _preprocess(found, (int(size.value[0]), int(size.value[1])), width)
    decisions = (
        _heads(found, width),
        asked_or("norm_eps", found.asked, 1e-5, "DINOv3's hub: layernormbf16"),
        asked_or("activation", found.asked, "gelu", "DINOv3's code: the exact GELU, or SwiGLU where there is w1"),
        _pooling(found, named),
        asked_or("positions", found.asked, "rope", "DINOv3's code"),
        asked_or("rope_base", found.asked, 100.0, "DINOv3's hub; the file's own periods are not compared"),
        size,
        *about,
    )
    names = class_names_from_timm(found.described, told["classes"])
    return reading_of(found, named, decisions, preprocess, reasons=_UNUSED, class_names=names)


def _pooling(found: Found, named: Named) -> Decision:
    """Meta's code returns the class token; timm's DINOv3, whose registers have timm's name, ends in a mean."""
    told = "global_pool" in {**found.described, **part_of(found.described, "model_args")}
    if told or "pooling" in found.asked or "reg_token" not in found.shapes:
        return pooling_in(found, named, "DINOv3's code returns the class token")
    return Decision("pooling", "mean", "timm's default for its DINOv3")


def _heads(found: Found, width: int) -> Decision:
    """Told by the rotation: it has a period for four numbers of a head."""
    arguments = part_of(found.described, "model_args")
    if "num_heads" in arguments:
        return asked_or("heads", found.asked, arguments["num_heads"], "num_heads in model_args")
    if width == _WIDTH_OF_7B:
        return asked_or("heads", found.asked, width // 128, "DINOv3's hub, for its 7B: 128 numbers a head")
    if "heads" in found.asked or "rope_embed.periods" not in found.shapes:
        return asked_or("heads", found.asked, width // 64, "DINOv3's hub: 64 numbers a head")
    head_dim = 4 * shape_of(found.shapes, "rope_embed.periods", 1)[0]
    return Decision("heads", width // head_dim, f"rope_embed.periods are for {head_dim} numbers a head")


def _in_timms_words(found: Found) -> Named:
    named = Named.of(found.shapes, _renamed)
    shapes: Shapes = {}
    parts: Plan = {}
    for name, shape in found.shapes.items():
        if name.endswith(".attn.qkv.bias_mask"):
            bias = name.removesuffix("_mask")
            shape_of(found.shapes, bias, 1)
            shapes[bias], parts[bias] = shape, Part((bias, name), _masked)
        if name.endswith(".attn.q_bias"):
            bias, values = name.replace("q_bias", "qkv.bias"), name.replace("q_bias", "v_bias")
            shapes[bias], parts[bias] = (3 * shape_of(found.shapes, values, 1)[0],), Part((name, values), without_keys)
        for first, second in _GATED.items():
            if first not in name:
                continue
            timms, second = name.replace(first, ".mlp.fc1."), name.replace(first, second)
            shape_of(found.shapes, second, len(shape))
            shapes[timms] = (2 * shape[0], *shape[1:])
            parts[timms] = joined(name, second)
    return named.but(shapes, parts)


def _renamed(name: str) -> str:
    name = name.replace(".mlp.w3.", ".mlp.fc2.")
    return "reg_token" if name == "storage_tokens" else with_layer_scale(name)


def _preprocess(found: Found, size: tuple[int, int], width: int) -> tuple[Preprocess, tuple[Decision, ...]]:
    if given := part_of(found.described, "pretrained_cfg"):
        return preprocess_from_timm(dict(given))
    name = found.name.lower()
    satellite, photographs = "sat493m" in name, "lvd1689m" in name
    preprocess = dinov3(size)
    if satellite:
        preprocess = replace(preprocess, mean=_SATELLITE_MEAN, std=_SATELLITE_STD)
    images = "satellite images, SAT-493M" if satellite else "photographs, LVD-1689M"
    decisions = about_images(preprocess, f"DINOv3's README, make_transform for {images}")
    if satellite or photographs or width not in _WIDTHS_OF_BOTH:
        return preprocess, decisions
    other = f"{decisions[0].reason}; weights of SAT-493M have mean {list(_SATELLITE_MEAN)}, std {list(_SATELLITE_STD)}"
    return preprocess, (replace(decisions[0], reason=other, guessed=True), *decisions[1:])


def _masked(bias: Tensor, mask: Tensor) -> Tensor:
    """The bias with nothing for the keys: (3 * width), queries, keys, values.

    A mask that was never filled is NaN, as DINOv3 makes it; then it is 1, 0, 1, as DINOv3 fills it.
    """
    thirds = torch.ones_like(mask).unflatten(0, (3, -1))
    thirds[1] = 0
    return bias * torch.where(mask.isnan(), thirds.flatten(), mask)
