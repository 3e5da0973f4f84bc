"""transformers' plain Vision Transformers: ViT, DeiT with and without its teacher, MAE's encoder, MSN and I-JEPA.

Files and models in memory have different names for the same tensors; both are read, the files' are written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vitreous.checkpoints.containers.contract import Shapes
from vitreous.checkpoints.dialects.hf_blocks import Blocks, dense, read_blocks
from vitreous.checkpoints.dialects.hf_config import ACTIVATIONS, CLASSIFIER, Described, describe, model_type_of
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
from vitreous.checkpoints.hf_preprocess import to_hf
from vitreous.checkpoints.loaded import Decision
from vitreous.checkpoints.reading import Found, Plan, Reading, asked_or, same, shape_of
from vitreous.data.preprocess import Preprocess
from vitreous.errors import ConfigError
from vitreous.model.config import ViTConfig

TITLE = "transformers ViT"

_TYPES = ("vit", "deit", "vit_mae", "vit_msn", "ijepa")

_LEFT_OUT = {
    "pooler.": "the pooler, a layer for pre-training, which no classifier reads",
    "embeddings.mask_token": STAND_IN,
    "decoder.": "the decoder of the pre-training",
}

_TEACHER = {"head": "cls_classifier", "head_dist": "distillation_classifier"}
_STUDENT = {"head": CLASSIFIER}

_BLOCK = {
    "norm1": "layernorm_before", "attn.proj": "attention.output.dense", "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense",
}  # fmt: skip
_AROUND = {
    "cls_token": "embeddings.cls_token", "dist_token": "embeddings.distillation_token",
    "pos_embed": "embeddings.position_embeddings", "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}  # fmt: skip


def recognises(found: Found) -> bool:
    """Whether config.json says so; without one, whether the names are those of a ViT."""
    if not any(name.endswith(PATCHES) for name in found.shapes):
        return False
    model_type = model_type_of(found)
    return model_type in _TYPES if model_type else any("layernorm_before" in name for name in found.shapes)


def read(found: Found) -> Reading:
    """The encoder, with the classifier if there is one.

    Raises:
        CheckpointError: if tensors and config.json do not fit each other, or say what a ViT cannot be.
    """
    shapes = found.shapes
    before = name_before(shapes, PATCHES)
    described = describe(found, _like(shapes, before))
    blocks = read_blocks(shapes, before)
    heads = _heads(shapes)
    has_class, has_second = (before + _AROUND[token] in shapes for token in ("cls_token", "dist_token"))
    if described.known and has_class == (described.model_type == "ijepa"):
        raise contradiction(f"is of {described.model_type!r}", before + _AROUND["cls_token"], is_there=has_class)
    check_said(described, {"qkv_bias": blocks.qkv_bias})
    patches = shape_of(shapes, before + _AROUND["pos_embed"], 3)[1] - has_class - has_second
    told, decisions = encoder_settings(described, blocks, before + PATCHES, patches)
    classes = classes_of(shapes, heads.get("head", ""))
    told |= {"class_token": has_class, "distillation": heads == _TEACHER, "classes": classes}
    if has_second and heads != _TEACHER:
        reason = "the distillation token has no head of its own here: it is read by other tokens only"
        decisions.append(Decision("registers", 1, reason))
    decisions.append(_pooling(described, has_class=has_class, has_head=bool(heads)))
    plan = partial(_plan, shapes, before, blocks, heads)
    return make_reading(described, told, decisions, plan, both(before, _LEFT_OUT))


def write(
    config: ViTConfig, tensors: Mapping[str, Tensor], preprocess: Preprocess, class_names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """A folder that transformers opens: a ViTForImageClassification, or a ViTModel if there is no head.

    A model with a distillation token becomes a DeiTForImageClassificationWithTeacher.

    Args:
        config: the architecture.
        tensors: by our names; those returned share their memory.
        preprocess: what an image goes through before the model.
        class_names: one for each class, or none.

    Returns:
        The content of config.json, the tensors of model.safetensors, and the content of preprocessor_config.json.

    Raises:
        ConfigError: if transformers' ViT has no word for some setting; all are named.
    """
    differences = hf_differences(config)
    if differences:
        raise ConfigError(
            f"transformers' ViT has no {'; no '.join(differences)}\nwrite a timm folder instead: --to timm"
        )
    model = "deit" if config.distillation else "vit"
    return (
        _written_config(config, tensors, class_names, model),
        _written_tensors(config, tensors, f"{model}." if config.classes else ""),
        to_hf(preprocess)[0],
    )


def hf_differences(config: ViTConfig) -> list[str]:
    """What of an architecture transformers' ViT has no word for; empty when it computes the same logits."""
    found = {
        "ResNet before the patches": config.stem is not None,
        "model without blocks": not config.depth,
        "norms of patches": config.patch_norms,
        "patch embedding without bias": not config.patch_bias,
        "norm of queries and keys": config.qk_norm,
        "gated MLP": config.gated_mlp,
        "layer scale": config.layer_scale is not None,
        "model without a class token": not config.class_token,
        "registers": config.registers > 0,
        "distillation token without a head": config.distillation and not config.classes,
        f"{config.positions} positions": config.positions not in ("learned", "sincos-2d"),
        "positions before every layer": config.positions_at != "stem",
        "norm before the blocks": config.norm_before_blocks,
        "norm after pooling": config.has_norm_after_pooling,
        f"{config.pooling} pooling": config.pooling != "class",
        "hidden layer in the head": config.hidden_head,
    }
    return [what for what, differs in found.items() if differs]


def _like(shapes: Shapes, before: str) -> str:
    """The model type whose names these are, where config.json does not say."""
    if before + _AROUND["dist_token"] in shapes:
        return "deit"
    if before + _AROUND["cls_token"] not in shapes:
        return "ijepa"
    return "vit_mae" if any(name.startswith("decoder.decoder_") for name in shapes) else "vit"


def _heads(shapes: Shapes) -> dict[str, str]:
    """Names of the heads, by ours: of a classifier, of a pair that learned from a teacher, or none."""
    if f"{_STUDENT['head']}.weight" in shapes:
        return _STUDENT
    return _TEACHER if any(f"{name}.weight" in shapes for name in _TEACHER.values()) else {}


def _pooling(described: Described, *, has_class: bool, has_head: bool) -> Decision:
    asked = described.found.asked
    if not has_class:
        reason = f"there is no class token{'' if has_head else ' and no head; I-JEPA is tested on the mean of patches'}"
        return asked_or("pooling", asked, "mean", reason, guessed=not has_head)
    if described.model_type == "vit_mae":
        reason = "MAE has no head; it is tested on the class token, but fine-tuned on the mean of patches"
        return asked_or("pooling", asked, "class", reason, guessed=True)
    return asked_or("pooling", asked, "class", f"as transformers' {described.model_type} classifiers have it")


def _plan(shapes: Shapes, before: str, blocks: Blocks, heads: Mapping[str, str], config: ViTConfig) -> Plan:
    plan = dict(blocks.plan)
    second = "dist_token" if config.distillation else "reg_token"
    for ours, theirs in (("cls_token", "cls_token"), (second, "dist_token"), ("pos_embed", "pos_embed")):
        if before + _AROUND[theirs] in shapes:
            plan[ours] = same(before + _AROUND[theirs])
    plan |= dense(before + PATCHES.removesuffix(".weight"), "patch_embed.proj")
    plan |= last_norm(config, before + _AROUND["norm"])
    if config.classes:
        for ours, theirs in heads.items():
            plan |= dense(theirs, ours)
    return plan


def _written_config(
    config: ViTConfig, tensors: Mapping[str, Tensor], class_names: Sequence[str], model: str
) -> dict[str, Any]:
    words = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}  # of several words the first
    architecture = "ViTForImageClassification" if config.classes else "ViTModel"
    described: dict[str, Any] = {
        "architectures": ["DeiTForImageClassificationWithTeacher" if config.distillation else architecture],
        "model_type": model,
        "dtype": str(tensors["cls_token"].dtype).removeprefix("torch."),
        "image_size": _one_or_two(config.image_size),
        "patch_size": _one_or_two(config.patch_size),
        "num_channels": config.channels,
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "intermediate_size": config.mlp_width,
        "hidden_act": words[config.activation],
        "layer_norm_eps": config.norm_eps,
        "qkv_bias": config.qkv_bias,
    }
    if config.attention_width is not None:
        described["head_dim"] = config.head_dim
    if config.classes:
        names = list(class_names) or [f"LABEL_{label}" for label in range(config.classes)]
        described["id2label"] = {str(label): name for label, name in enumerate(names)}
        described["label2id"] = {name: label for label, name in enumerate(names)}
    return described


def _written_tensors(config: ViTConfig, tensors: Mapping[str, Tensor], before: str) -> dict[str, Tensor]:
    heads = _TEACHER if config.distillation else _STUDENT
    written: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        owner, _, kind = name.rpartition(".")
        if name.startswith("blocks."):
            _, layer, part = owner.split(".", 2)
            theirs = f"{before}encoder.layer.{layer}."
            if part == "attn.qkv":
                thirds = zip(("query", "key", "value"), torch.chunk(tensor, 3), strict=True)
                written |= {f"{theirs}attention.attention.{word}.{kind}": third for word, third in thirds}
            else:
                written[f"{theirs}{_BLOCK[part]}.{kind}"] = tensor
        elif owner in heads:
            written[f"{heads[owner]}.{kind}"] = tensor
        elif owner:
            written[f"{before}{_AROUND[owner]}.{kind}"] = tensor
        else:
            written[before + _AROUND[name]] = tensor
    return written


def _one_or_two(size: tuple[int, int]) -> int | list[int]:
    return size[0] if size[0] == size[1] else list(size)
