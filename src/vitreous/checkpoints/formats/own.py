"""Folders that vitreous wrote: the settings stand whole in config.json, the tensors have our names."""

from __future__ import annotations

from vitreous.checkpoints.loaded import Decision
from vitreous.checkpoints.reading import Found, Reading, same
from vitreous.checkpoints.timm_layout import FORMAT, class_names_from_timm
from vitreous.data.images import shown
from vitreous.data.preprocess import Preprocess
from vitreous.errors import CheckpointError, ConfigError
from vitreous.model.config import ViTConfig

TITLE = "vitreous"


def recognises(found: Found) -> bool:
    """Whether config.json has our entry."""
    return "vitreous" in found.described


def read(found: Found) -> Reading:
    """What `write_folder` wrote.

    Raises:
        CheckpointError: if the entry is damaged, or newer than this version.
    """
    entry = found.described["vitreous"]
    if not isinstance(entry, dict) or not isinstance(entry.get("config"), dict):
        raise CheckpointError("config.json's entry 'vitreous' has no config; copy the file again")
    if entry.get("format") != FORMAT:
        raise CheckpointError(
            f"config.json has format {repr(entry.get('format'))[:40]}, this version reads {FORMAT}; install a newer one"
        )
    try:
        config = ViTConfig.from_dict(entry["config"])
        preprocess = Preprocess.from_dict(entry.get("preprocess") or {})
    except (ConfigError, TypeError) as cause:
        raise CheckpointError(f"config.json cannot be used: {shown(str(cause))[:300]}") from cause
    saved = entry.get("provenance")
    return Reading(
        config,
        {name: same(name) for name in found.shapes},
        preprocess,
        (Decision("architecture", "ViTConfig", "saved whole in config.json"),),
        class_names=class_names_from_timm(dict(found.described), config.classes),
        saved=saved if isinstance(saved, dict) else {},
    )
