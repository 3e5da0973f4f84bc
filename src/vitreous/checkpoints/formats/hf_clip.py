"""The image encoders of transformers' CLIP and SigLIP, alone or out of a model of images and texts."""

from __future__ import annotations

from functools import partial

from vitreous.checkpoints.containers.contract import Shapes
from vitreous.checkpoints.dialects.hf_blocks import Blocks, dense, dense_without_bias, read_blocks
from vitreous.checkpoints.dialects.hf_config import CLASSIFIER, Described, describe, model_type_of, refuse
from vitreous.checkpoints.dialects.hf_encoder import (
    both,
    classes_of,
    contradiction,
    encoder_settings,
    last_norm,
    make_reading,
    name_before,
)
from vitreous.checkpoints.loaded import Decision
from vitreous.checkpoints.reading import Found, Part, Plan, Reading, asked_or, reshaped, same, shape_of
from vitreous.model.config import ViTConfig

TITLE = "transformers CLIP or SigLIP"

_PATCHES = "embeddings.patch_embedding.weight"
_CLASS = "embeddings.class_embedding"
_TABLE = "embeddings.position_embedding.weight"
_PATCH_BIAS = "embeddings.patch_embedding.bias"
_CLIP = ("clip", "clip_vision_model")
_SIGLIP = ("siglip", "siglip_vision_model")
_NAFLEX = ("siglip2", "siglip2_vision_model")

_PROJECTION = "visual_projection"
_LEFT_OUT = {
    "text_model.": "the text encoder",
    "text_projection.": "the text encoder's head",
    "logit_": "scales similarities of images and texts",
    "embeddings.position_ids": "the numbers 0, 1, 2 and so on",
}


def recognises(found: Found) -> bool:
    """Whether config.json says so; without one, whether the names are those of CLIP's image encoder."""
    if not any(name.endswith(_PATCHES) for name in found.shapes):
        return False
    model_type = model_type_of(found)
    if model_type:
        return model_type in (*_CLIP, *_SIGLIP, *_NAFLEX)
    return any("layer_norm1" in name for name in found.shapes)


def read(found: Found) -> Reading:
    """The image encoder; its head, if it has one, gives CLIP's embedding of the image or SigLIP's classes.

    Raises:
        CheckpointError: if it is SigLIP 2 with patches of any shape (NaFlex), or a CLIP classifier, or tensors and
            config.json do not fit each other.
    """
    shapes = found.shapes
    before = name_before(shapes, _PATCHES)
    if model_type_of(found) in _NAFLEX or len(shapes[before + _PATCHES]) == 2:
        raise refuse("SigLIP 2 with NaFlex", "its images are lists of patches of any proportions, not squares")
    is_clip = before + _CLASS in shapes
    if is_clip and f"{CLASSIFIER}.weight" in shapes:
        raise refuse("CLIPForImageClassification", "its classifier averages tokens that no norm has seen")
    described = describe(found, "clip_vision_model" if is_clip else "siglip_vision_model")
    if is_clip != (described.model_type in _CLIP):
        raise contradiction(f"is of {described.model_type!r}", before + _CLASS, is_there=is_clip)
    blocks = read_blocks(shapes, before)
    patches = shape_of(shapes, before + _TABLE, 2)[0] - is_clip
    told, decisions = encoder_settings(described, blocks, before + _PATCHES, patches)
    head = _PROJECTION if is_clip else CLASSIFIER
    has_head = f"{head}.weight" in shapes
    told |= {
        "class_token": is_clip,
        "norm_before_blocks": is_clip,
        "patch_bias": before + _PATCH_BIAS in shapes,
        "classes": classes_of(shapes, head),
    }
    decisions.append(_pooling(described, before, is_clip=is_clip, has_head=has_head))
    if is_clip and has_head:
        reason = "visual_projection: the outputs are an embedding, to be compared with texts' embeddings, not classes"
        decisions.append(Decision("classes", told["classes"], reason))
    plan = partial(_plan, shapes, before, blocks, head)
    reasons = both(before, _LEFT_OUT)
    if told["classes"] and not is_clip:
        reasons[f"{before}head."] = "an attention pooling, which the classifier does not read"
    return make_reading(described, told, decisions, plan, reasons)


def _pooling(described: Described, before: str, *, is_clip: bool, has_head: bool) -> Decision:
    asked = described.found.asked
    if is_clip:
        return asked_or("pooling", asked, "class", "CLIP's output is the class token")
    if has_head:
        return asked_or("pooling", asked, "mean", "as SiglipForImageClassification has it")
    if f"{before}head.probe" in described.found.shapes:
        return asked_or("pooling", asked, "map", "there is an attention pooling, head.probe")
    reason = "there is no pooling and no class token; the mean of patches is usual"
    return asked_or("pooling", asked, "mean", reason, guessed=True)


def _plan(shapes: Shapes, before: str, blocks: Blocks, head: str, config: ViTConfig) -> Plan:
    plan = dict(blocks.plan)
    tokens, width = shape_of(shapes, before + _TABLE, 2)
    plan["pos_embed"] = reshaped(before + _TABLE, 1, tokens, width)
    plan["patch_embed.proj.weight"] = same(before + _PATCHES)
    if config.patch_bias:
        plan["patch_embed.proj.bias"] = same(before + _PATCH_BIAS)
    if config.class_token:
        plan["cls_token"] = reshaped(before + _CLASS, 1, 1, shape_of(shapes, before + _CLASS, 1)[0])
    if config.norm_before_blocks:
        plan |= dense(f"{before}pre_layrnorm", "norm_pre")  # the missing letters are transformers' own
    plan |= last_norm(config, f"{before}post_layernorm")
    if config.pooling == "map":
        plan |= _attention_pooling(shapes, f"{before}head.")
    if config.classes:
        plan |= dense_without_bias(shapes, head, "head") if head == _PROJECTION else dense(head, "head")
    return plan


def _attention_pooling(shapes: Shapes, theirs: str) -> Plan:
    """Torch's `MultiheadAttention` has queries, keys and values in one tensor; ours has the first apart."""
    plan: Plan = {"attn_pool.latent": same(f"{theirs}probe")}
    for kind, axes in (("weight", 2), ("bias", 1)):
        name = f"{theirs}attention.in_proj_{kind}"
        width = shape_of(shapes, name, axes)[0] // 3
        plan |= {f"attn_pool.q.{kind}": _rows(name, 0, width), f"attn_pool.kv.{kind}": _rows(name, width, 3 * width)}
    named = {"layernorm": "norm", "attention.out_proj": "proj", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
    for layer, ours in named.items():
        plan |= dense(theirs + layer, f"attn_pool.{ours}")
    return plan


def _rows(name: str, first: int, end: int) -> Part:
    """A copy of some rows, so that the others' memory is given back."""
    return Part((name,), lambda tensor: tensor[first:end].clone())
