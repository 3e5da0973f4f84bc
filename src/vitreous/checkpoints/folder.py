"""A model on disk as a folder: weights, the settings beside them, and a card for people.

In timm's layout timm opens it as `local-dir:FOLDER` and transformers as an image classifier, with the same logits; in
Hugging Face's layout transformers opens it as its own ViT.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from vitreous.atomic import folder_written_atomically
from vitreous.checkpoints.card import model_card
from vitreous.checkpoints.containers.safetensors import in_file_order, safetensors_pieces, write_all
from vitreous.checkpoints.formats import hf_vit
from vitreous.checkpoints.hf_preprocess import to_hf
from vitreous.checkpoints.record import RECORD, settings_to_record
from vitreous.checkpoints.timm_layout import to_timm
from vitreous.checkpoints.words import CONFIG, PROCESSOR, WEIGHTS
from vitreous.data.preprocess import Preprocess
from vitreous.errors import ConfigError
from vitreous.model.vit import VisionTransformer

CARD = "README.md"


def write_folder(
    model: VisionTransformer,
    folder: Path,
    preprocess: Preprocess,
    class_names: Sequence[str] = (),
    provenance: dict[str, Any] | None = None,
) -> tuple[str, ...]:
    """Writes a model in timm's layout; whole or not at all.

    Args:
        model: weights keep their type.
        folder: made, or replaced as a whole if it holds nothing but an earlier model.
        preprocess: what an image goes through before this model.
        class_names: one for each class, or none.
        provenance: plain data on where the weights come from, kept beside them.

    Returns:
        Nothing to remark: all of it has a place.

    Raises:
        ConfigError: if the provenance is no plain data.
        OutputError: if the folder cannot be written; what was there before is untouched.
    """
    described = to_timm(model.config, preprocess, class_names, provenance or {})
    card = model_card(model.config, preprocess, class_names)
    _write(folder, weights_of(model), {CONFIG: described}, card)
    return ()


def write_transformers_folder(
    model: VisionTransformer,
    folder: Path,
    preprocess: Preprocess,
    class_names: Sequence[str] = (),
    provenance: dict[str, Any] | None = None,
) -> tuple[str, ...]:
    """Writes a model as transformers saves its own ViT; whole or not at all.

    Arguments and errors are those of `write_folder`; also a ConfigError if transformers' ViT has no word for a part of
    the architecture or of the preprocessing.

    Returns:
        How transformers' pixels differ from ours, a sentence each.
    """
    described, weights, processor = hf_vit.write(model.config, weights_of(model), preprocess, class_names)
    _, differences = to_hf(preprocess)
    described[f"{RECORD}_record"] = {"settings": settings_to_record(model.config), "provenance": provenance or {}}
    card = model_card(model.config, preprocess, class_names, layout="transformers")
    _write(folder, weights, {CONFIG: described, PROCESSOR: processor}, card)
    return differences


def weights_of(model: VisionTransformer) -> dict[str, Tensor]:
    """The model's tensors by name, on the CPU."""
    seen: set[int] = set()
    weights = {}
    for name, tensor in model.state_dict().items():
        own = tensor.detach().cpu().contiguous()
        weights[name] = own.clone() if own.data_ptr() in seen else own  # a tensor under two names is written twice
        seen.add(own.data_ptr())
    return weights


def as_json(described: Mapping[str, Any]) -> str:
    """Settings as text.

    Raises:
        ConfigError: if they are no plain data, or hold a number that is not finite.
    """
    try:
        return json.dumps(described, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError, RecursionError) as cause:
        raise ConfigError(f"the provenance cannot be written as JSON: {cause}; use plain data") from cause


def _write(folder: Path, weights: Mapping[str, Tensor], settings: Mapping[str, Mapping[str, Any]], card: str) -> None:
    texts = {name: as_json(described) for name, described in settings.items()}
    with folder_written_atomically(folder) as filling:
        with (filling / WEIGHTS).open("wb", buffering=0) as file:
            for piece in safetensors_pieces(in_file_order(weights), {"format": "pt"}):
                write_all(file, piece)
        for name, text in texts.items():
            (filling / name).write_text(text, encoding="utf-8")
        (filling / CARD).write_text(card, encoding="utf-8")
