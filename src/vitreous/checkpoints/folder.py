"""A model on disk, in timm's layout: config.json, model.safetensors, README.md.

timm opens such a folder as `local-dir:FOLDER` and transformers as an image classifier, with the same logits.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor

from vitreous.atomic import folder_written_atomically
from vitreous.checkpoints.card import model_card
from vitreous.checkpoints.loaded import Decision, LoadedModel, loaded
from vitreous.checkpoints.timm_layout import (
    FORMAT,
    class_names_from_timm,
    config_from_timm,
    to_timm,
)
from vitreous.checkpoints.timm_preprocess import preprocess_from_timm
from vitreous.checkpoints.weights import Shapes, check_file, check_fit, hash_file, read_shapes, read_weights
from vitreous.data.preprocess import Preprocess
from vitreous.errors import CheckpointError, ConfigError, InputError
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"

_LARGEST_CONFIG = 32 * 2**20  # bytes; 21,843 long class names take 2 MiB


def write_folder(
    model: VisionTransformer,
    folder: Path,
    preprocess: Preprocess,
    class_names: Sequence[str] = (),
    provenance: dict[str, Any] | None = None,
) -> None:
    """Writes a model so that vitreous, timm and transformers open it; whole or not at all.

    Args:
        model: weights keep their type.
        folder: made, or replaced as a whole if it holds nothing but an earlier model.
        preprocess: what an image goes through before this model.
        class_names: one for each class, or none.
        provenance: plain data on where the weights come from, kept beside them.

    Raises:
        ConfigError: if there are more or fewer names than classes, or the provenance is no plain data.
        OutputError: if the folder cannot be written; what was there before is untouched.
    """
    if class_names and len(class_names) != model.config.classes:
        raise ConfigError(
            f"there are {len(class_names)} class names for {model.config.classes} classes; give one for each, or none"
        )
    described = to_timm(model.config, preprocess, class_names, provenance or {})
    try:
        text = json.dumps(described, indent=2, allow_nan=False)
    except (TypeError, ValueError) as cause:
        raise ConfigError(f"the provenance cannot be written as JSON: {cause}; use plain data") from cause
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with folder_written_atomically(folder) as filling:
        (filling / WEIGHTS).write_bytes(to_safetensors(weights, metadata={"format": "pt"}))
        (filling / CONFIG).write_text(text + "\n", encoding="utf-8")
        (filling / CARD).write_text(model_card(model.config, preprocess, class_names), encoding="utf-8")


def read_folder(folder: Path, weights: Path | None = None) -> LoadedModel:
    """The model in a folder that vitreous or timm wrote.

    Args:
        folder: has a config.json.
        weights: a safetensors file; the folder's model.safetensors if None.

    Raises:
        InputError: if a file is missing, empty, or not a regular one.
        CheckpointError: if a file is damaged, weights and architecture do not fit each other, or the
            architecture is another than `ViTConfig` describes.
    """
    path = weights or folder / WEIGHTS
    if weights:
        check_file(weights)
    described = _read_config(folder / CONFIG)
    _refuse_pickles(folder, path)
    shapes = read_shapes(path)
    if "vitreous" in described:
        config, preprocess, decisions, saved = _ours(described["vitreous"], folder / CONFIG)
    else:
        config, preprocess, decisions, saved = *_timms(described, shapes, folder / CONFIG), {}
    model = _build(config, path, shapes)
    return loaded(
        str(weights or folder),
        "vitreous" if "vitreous" in described else "timm folder",
        model,
        preprocess,
        name=_title(folder, path),
        file_hash=hash_file(path),
        class_names=class_names_from_timm(described, config.classes),
        decisions=decisions,
        saved=saved,
    )


def _title(folder: Path, weights: Path) -> str:
    """The folder's name, with its parent's where a run calls it just "model"."""
    if weights.name != WEIGHTS:
        return weights.stem
    here = folder.resolve()
    return f"{here.parent.name}/{here.name}" if here.name == "model" else here.name


def _read_config(path: Path) -> dict[str, Any]:
    check_file(path)
    if path.stat().st_size > _LARGEST_CONFIG:
        raise CheckpointError(f"{path} is larger than {_LARGEST_CONFIG >> 20} MiB; a model's config.json is small")
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as cause:
        raise CheckpointError(f"{path} is not JSON: {cause}; copy or download it again") from cause
    if not isinstance(described, dict):
        raise CheckpointError(f"{path} holds a {type(described).__name__}; a model's config.json is an object")
    if "vitreous" not in described and "model_type" in described:
        raise CheckpointError(f"{path} is of a Hugging Face model; open it as hf:{path.parent}")
    if "vitreous" not in described and "architecture" not in described:
        raise CheckpointError(f"{path} names no architecture; it is neither vitreous' nor timm's")
    return described


def _refuse_pickles(folder: Path, weights: Path) -> None:
    if weights.exists():
        return
    for name in ("pytorch_model.bin", "model.bin", "pytorch_model.pt"):
        if (folder / name).exists():
            raise CheckpointError(
                f"{folder} has its weights in {name}, a pickle, which can run code and is never opened; "
                "save them again as model.safetensors (timm: safe_serialization=True)"
            )
    raise InputError(f"{weights} does not exist; a model's folder has its weights in {WEIGHTS}")


def _ours(entry: object, path: Path) -> tuple[ViTConfig, Preprocess, tuple[Decision, ...], dict[str, Any]]:
    if not isinstance(entry, dict) or not isinstance(entry.get("config"), dict):
        raise CheckpointError(f"{path}: the entry 'vitreous' has no config; copy the file again")
    if entry.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has format {entry.get('format')!r}, this version reads {FORMAT}; install a newer one"
        )
    try:
        config = ViTConfig.from_dict(entry["config"])
        preprocess = Preprocess.from_dict(entry.get("preprocess") or {})
    except (ConfigError, TypeError) as cause:
        raise CheckpointError(f"{path} cannot be used: {cause}") from cause
    saved = entry.get("provenance")
    decision = Decision("architecture", "ViTConfig", "saved whole in config.json")
    return config, preprocess, (decision,), saved if isinstance(saved, dict) else {}


def _timms(described: dict[str, Any], shapes: Shapes, path: Path) -> tuple[ViTConfig, Preprocess, tuple[Decision, ...]]:
    try:
        config, decisions = config_from_timm(described, shapes)
        given = described.get("pretrained_cfg")
        preprocess, more = preprocess_from_timm(given if isinstance(given, dict) else {})
    except CheckpointError as cause:
        raise CheckpointError(f"{path.parent}: {cause}") from cause
    return config, preprocess, decisions + more


def _build(config: ViTConfig, path: Path, shapes: Shapes) -> VisionTransformer:
    """A model with the file's weights; nothing is allocated before names and shapes are found to fit."""
    blocks = {name.split(".")[1] for name in shapes if name.startswith("blocks.")}
    if len(blocks) != config.depth:
        raise CheckpointError(
            f"{path} has {len(blocks)} blocks, config.json has depth {config.depth}; "
            "use the config.json that was saved with these weights"
        )
    try:
        with torch.device("meta"):
            model = VisionTransformer(config)
    except (RuntimeError, OverflowError, TypeError, ValueError) as cause:
        reason = str(cause).splitlines()[0]
        raise CheckpointError(
            f"{path.parent / CONFIG} describes no possible model: {reason}; check its numbers"
        ) from cause
    check_fit(model, _with_prefix_rows(shapes, config), path)
    model.load_state_dict(_fill_prefix_rows(read_weights(path), config), assign=True)
    return model


def _has_patches_only(shape: tuple[int, ...] | None, config: ViTConfig) -> bool:
    """Whether a position table leaves out the prefix tokens, as timm's `no_embed_class` does."""
    return shape == (1, config.tokens - config.prefix, config.width) and config.prefix > 0


def _with_prefix_rows(shapes: Shapes, config: ViTConfig) -> Shapes:
    if not _has_patches_only(shapes.get("pos_embed"), config):
        return shapes
    return shapes | {"pos_embed": (1, config.tokens, config.width)}


def _fill_prefix_rows(weights: dict[str, Tensor], config: ViTConfig) -> dict[str, Tensor]:
    """Positions of 0 for prefix tokens that have none: the sum is the same, bit for bit."""
    table = weights.get("pos_embed")
    if table is None or not _has_patches_only(tuple(table.shape), config):
        return weights
    rows = table.new_zeros(1, config.prefix, config.width)
    return weights | {"pos_embed": torch.cat([rows, table], dim=1)}
