"""A model on disk as google-research/vision_transformer saves it: one .npz file, an array for each parameter."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitreous.atomic import file_written_atomically
from vitreous.checkpoints.folder import as_json, weights_of
from vitreous.checkpoints.formats import google
from vitreous.checkpoints.record import RECORD, settings_to_record
from vitreous.data.preprocess import Preprocess
from vitreous.model.vit import VisionTransformer

_LONGEST_COMMENT = 65_535  # bytes, of a zip archive


def write_google_file(
    model: VisionTransformer,
    path: Path,
    preprocess: Preprocess,
    class_names: Sequence[str] = (),
    provenance: dict[str, Any] | None = None,
) -> tuple[str, ...]:
    """Writes a model so that Google's loader and vitreous open it; whole or not at all.

    Preprocessing, provenance and class names stand in the archive's comment, where numpy and Google's loader do not
    look: they refuse one array more.

    Returns:
        What found no room in the comment, a sentence each.

    Raises:
        ConfigError: if Google's names have no word for a part of the architecture.
        OutputError: if the file cannot be written; what was there before is untouched.
    """
    arrays = google.write(model.config, weights_of(model))
    parts = {
        "settings": settings_to_record(model.config),
        "preprocess": preprocess.to_dict(),
        "provenance": provenance or {},
        "class_names": list(class_names),
    }
    comment, remarks = _comment(parts)
    with file_written_atomically(path) as filling, zipfile.ZipFile(filling, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # the same bytes on any day
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
        archive.comment = comment
    return remarks


def _comment(parts: dict[str, Any]) -> tuple[bytes, tuple[str, ...]]:
    """The record as JSON, without what makes it too long, and what that was."""
    remarks = []
    for part in ("class_names", "provenance"):
        if len(as_json({RECORD: parts}).encode()) > _LONGEST_COMMENT:
            del parts[part]
            remarks.append(f"{part.replace('_', ' ')} left out: an .npz file has room for {_LONGEST_COMMENT:,} bytes")
    return as_json({RECORD: parts}).encode(), tuple(remarks)
