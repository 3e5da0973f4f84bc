"""Starting from a trained model, as in fine-tuning: its weights for first weights, as far as they fit the new task.

The architecture must be the same. What may differ, and how it is met (Dosovitskiy et al. 2021, section 3.1 and 3.2):

    image size    learned positions are resampled to the new grid, by the rule that the run's config names
    classes       the whole head goes, the hidden layer of a pre-training head with it; the new one is zero
    dropout       and all else that is for training only is the run's
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitreous.checkpoints.loaded import LoadedModel
from vitreous.checkpoints.sources import open_model
from vitreous.data.images import shown
from vitreous.data.preprocess import Preprocess
from vitreous.errors import CheckpointError
from vitreous.model.config import ViTConfig
from vitreous.model.positions import resample_offsets, resample_positions
from vitreous.model.vit import VisionTransformer

_HEAD = ("head", "head_dist", "pre_logits")
_FREE = {
    "image_size", "classes", "hidden_head", "dropout", "drop_path", "resampling", "layer_scale", "norm_after_pooling",
    "attention_width", "mlp_ratio", "rope_base", "stem_width", "stem_root", "stem_constants",
}  # fmt: skip
"""Settings that may differ, or whose meaning `_architecture` has under another name."""

_MOST_SHOWN = 5


@torch.no_grad()
def start_from(
    source: str | Path,
    model: VisionTransformer,
    *,
    class_names: tuple[str, ...] = (),
    preprocess: Preprocess | None = None,
) -> str:
    """Puts a checkpoint's weights into a model, in place; see the head of this file.

    Its head is kept where the classes are as many as the model's and, as far as both are known, have the same names.

    Args:
        source: a file or folder in any known format, or a training run's folder.
        model: new; what does not come from the checkpoint stays as it was drawn, its head becomes zero.
        class_names: of the data to learn, to compare with the checkpoint's.
        preprocess: what images go through in the run, to compare with the checkpoint's.

    Returns:
        What was taken, moved and left out, in one line; a second one where colours are handled otherwise.

    Raises:
        CheckpointError: if the architectures differ, with the differences; if positions cannot be moved; if a weight
            is NaN or infinite; and as `load` does.
        InputError: as `load` does.
        ConfigError: as `load` does.
    """
    opened = open_model(source, strict=True)
    start = _own_model(opened)
    _check_same(opened.name, start.config, model.config)
    weights = start.state_dict()
    has_new_head = _has_new_head(opened, model.config, class_names)
    taken = {
        name: _moved(name, weights[name], start.config, model.config)
        for name in model.state_dict()
        if not (has_new_head and name.split(".")[0] in _HEAD) and not _is_computed(name, model.config)
    }
    model.load_state_dict(taken, strict=False)
    for head in (model.head, model.head_dist) if has_new_head else ():
        if head is not None:
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
    return _remark(opened, start.config, model.config, preprocess, has_new_head=has_new_head)


def _own_model(opened: LoadedModel) -> VisionTransformer:
    if not isinstance(opened.model, VisionTransformer):
        raise CheckpointError(
            f"{opened.name} is a {type(opened.model).__name__} of {opened.kind}; a run starts from files and folders: "
            "`vitreous convert MODEL FOLDER` makes one, then start from the folder"
        )
    return opened.model


def _check_same(name: str, start: ViTConfig, wanted: ViTConfig) -> None:
    theirs, ours = _architecture(start), _architecture(wanted)
    different = [
        f"{setting} is {theirs[setting]} there and {ours[setting]} here"
        for setting in ours
        if theirs[setting] != ours[setting]
    ]
    if different:
        more = f"; and {len(different) - _MOST_SHOWN} more" if len(different) > _MOST_SHOWN else ""
        raise CheckpointError(
            f"{name} is another architecture than the run's model: {'; '.join(different[:_MOST_SHOWN])}{more}\n"
            "set these settings of model to the checkpoint's, or start from another one"
        )
    if start.positions == "relative" and (start.rows, start.columns) != (wanted.rows, wanted.columns):
        raise CheckpointError(
            f"{name} has positions 'relative' for {start.rows} x {start.columns} patches, which have no meaning for "
            f"{wanted.rows} x {wanted.columns}; keep model.image_size {start.image_size}"
        )


def _architecture(config: ViTConfig) -> dict[str, Any]:
    """All that must be the same for weights to mean the same."""
    plain = {name: value for name, value in config.to_dict().items() if name not in _FREE}
    plain |= {
        "attention_width": None if config.all_heads == config.width else config.all_heads,
        "mlp_ratio": config.mlp_width / config.width,
        "layer_scale": "none" if config.layer_scale is None else "learned",
        "norm_after_pooling": config.has_norm_after_pooling,
        "rope_base": config.rope_base if config.positions == "rope" else None,
    }
    for name in ("stem_width", "stem_root", "stem_constants"):
        plain[name] = getattr(config, name) if config.stem is not None else None
    return plain


def _has_new_head(opened: LoadedModel, wanted: ViTConfig, class_names: tuple[str, ...]) -> bool:
    """Whether the checkpoint's head is for other classes, or of another form."""
    start = _own_model(opened).config
    is_same_form = (start.classes, start.hidden_head) == (wanted.classes, wanted.hidden_head)
    is_renamed = bool(opened.class_names and class_names) and opened.class_names != class_names
    return not is_same_form or is_renamed


def _is_computed(name: str, config: ViTConfig) -> bool:
    return name == "pos_embed" and config.positions == "sincos-2d"


def _moved(name: str, weight: Tensor, start: ViTConfig, wanted: ViTConfig) -> Tensor:
    """A weight as the new image size wants it: the same tensor, unless it is a table of positions."""
    old, new = (start.rows, start.columns), (wanted.rows, wanted.columns)
    rule = wanted.resampling
    kind = name.rpartition(".")[2]
    if kind == "pos_embed":
        return resample_positions(weight, old, new, start.prefix, rule)
    if kind == "pos_embed_rows":
        return resample_positions(weight, (old[0], 1), (new[0], 1), 0, rule)
    if kind == "pos_embed_columns":
        return resample_positions(weight, (1, old[1]), (1, new[1]), 0, rule)
    if kind == "relative_position_bias_table":
        return resample_offsets(weight, old, new, start.prefix)
    return weight


def _remark(
    opened: LoadedModel, start: ViTConfig, wanted: ViTConfig, preprocess: Preprocess | None, *, has_new_head: bool
) -> str:
    done = [f"started from {shown(opened.name)} ({opened.kind})"]
    moved = (start.rows, start.columns) != (wanted.rows, wanted.columns)
    if moved and wanted.positions in ("learned", "learned-2d", "relative-bias"):
        rule = "bilinear" if wanted.positions == "relative-bias" else f"by the rule {wanted.resampling!r}"
        grids = f"from {start.rows} x {start.columns} patches to {wanted.rows} x {wanted.columns}"
        done.append(f"positions moved {grids}, {rule}")
    if has_new_head and wanted.classes:
        before = f"its head of {start.classes} classes left out, " if start.classes else ""
        hidden = "its hidden layer, too, " if start.hidden_head and not wanted.hidden_head else ""
        done.append(f"{before}{hidden}a new one of {wanted.classes} starts at zero")
    elif has_new_head:
        done.append("its head left out")
    line = "; ".join(done)
    theirs = opened.preprocess
    if preprocess is not None and (theirs.mean, theirs.std) != (preprocess.mean, preprocess.std):
        line += (
            f"\nits images had mean {theirs.mean} and std {theirs.std}, the run's have mean {preprocess.mean} and "
            f"std {preprocess.std}; set preprocess to the checkpoint's unless that is meant"
        )
    return line
