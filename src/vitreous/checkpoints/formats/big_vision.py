"""big_vision's .npz: class token, mean or attention pooling; SigLIP's and LiT's image towers; scanned encoders.

Differs from the older `google` in the numbering of a block's parts, and in a table of positions without a row for the
class token. Older files of big_vision have such a row; they are read with it, which is the same sum.

Source: google-research/big_vision, big_vision/models/vit.py.
"""

from __future__ import annotations

import torch.nn.functional as F

from vitreous.checkpoints.containers.contract import Shapes
from vitreous.checkpoints.dialects import flax
from vitreous.checkpoints.dialects.settled import about_classes, about_images, config_of
from vitreous.checkpoints.formats import google
from vitreous.checkpoints.loaded import Decision
from vitreous.checkpoints.reading import Found, Part, Plan, Reading, same, shape_of, square_grid, unused
from vitreous.data import pipelines
from vitreous.model.config import ViTConfig
from vitreous.model.positions import sincos_positions

TITLE = "Google big_vision"

_TABLES = ("pos_embedding", "Transformer/pos_embedding")  # the second until 2022
_PREPROCESS = (
    "big_vision's image towers are resized so; its ImageNet models cut the centre out of a larger image, "
    "and no file says which it is"
)


def recognises(found: Found) -> bool:
    """Whether a vision model of Google's is in it that is not one of vision_transformer."""
    return flax.prefix_of(found.shapes) is not None and not google.recognises(found)


def read(found: Found) -> Reading:
    """Architecture and plan; see `reading`.

    Raises:
        CheckpointError: if the architecture cannot be, or an array has no place in it.
    """
    prefix = flax.prefix_of(found.shapes) or ""
    shapes = flax.without_prefix(found.shapes, prefix)
    encoder = flax.find_encoder(shapes)
    settings = flax.encoder_settings(shapes, encoder) | flax.head_settings(shapes)
    settings |= {"class_token": "cls" in shapes, "norm_after_pooling": False}
    patch_size = google.patch_pixels(shapes, None)
    rows, table_decisions = _positions(found, shapes, patch_size)
    decisions = [*google.google_decisions(), _pooling(shapes), *table_decisions]
    settings |= {"patch_size": patch_size} | {decision.setting: decision.value for decision in decisions}
    config = config_of(settings)
    plan = flax.encoder_plan(encoder) | _embedding_plan(shapes, config, rows) | flax.head_plan(settings)
    plan = flax.with_prefix(plan | _pooling_plan(shapes), prefix)
    preprocess = pipelines.big_vision(config.image_size)
    decisions += (*about_classes(config), *about_images(preprocess, _PREPROCESS, guessed=True))
    ignored = unused(found, plan, flax.beside_the_model(prefix) | google.headless(prefix, config))
    return Reading(config, plan, preprocess, tuple(decisions), ignored)


def _pooling(shapes: Shapes) -> Decision:
    if _probe(shapes) is not None:
        return Decision("pooling", "map", "there is a probe: attention pooling")
    if "cls" in shapes:
        return Decision("pooling", "class", "there is a class token")
    return Decision("pooling", "mean", "there is no class token and no probe; big_vision then takes the mean")


def _positions(found: Found, shapes: Shapes, patch_size: tuple[int, int]) -> tuple[int, list[Decision]]:
    """How many rows of the table belong to the class token, and what was decided.

    Raises:
        CheckpointError: if the table fits no grid.
    """
    table = _table(shapes)
    if table is None:
        fixed = Decision("positions", "sincos-2d", "there is no table of positions; big_vision then has sines")
        return 0, [fixed, google.usual_size(found, patch_size)]
    rows = shape_of(shapes, table, 3)[1]
    if "image_size" in found.asked:
        height, width = (side // patch for side, patch in zip(found.asked["image_size"], patch_size, strict=True))
        own = int(rows == height * width + 1)
    else:
        own = int(round((rows - 1) ** 0.5) ** 2 == rows - 1 and rows > 1)  # n * n + 1 is a square for n = 0 alone
    return own, [square_grid(rows - own, found.asked, patch_size)[0]]


def _embedding_plan(shapes: Shapes, config: ViTConfig, rows: int) -> Plan:
    """Everything before the first block.

    Args:
        shapes: of the vision model.
        config: the architecture.
        rows: of the table of positions that belong to the class token.
    """
    plan = {
        "patch_embed.proj.weight": flax.convolution("embedding/kernel"),
        "patch_embed.proj.bias": same("embedding/bias"),
        "pos_embed": _positions_part(_table(shapes), config, rows),
    }
    if config.class_token:
        plan["cls_token"] = same("cls")
    return plan


def _positions_part(table: str | None, config: ViTConfig, rows: int) -> Part:
    """The table with a row for the class token, if there is one: of zeros where the file has none."""
    missing = config.prefix - rows
    if table is None:
        patches = (config.rows, config.columns, config.width)
        return Part((), lambda: F.pad(sincos_positions(*patches)[None], (0, 0, missing, 0)))
    return Part((table,), lambda tensor: F.pad(tensor, (0, 0, missing, 0)) if missing else tensor)


def _pooling_plan(shapes: Shapes) -> Plan:
    """The MAP head, where there is one."""
    probe = _probe(shapes)
    if probe is None:
        return {}
    before = probe.removesuffix("probe")
    attention = f"{before}MultiHeadDotProductAttention_0"
    return (
        {"attn_pool.latent": same(probe)}
        | flax.projections("attn_pool.q", attention, "query")
        | flax.projections("attn_pool.kv", attention, "key", "value")
        | flax.gathering("attn_pool.proj", attention)
        | flax.norm("attn_pool.norm", f"{before}LayerNorm_0")
        | flax.mlp("attn_pool.mlp", f"{before}MlpBlock_0")
    )


def _probe(shapes: Shapes) -> str | None:
    """The name of the query that pools: in a module of its own, or inlined as while ViT-G was developed."""
    return next((name for name in ("MAPHead_0/probe", "probe") if name in shapes), None)


def _table(shapes: Shapes) -> str | None:
    """The name of the table of positions; None where there is none."""
    return next((name for name in _TABLES if name in shapes), None)
