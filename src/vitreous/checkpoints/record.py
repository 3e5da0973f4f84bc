"""What vitreous puts beside weights in formats that have no place for it: preprocessing, class names, provenance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vitreous.checkpoints.containers.contract import TensorFile
from vitreous.checkpoints.containers.json_object import parse_object
from vitreous.checkpoints.loaded import Decision
from vitreous.checkpoints.reading import Reading
from vitreous.data.preprocess import Preprocess
from vitreous.errors import CheckpointError
from vitreous.model.config import ViTConfig

SAVED_BY_US = "saved in the file by vitreous"
"""Why a setting is what it is, where the record says so."""

RECORD = "vitreous"
"""Name of its entry in an archive's comment; in config.json "_record" stands behind."""


def read_record(file: TensorFile, described: Mapping[str, Any]) -> dict[str, Any]:
    """The record in config.json, or in the comment of an archive; empty where there is none."""
    entry = described.get(f"{RECORD}_record")
    if entry is None:
        try:
            entry = parse_object(str(file.extras.get("comment", "{}")).encode()).get(RECORD)
        except ValueError:
            return {}  # somebody else's comment
    return entry if isinstance(entry, dict) else {}


_ABOUT_IMAGES = {
    "preprocess", "preprocess.image_size", "image processor", "resize", "crop_fraction", "interpolation", "resampler",
    "mean and std", "mean", "std", "padding",
}  # fmt: skip
"""What formats call their decisions about images."""

KEPT = ("image_size", "resampling", "dropout", "drop_path")
"""Fields of `ViTConfig` that names and shapes do not tell, and other formats have no word for."""


def recorded_settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `ViTConfig` in the record."""
    settings = record.get("settings")
    known = {name: settings[name] for name in KEPT if name in settings} if isinstance(settings, dict) else {}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in known.items()}


def settings_to_record(config: ViTConfig) -> dict[str, Any]:
    """What `recorded_settings` reads, as plain data."""
    return {name: value for name, value in config.to_dict().items() if name in KEPT}


def with_record(reading: Reading, record: Mapping[str, Any]) -> Reading:
    """The reading with what the record says, which is no guess.

    Raises:
        CheckpointError: if the record cannot be.
    """
    if not record:
        return reading
    preprocess, names, saved = reading.preprocess, reading.class_names, record.get("provenance")
    decisions = reading.decisions
    try:
        if "preprocess" in record:
            preprocess = Preprocess.from_dict(record["preprocess"])
            kept = (decision for decision in decisions if decision.setting not in _ABOUT_IMAGES)
            decisions = (*kept, Decision("preprocess", preprocess.to_dict(), SAVED_BY_US))
        if "class_names" in record:
            names = tuple(str(name) for name in record["class_names"])
    except (TypeError, ValueError, LookupError, AttributeError) as cause:
        raise CheckpointError(f"what vitreous saved in the file cannot be used: {cause}") from cause
    if names and len(names) != reading.config.classes:
        raise CheckpointError(f"the file has {len(names)} class names for {reading.config.classes} classes")
    saved = saved if isinstance(saved, dict) else {}
    return replace(reading, preprocess=preprocess, class_names=names, decisions=decisions, saved=saved)
