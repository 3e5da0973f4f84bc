"""lucidrains' vit-pytorch: ViT of several years, and SimpleViT.

A patch is a row of numbers, (row, column, channel) from the slowest to the fastest, and passes a dense layer, in later
versions between two LayerNorms. Queries, keys and values have no bias, and heads of their own width.
"""

from __future__ import annotations

import math
import re

import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.checkpoints.containers.contract import Shapes
from vitreous.checkpoints.dialects.settled import about_classes, about_images, config_of
from vitreous.checkpoints.loaded import Decision
from vitreous.checkpoints.reading import (
    Found,
    Part,
    Plan,
    Reading,
    asked_or,
    layers_of,
    reshaped,
    same,
    shape_of,
    square_grid,
    unused,
    zeros,
)
from vitreous.data.pipelines import vit_pytorch
from vitreous.errors import CheckpointError
from vitreous.model.config import ViTConfig
from vitreous.model.positions import sincos_positions

TITLE = "vit-pytorch"

_IN_LAYER = (
    (r"0\.norm\.(weight|bias)", r"norm1.\1"),
    (r"0\.(?:fn\.)?to_qkv\.weight", "attn.qkv.weight"),
    (r"0\.(?:fn\.)?to_out\.(?:0\.)?(weight|bias)", r"attn.proj.\1"),
    (r"1\.(?:net\.0|norm)\.(weight|bias)", r"norm2.\1"),
    (r"1\.(?:net\.1|fn\.net\.0)\.(weight|bias)", r"mlp.fc1.\1"),
    (r"1\.(?:net\.[34]|fn\.net\.3)\.(weight|bias)", r"mlp.fc2.\1"),
)
_LAYERS = "transformer.layers."
_HEAD_DIM = 64  # vit-pytorch's default dim_head


def recognises(found: Found) -> bool:
    """Whether there are vit-pytorch's patch embedding and first layer."""
    return "to_patch_embedding.1.weight" in found.shapes and "transformer.layers.0.0.norm.weight" in found.shapes


def read(found: Found) -> Reading:
    """A ViT or SimpleViT.

    Raises:
        CheckpointError: if it is another of vit-pytorch's models, or pools in a way that vitreous does not.
    """
    shapes = found.shapes
    has_norms = "to_patch_embedding.3.weight" in shapes
    width, pixels = shape_of(shapes, f"to_patch_embedding.{2 if has_norms else 1}.weight", 2)
    patch_size = _patch_size(found, pixels)
    size = (int(patch_size.value[0]), int(patch_size.value[1]))
    channels = pixels // math.prod(size)
    prefix = int(math.prod(shapes.get("cls_token", (0,))) > 0)
    pooling = _pooling(found, prefix)
    image_size = _image_size(found, size, prefix)
    layers = _in_layers(shapes)
    first = layers[0]
    inner = shape_of(shapes, first.get("attn.qkv.weight", "attn.qkv.weight"), 2)[0] // 3
    hidden = shape_of(shapes, first.get("mlp.fc1.weight", "mlp.fc1.weight"), 2)[0]
    decisions = (
        patch_size,
        _heads(found, inner),
        asked_or("norm_eps", found.asked, 1e-5, "PyTorch's default, which vit-pytorch keeps"),
        asked_or("activation", found.asked, "gelu", "vit-pytorch's code, the exact GELU"),
        pooling,
        image_size,
    )
    head, last = _head(shapes)
    settings = {
        "channels": channels,
        "patch_norms": has_norms,
        "width": width,
        "depth": len(layers),
        "attention_width": None if inner == width else inner,
        "qkv_bias": False,
        "mlp_ratio": hidden / width,
        "class_token": bool(prefix),
        "positions": "learned" if "pos_embedding" in shapes else "sincos-2d",
        "norm_after_pooling": last != "transformer.norm" and pooling.value == "mean",
        "classes": shape_of(shapes, f"{head}.weight", 2)[0] if head else 0,
    }
    config = config_of(settings | {decision.setting: decision.value for decision in decisions})
    preprocess = vit_pytorch(config.image_size)
    reason = "vit-pytorch's example; the library itself says nothing, the training script decides"
    plan = _plan(shapes, config, layers, head, last)
    empty = {} if prefix else {"cls_token": "it has no rows, because the patches are pooled"}
    said = (*decisions, *about_classes(config), *about_images(preprocess, reason, guessed=True))
    return Reading(config, plan, preprocess, said, unused(found, plan, empty))


def _patch_size(found: Found, pixels: int) -> Decision:
    if "patch_size" in found.asked:
        height, width = (int(side) for side in found.asked["patch_size"])
        if height < 1 or width < 1 or pixels % (height * width):
            raise CheckpointError(f"a patch has {pixels} numbers, not those of {height} x {width} pixels; say another")
        return Decision("patch_size", [height, width], "as asked")
    channels = int(found.asked.get("channels", ViTConfig.channels))
    side = math.isqrt(pixels // max(channels, 1))
    if channels < 1 or side < 1 or side * side * channels != pixels:
        raise CheckpointError(
            f"a patch has {pixels} numbers, which are no square of {channels} channels; "
            "say patch_size=(height, width) in pixels, or channels=N"
        )
    return Decision(
        "patch_size", [side, side], f"{pixels} numbers, taken as {side} x {side} pixels of {channels} channels"
    )


def _pooling(found: Found, prefix: int) -> Decision:
    """The class token where there is one; files of early versions have it even if the mean is read."""
    if not prefix:
        return asked_or("pooling", found.asked, "mean", "there is no class token")
    if found.asked.get("pooling", "class") != "class":
        raise CheckpointError(
            "vit-pytorch's mean counts the class token too, which vitreous has no word for; open it with vit-pytorch"
        )
    if len(found.shapes["cls_token"]) == 2:
        return asked_or("pooling", found.asked, "class", "there is a class token, which pool='mean' has not")
    reason = "vit-pytorch's default; a file of this version looks the same with pool='mean'"
    return asked_or("pooling", found.asked, "class", reason, guessed=True)


def _image_size(found: Found, patch_size: tuple[int, int], prefix: int) -> Decision:
    table = found.shapes.get("pos_embedding")
    if table is not None:
        rows = shape_of(found.shapes, "pos_embedding", 2 if len(table) == 2 else 3)[-2]
        return square_grid(rows - prefix, found.asked, patch_size)[0]
    size = [patch_size[0] * 16, patch_size[1] * 16]
    reason = "SimpleViT's positions are computed, and fit every size; 16 x 16 patches are taken: say image_size"
    return asked_or("image_size", found.asked, size, reason, guessed=True)


def _heads(found: Found, inner: int) -> Decision:
    if "heads" not in found.asked and inner % _HEAD_DIM:
        raise CheckpointError(
            f"the file does not tell how many heads share {inner} numbers, and it is no multiple of 64; say heads=N"
        )
    reason = "vit-pytorch's default dim_head is 64; say heads=N to settle it"
    return asked_or("heads", found.asked, inner // _HEAD_DIM, reason, guessed=True)


def _head(shapes: Shapes) -> tuple[str, str]:
    """Where the last dense layer and the last LayerNorm lie; no layer where there is no head.

    Raises:
        CheckpointError: if there are two last LayerNorms, or none.
    """
    for head in ("mlp_head", "linear_head"):
        if f"{head}.1.weight" in shapes:
            if "transformer.norm.weight" in shapes:
                raise CheckpointError(
                    "there is a LayerNorm after the blocks and one before the head, vitreous has one; "
                    "open it with vit-pytorch"
                )
            return f"{head}.1", f"{head}.0"
        if f"{head}.weight" in shapes:
            return head, "transformer.norm"
    return "", "transformer.norm"


def _in_layers(shapes: Shapes) -> list[dict[str, str]]:
    """For each block our names in it, without its number, and the file's."""
    found: list[dict[str, str]] = [{} for _ in range(layers_of(shapes, _LAYERS))]
    for name in shapes:
        if name.startswith(_LAYERS):
            layer, _, rest = name.removeprefix(_LAYERS).partition(".")
            if not layer.isdecimal():
                continue
            for theirs, ours in _IN_LAYER:
                if match := re.fullmatch(theirs, rest):
                    found[int(layer)][match.expand(ours)] = name
    return found


def _plan(shapes: Shapes, config: ViTConfig, layers: list[dict[str, str]], head: str, last: str) -> Plan:
    plan = _embedding(shapes, config)
    for layer, names in enumerate(layers):
        plan |= {f"blocks.{layer}.{ours}": same(name) for ours, name in names.items()}
        if "attn.proj.weight" not in names:  # one head as wide as the tokens has no layer after it
            width = config.width
            plan[f"blocks.{layer}.attn.proj.weight"] = Part((), lambda width=width: torch.eye(width))
        if "attn.proj.bias" not in names:
            plan[f"blocks.{layer}.attn.proj.bias"] = zeros(config.width)
    ours = "fc_norm" if config.has_norm_after_pooling else "norm"
    plan |= {f"{ours}.{kind}": same(f"{last}.{kind}") for kind in ("weight", "bias")}
    if head:
        plan |= {f"head.{kind}": same(f"{head}.{kind}") for kind in ("weight", "bias")}
    return plan


def _embedding(shapes: Shapes, config: ViTConfig) -> Plan:
    width, patch = config.width, (*config.patch_size, config.channels)

    def as_kernel(weight: Tensor) -> Tensor:
        return weight.reshape(width, *patch).permute(0, 3, 1, 2)

    def channels_first(vector: Tensor) -> Tensor:
        return vector.reshape(patch).permute(2, 0, 1).flatten()

    dense = "to_patch_embedding.2" if config.patch_norms else "to_patch_embedding.1"
    plan = {
        "patch_embed.proj.weight": Part((f"{dense}.weight",), as_kernel),
        "patch_embed.proj.bias": same(f"{dense}.bias"),
    }
    for kind in ("weight", "bias"):
        if config.patch_norms:
            plan[f"patch_embed.pixel_norm.{kind}"] = Part((f"to_patch_embedding.1.{kind}",), channels_first)
            plan[f"patch_embed.norm.{kind}"] = same(f"to_patch_embedding.3.{kind}")
    if config.class_token:
        plan["cls_token"] = reshaped("cls_token", 1, 1, width)
    if config.positions == "learned":
        plan["pos_embed"] = reshaped("pos_embedding", 1, config.tokens, width)
    else:
        grid, prefix = (config.rows, config.columns), config.prefix
        plan["pos_embed"] = Part((), lambda: F.pad(sincos_positions(*grid, width)[None], (0, 0, prefix, 0)))
    return plan
