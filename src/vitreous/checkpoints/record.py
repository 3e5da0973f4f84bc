"""What vitreous puts beside weights in formats that have no place for it: preprocessing, class names, provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vitreous.checkpoints.containers.contract import TensorFile
from vitreous.checkpoints.loaded import Decision
from vitreous.checkpoints.reading import Reading
from vitreous.data.preprocess import Preprocess
from vitreous.errors import CheckpointError

RECORD = "vitreous"
"""Name of its entry in an archive's comment; in config.json "_record" stands behind."""


def read_record(file: TensorFile, described: Mapping[str, Any]) -> dict[str, Any]:
    """The record in config.json, or in the comment of an archive; empty where there is none."""
    entry = described.get(f"{RECORD}_record")
    if entry is None:
        try:
            comment = json.loads(file.extras.get("comment", "{}"))
        except (TypeError, ValueError, RecursionError):
            return {}  # somebody else's comment
        entry = comment.get(RECORD) if isinstance(comment, dict) else None
    return entry if isinstance(entry, dict) else {}


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
            kept = (decision for decision in decisions if decision.setting not in _OF_PREPROCESS)
            reason = "saved in the file by vitreous"
            decisions = (*kept, Decision("preprocess", preprocess.to_dict(), reason))
        if "class_names" in record:
            names = tuple(str(name) for name in record["class_names"])
    except (TypeError, ValueError, KeyError) as cause:
        raise CheckpointError(f"what vitreous saved in the file cannot be used: {cause}") from cause
    if names and len(names) != reading.config.classes:
        raise CheckpointError(f"the file has {len(names)} class names for {reading.config.classes} classes")
    saved = saved if isinstance(saved, dict) else {}
    return replace(reading, preprocess=preprocess, class_names=names, decisions=decisions, saved=saved)


_OF_PREPROCESS = {"preprocess", "resize", "interpolation", "mean and std", "mean", "std", "crop_pct", "input_size"}
