"""What all of transformers' encoders share: their settings, their last norm, their reading once all is settled."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from vitreous.checkpoints.containers.contract import Shapes, shown_name
from vitreous.checkpoints.dialects.hf_blocks import Blocks, dense
from vitreous.checkpoints.dialects.hf_config import (
    ACTIVATIONS,
    CLASSIFIER,
    Described,
    Size,
    class_names_of,
    number,
    pair,
    preprocess_of,
    quoted,
    refuse,
    whole_number,
)
from vitreous.checkpoints.dialects.settled import ITS_OWN_CONFIG, about_classes, config_of
from vitreous.checkpoints.loaded import Decision
from vitreous.checkpoints.reading import Plan, Reading, asked_or, shape_of, square_grid, unused
from vitreous.errors import CheckpointError
from vitreous.model.config import ViTConfig

PATCHES = "embeddings.patch_embeddings.projection.weight"
"""How the name of most patch embeddings ends; what stands before it is the model's name, or nothing."""

_SIDE = 224  # pixels; `image_size` of all these config classes


def encoder_settings(
    described: Described,
    blocks: Blocks,
    patch: str,
    patches: int | None,
    *,
    rule: str = "transformers",
    scores: str | None = None,
) -> tuple[dict[str, Any], list[Decision]]:
    """What all encoders share, as fields of `ViTConfig`, and the decisions among them.

    Args:
        described: the checkpoint.
        blocks: what its blocks tell.
        patch: name of the patch embedding's weight.
        patches: that the position table is made for; None without one.
        rule: that moves this table to another grid, a `Resampling`.
        scores: name of a table with a column for each head, if positions are scores; it has one rule only.

    Raises:
        CheckpointError: if config.json and the tensors contradict each other, or nothing says a setting.
    """
    width, channels, *kernel = shape_of(described.found.shapes, patch, 4)
    patch_size = (kernel[0], kernel[1])
    if patches is not None and patches < 1:
        raise CheckpointError("the position table has no row for a patch; copy or download the file again")
    sizes = {"hidden_size": width, "num_hidden_layers": blocks.depth, "num_channels": channels}
    check_said(described, sizes | {"intermediate_size": blocks.mlp_width, "patch_size": kernel})
    heads = _heads(described, blocks, width) if scores is None else _columns(described, scores)
    decisions = [heads, _eps(described), *_activation(described, blocks)]
    decisions += _image_size(described, patch_size, patches)
    if patches is not None and scores is None:
        reason = "what transformers' interpolate_pos_encoding does"
        decisions.append(asked_or("resampling", described.found.asked, rule, reason))
    if blocks.has_layer_scale:
        decisions.append(_layer_scale(described))
    told = {
        "patch_size": patch_size,
        "channels": channels,
        "width": width,
        "depth": blocks.depth,
        "attention_width": None if blocks.attention_width == width else blocks.attention_width,
        "qkv_bias": blocks.qkv_bias,
        "mlp_ratio": blocks.mlp_width / width,
        "gated_mlp": blocks.gated_mlp,
    }
    return told, decisions


def check_said(described: Described, told: Mapping[str, Any]) -> None:
    """Nothing, if config.json says what the tensors tell: else it is another model's, and its heads may be, too.

    Args:
        described: the checkpoint.
        told: what the tensors tell, by transformers' names; those that config.json leaves out are not compared.

    Raises:
        CheckpointError: if they contradict each other.
    """
    for name, value in told.items():
        said = described.settings.get(name)
        if name == "patch_size" and said is not None:
            said = pair(name, said)
        if said is not None and said != value:
            raise CheckpointError(f"config.json has {name} {quoted(said)}, the weights {value}; {ITS_OWN_CONFIG}")


def contradiction(said: str, name: str, *, is_there: bool) -> CheckpointError:
    """The error for what config.json says, where the tensor of that name says otherwise."""
    return CheckpointError(f"config.json {said}, but there is {'' if is_there else 'no '}{name}; {ITS_OWN_CONFIG}")


def make_reading(
    described: Described,
    told: Mapping[str, Any],
    decisions: Collection[Decision],
    plan: Callable[[ViTConfig], Plan],
    unread: Mapping[str, str],
) -> Reading:
    """The reading, once all is settled.

    Args:
        described: the checkpoint.
        told: fields of `ViTConfig` that the tensors tell.
        decisions: those that they do not; what was asked for comes before both.
        plan: the tensors, given the architecture.
        unread: beginnings of names that are left out, each with its reason.

    Raises:
        CheckpointError: if no ViT has these settings, or a tensor is left over.
    """
    found = described.found
    decided = {decision.setting: decision.value for decision in decisions}
    settings = {**told, **decided, **found.asked}
    if settings.get("pooling") == "mean" and "norm_after_pooling" not in settings:
        settings["norm_after_pooling"] = False  # the file's norm comes before the pooling
    config = config_of(settings)
    made = plan(config)
    preprocess, more = preprocess_of(described, config.image_size, config.patch_size)
    ignored = unused(found, made, unread)
    head = made["head.weight"].sources if "head.weight" in made else ()
    names = class_names_of(found.described, config.classes) if head and head[0].endswith(f"{CLASSIFIER}.weight") else ()
    said = (*decisions, *about_classes(config, decisions), *more)
    return Reading(config, made, preprocess, said, ignored, names)


def name_before(shapes: Shapes, ending: str) -> str:
    """What stands before the first name with this ending: "vit.", or nothing.

    Raises:
        CheckpointError: if it is no name of a module.
    """
    before = next(name.removesuffix(ending) for name in shapes if name.endswith(ending))
    if not re.fullmatch(r"([A-Za-z0-9_]{1,60}\.){0,10}", before):
        raise CheckpointError(f"{shown_name(before)} is no name of a model; expected such as 'vit.' before {ending}")
    return before


def both(before: str, reasons: Mapping[str, str]) -> dict[str, str]:
    """Beginnings of names that are left out, as they are and behind the model's name."""
    return {start + name: reason for start in (before, "") for name, reason in reasons.items()}


def classes_of(shapes: Shapes, head: str) -> int:
    """Outputs of the head of this name; 0 without one."""
    weight = shapes.get(f"{head}.weight", ())
    return weight[0] if len(weight) == 2 else 0


def last_norm(config: ViTConfig, theirs: str) -> Plan:
    """The norm after the blocks, where the architecture has it."""
    return dense(theirs, "fc_norm" if config.has_norm_after_pooling else "norm")


def _heads(described: Described, blocks: Blocks, width: int) -> Decision:
    head_dim = described.defaults.head_dims.get(width, 64)
    usual, left_over = divmod(blocks.attention_width, head_dim)
    settled = described.settle("heads", "num_attention_heads", described.defaults.heads, whole_number, usual)
    if settled.guessed and (left_over or not usual):
        raise CheckpointError(
            f"nothing says how many heads a width of {blocks.attention_width} is shared by; "
            f"say heads=N, or {ITS_OWN_CONFIG}"
        )
    if settled.guessed:
        return replace(settled, reason=f"{head_dim} numbers a head is {settled.reason}")
    return settled


def _columns(described: Described, scores: str) -> Decision:
    columns = shape_of(described.found.shapes, scores, 2)[1]
    check_said(described, {"num_attention_heads": columns})
    return asked_or("heads", described.found.asked, columns, f"columns of {scores.rpartition('.')[2]}")


def _eps(described: Described) -> Decision:
    return described.settle("norm_eps", "layer_norm_eps", described.defaults.eps, number)


def _activation(described: Described, blocks: Blocks) -> list[Decision]:
    """None for a gated MLP, which has silu; transformers' DINOv3 could have another there."""
    if not blocks.gated_mlp:
        default = ACTIVATIONS[described.defaults.activation]
        return [described.settle("activation", "hidden_act", default, _ours)]
    word = described.settings.get("hidden_act") or described.defaults.activation
    if described.model_type == "dinov3_vit" and described.known and word not in ("silu", "swish"):
        raise refuse(f"a gated MLP with hidden_act {quoted(word)}", "vitreous has silu there")
    return []


def _ours(theirs: str, value: Any) -> str:
    ours = ACTIVATIONS.get(value) if isinstance(value, str) else None
    if ours is None:
        raise refuse(f"{theirs} {quoted(value)}", f"vitreous has {', '.join(ACTIVATIONS)}")
    return ours


def _image_size(described: Described, patch_size: Size, patches: int | None) -> list[Decision]:
    """The size that positions were made for; pixels that fill no patch are left out, as transformers does."""
    asked, silent = "image_size" in described.found.asked, described.settings.get("image_size") is None
    usual = described.known and (patches is None or _fits((_SIDE, _SIDE), patch_size, patches))
    if patches is not None and (asked or (silent and not usual)):
        return [square_grid(patches, described.found.asked, patch_size)[0]]
    settled = described.settle("image_size", "image_size", [_SIDE, _SIDE], pair)
    if asked:
        return [settled]
    height, width = settled.value
    if patches is not None and not _fits((height, width), patch_size, patches):
        raise CheckpointError(
            f"config.json's image_size {height} x {width} has other patches than the position table's {patches}"
            f"; {ITS_OWN_CONFIG}"
        )
    whole = [max(height // patch_size[0], 1) * patch_size[0], max(width // patch_size[1], 1) * patch_size[1]]
    if whole == [height, width]:
        return [settled]
    reason = (
        f"{settled.reason} is {height} x {width}, no multiple of the patch; transformers leaves out the last pixels, "
        "here the picture is resized to what is left"
    )
    return [replace(settled, value=whole, reason=reason, guessed=True)]


def _fits(size: Size, patch_size: Size, patches: int) -> bool:
    return (size[0] // patch_size[0]) * (size[1] // patch_size[1]) == patches


def _layer_scale(described: Described) -> Decision:
    """The first value, which only a new model would take from here."""
    if "layer_scale" in described.found.asked:
        return Decision("layer_scale", described.found.asked["layer_scale"], "as asked")
    for name in ("layerscale_value", "layer_scale_init_value"):
        if (value := described.settings.get(name)) is not None:
            return Decision("layer_scale", number(name, value), f"{name} in config.json; the weights replace it")
    return Decision("layer_scale", 1.0, "a first value, which the weights replace")
