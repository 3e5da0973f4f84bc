"""timm's names for a Vision Transformer's parts: ours, and with small changes those of Meta's and Microsoft's files.

A format renames what its project calls otherwise, settles what the tensors do not tell, and leaves the rest to
`reading_of`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vitreous.checkpoints.containers.contract import Shapes, shown_name
from vitreous.checkpoints.dialects.settled import about_classes, config_of
from vitreous.checkpoints.loaded import Decision
from vitreous.checkpoints.reading import (
    Found,
    Part,
    Plan,
    Reading,
    asked_or,
    layers_of,
    same,
    shape_of,
    square_grid,
    unused,
)
from vitreous.data.preprocess import Preprocess
from vitreous.errors import CheckpointError
from vitreous.model.config import ViTConfig

_BLOCK = (
    r"blocks\.\d+\.(?:(?:norm1|norm2|attn\.(?:qkv|proj|q_norm|k_norm)|mlp\.fc[12])\.(?:weight|bias)"
    r"|ls[12]\.gamma|attn\.relative_position_bias_table)"
)
_OURS = re.compile(
    r"cls_token|dist_token|reg_token|pos_embed|(?:norm_pre|norm|fc_norm|pre_logits|head|head_dist)\.(?:weight|bias)"
    rf"|patch_embed\.proj\.(?:weight|bias)|patch_embed\.backbone\..+|attn_pool\..+|{_BLOCK}"
)
_HEAD_DIMS = {1152: 72, 1280: 80, 1408: 88, 1664: 104}
"""Numbers a head by width, where it is not 64: So400m, H/14, g/14 and G/14."""

_USUAL_HEAD_DIM = 64
_STEM_CONV = {True: "patch_embed.backbone.stem.conv.weight", False: "patch_embed.backbone.conv.weight"}


@dataclass(frozen=True)
class Named:
    """A file's tensors under timm's names.

    Attributes:
        shapes: by timm's name, as its part makes it.
        parts: how each is made of the file's.
    """

    shapes: Shapes
    parts: Plan

    @classmethod
    def of(cls, shapes: Shapes, rename: Callable[[str], str] | None = None) -> Named:
        """All tensors, each under what `rename` makes of its name; those that have no place in timm are left out."""
        names = {(rename(name) if rename else name): name for name in shapes}
        ours = {timm: name for timm, name in names.items() if _OURS.fullmatch(timm)}
        return cls({timm: shapes[ours[timm]] for timm in ours}, {timm: same(ours[timm]) for timm in ours})

    def but(self, shapes: Shapes, parts: Plan) -> Named:
        """The same, with these tensors in place of those of their names."""
        return Named({**self.shapes, **shapes}, {**self.parts, **parts})


def has_timm_names(shapes: Shapes) -> bool:
    """Whether there is a patch embedding and a first block of timm's."""
    return "patch_embed.proj.weight" in shapes and "blocks.0.norm1.weight" in shapes


def told_by(named: Named) -> dict[str, Any]:
    """All settings that can be read off names and shapes.

    Raises:
        CheckpointError: if a tensor that every Vision Transformer has is missing, or of another form.
    """
    shapes = named.shapes
    stem, stem_width, stride = _stem(shapes)
    width, channels, *kernel = shape_of(shapes, "patch_embed.proj.weight", 4)
    hidden = shape_of(shapes, "blocks.0.mlp.fc2.weight", 2)[1]
    both = shape_of(shapes, "blocks.0.mlp.fc1.weight", 2)[0]
    if both not in (hidden, 2 * hidden):
        raise CheckpointError(f"blocks.0.mlp goes from {width} to {both} and from {hidden} back; copy the file again")
    inputs = shape_of(shapes, "blocks.0.attn.proj.weight", 2)[1]
    depth = layers_of(shapes, "blocks.")
    first = _block_names(shapes)
    return {
        "stem": stem,
        "stem_width": stem_width,
        "channels": shape_of(shapes, _STEM_CONV[bool(stem)], 4)[1] if stem is not None else channels,
        "patch_size": (kernel[0] * stride, kernel[1] * stride),
        "patch_bias": "patch_embed.proj.bias" in shapes,
        "width": width,
        "depth": depth,
        "attention_width": None if inputs == width else inputs,
        "mlp_ratio": hidden / width,
        "gated_mlp": both == 2 * hidden,
        "class_token": "cls_token" in shapes,
        "distillation": "dist_token" in shapes,
        "registers": shape_of(shapes, "reg_token", 3)[1] if "reg_token" in shapes else 0,
        "qkv_bias": "attn.qkv.bias" in first,
        "qk_norm": "attn.q_norm.weight" in first,
        "layer_scale": 1e-5 if "ls1.gamma" in first else None,
        "norm_before_blocks": "norm_pre.weight" in shapes,
        "norm_after_pooling": "fc_norm.weight" in shapes,
        "hidden_head": "pre_logits.weight" in shapes,
        "classes": shape_of(shapes, "head.weight", 2)[0] if "head.weight" in shapes else 0,
    }


def heads_of(found: Found, width: int, source: str = "") -> Decision:
    """How many heads share the width.

    Args:
        found: what the user asked for wins.
        width: of a token, or of all heads' queries where that is another.
        source: a project whose models all keep to the table; empty makes it a guess.

    Raises:
        CheckpointError: if nothing tells and the user did not say.
    """
    if "heads" in found.asked:
        return Decision("heads", found.asked["heads"], "as asked")
    head_dim = _HEAD_DIMS.get(width, _USUAL_HEAD_DIM)
    if width % head_dim:
        raise CheckpointError(
            f"the file does not tell how many heads share a width of {width}, and it is no multiple of 64; say heads=N"
        )
    if source:
        return Decision("heads", width // head_dim, f"{source}: {head_dim} numbers a head at width {width}")
    reason = f"{head_dim} numbers a head is usual at width {width}; say heads=N to settle it"
    return Decision("heads", width // head_dim, reason, guessed=True)


def pooling_of(found: Found, named: Named, source: str = "") -> Decision:
    """What the head reads: told by the tensors, or else the class token, for which `source` vouches."""
    if "attn_pool.latent" in named.shapes:
        return asked_or("pooling", found.asked, "map", "there is an attn_pool")
    if "cls_token" not in named.shapes:
        return asked_or("pooling", found.asked, "mean", "there is no class token")
    if "fc_norm.weight" in named.shapes:
        return asked_or("pooling", found.asked, "mean", "the last LayerNorm is fc_norm, which comes after a mean")
    reason = source or "usual with a class token; say pooling='mean' if the head reads the patches"
    return asked_or("pooling", found.asked, "class", reason, guessed=not source)


def grid_of(found: Found, named: Named, rows_before: Sequence[int]) -> tuple[Decision, int]:
    """The image size of the position table, and how many of its rows come before the patches.

    Args:
        found: an image size that the user asked for wins.
        named: has a pos_embed (1, rows, width).
        rows_before: numbers of such rows that may be, the likeliest first.

    Raises:
        CheckpointError: if the patches make no square, and the user did not say the image size.
    """
    told = told_by(named)
    rows = shape_of(named.shapes, "pos_embed", 3)[1]
    patch_height, patch_width = told["patch_size"]
    if "image_size" in found.asked:
        height, width = found.asked["image_size"]
        patches = (int(height) // patch_height) * (int(width) // patch_width)
        before = next((count for count in rows_before if rows - count == patches), rows_before[0])
    else:
        before = next((count for count in rows_before if _is_square(rows - count)), rows_before[0])
    decision, _ = square_grid(rows - before, found.asked, (patch_height, patch_width))
    return decision, before


def positions_with_prefix(named: Named, before: int, prefix: int) -> tuple[Named, tuple[Decision, ...]]:
    """The table with a row for every token before the patches; rows that the file does not have are zeros."""
    if before == prefix:
        return named, ()
    _, rows, width = shape_of(named.shapes, "pos_embed", 3)
    made = named.parts["pos_embed"]

    def fill(*sources: Tensor) -> Tensor:
        table = made.make(*sources)
        zeros = table.new_zeros(1, prefix - before, width)
        return torch.cat([table[:, :before], zeros, table[:, before:]], dim=1)

    what = "patches only" if not before else f"the class token and patches only, not {prefix - before} other tokens"
    reason = f"the table has {what}; adding 0 is exact"
    filled = named.but({"pos_embed": (1, rows + prefix - before, width)}, {"pos_embed": Part(made.sources, fill)})
    return filled, (Decision("positions of the prefix", 0, reason),)


def renaming(block: re.Pattern[str], in_block: Mapping[str, str], around: Mapping[str, str]) -> Callable[[str], str]:
    """What turns a project's names into timm's; those that have no place there become empty.

    Args:
        block: of a name in a block: its first group is the layer, its second the rest.
        in_block: beginnings of such rests, and timm's.
        around: whole names of all other tensors, and timm's.
    """

    def rename(name: str) -> str:
        if match := block.fullmatch(name):
            for theirs, timms in in_block.items():
                if match[2].startswith(theirs):
                    return f"blocks.{match[1]}.{timms}{match[2].removeprefix(theirs)}"
        return around.get(name, "")

    return rename


def without_keys(queries: Tensor, values: Tensor) -> Tensor:
    """One bias of two, with zeros for the keys between them: each adds the same to all scores of a query, exactly 0."""
    return torch.cat([queries, torch.zeros_like(queries), values])


def with_layer_scale(name: str) -> str:
    """The name that timm has for a factor that Meta's and Microsoft's code calls gamma_1 and gamma_2."""
    return re.sub(r"^(blocks\.\d+)\.gamma_([12])$", r"\1.ls\2.gamma", name)


def reading_of(
    found: Found,
    named: Named,
    decisions: Sequence[Decision],
    preprocess: Preprocess,
    *,
    reasons: Mapping[str, str] | None = None,
    class_names: tuple[str, ...] = (),
) -> Reading:
    """The architecture and the plan, all of the file's names accounted for.

    Args:
        found: the checkpoint.
        named: its tensors under timm's names; the position table has a row for every token.
        decisions: settings of `ViTConfig` among them win over what the tensors tell.
        preprocess: what an image goes through.
        reasons: beginnings of names that may be left out, and why; see `unused`.
        class_names: one for each class.

    Raises:
        CheckpointError: if they do not make a model, or a tensor has no place in it.
    """
    values = told_by(named)
    values["positions"] = "learned" if "pos_embed" in named.shapes else "none"
    fields = ViTConfig.__dataclass_fields__
    settled = {decision.setting: decision.value for decision in decisions if decision.setting in fields}
    config = config_of(values | settled)
    told = (*decisions, *about_classes(config, decisions))
    if "layer_scale" not in settled and config.layer_scale is not None:
        told += (Decision("layer_scale", config.layer_scale, "a usual first value; the weights replace it"),)
    return Reading(config, named.parts, preprocess, told, unused(found, named.parts, reasons or {}), class_names)


def _stem(shapes: Shapes) -> tuple[tuple[int, ...] | None, int, int]:
    """Units in each stage of the ResNet before the patches, the channels of its root, and its stride."""
    if not any(name.startswith("patch_embed.backbone.") for name in shapes):
        return None, ViTConfig.stem_width, 1
    if _STEM_CONV[False] in shapes:
        return (), shape_of(shapes, _STEM_CONV[False], 4)[0], 4
    width = shape_of(shapes, _STEM_CONV[True], 4)[0]
    stages = layers_of(shapes, "patch_embed.backbone.stages.")
    units = tuple(layers_of(shapes, f"patch_embed.backbone.stages.{stage}.blocks.") for stage in range(stages))
    return units, width, 4 * 2 ** (stages - 1)


def _block_names(shapes: Shapes) -> set[str]:
    """What every block has, without its number; refused if one has more or less than the first."""
    blocks: dict[str, set[str]] = {}
    for name in shapes:
        if name.startswith("blocks."):
            _, layer, rest = name.split(".", 2)
            blocks.setdefault(layer, set()).add(rest)
    for names in blocks.values():
        if different := sorted(blocks["0"] ^ names):
            listed = ", ".join(shown_name(name) for name in different[:3])
            raise CheckpointError(
                f"blocks are not all alike: some have {listed}; vitreous has one kind of block a model"
            )
    return blocks["0"]


def _is_square(count: int) -> bool:
    return count > 0 and math.isqrt(count) ** 2 == count
