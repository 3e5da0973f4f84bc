"""A run's folder: `config.yaml`, `metrics.jsonl`, `model/`, and perhaps `checkpoints/`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from vitreous.atomic import check_writable, write_atomically
from vitreous.checkpoints.words import CHECKPOINTS, EPOCH, MODEL, checkpoints_of
from vitreous.errors import ConfigError, OutputError
from vitreous.training.config import TrainConfig
from vitreous.training.settings_file import plain, read_config, to_yaml

CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
SAVED = {"config.json", "model.safetensors", "README.md"}
"""Files of a saved model."""


def check_run(folder: Path, config: TrainConfig) -> None:
    """Nothing, if a run of this config can be made in the folder; nothing is written to find out.

    An unfinished run there starts again; a finished one of the same config is made again, to the same bits.

    Raises:
        OutputError: if the folder cannot be written, or holds a finished run of another config or somebody's own files
            of the same names.
    """
    for name in (CONFIG, METRICS):
        check_writable(folder / name)
    if (folder / MODEL).exists() and not (folder / MODEL).is_dir():
        raise OutputError(f"{folder / MODEL} is a file, but a folder goes there; choose another place")
    for model in (folder / MODEL, *checkpoints_of(folder / CHECKPOINTS)):
        others = {entry.name for entry in model.glob("*")} - SAVED
        if others:
            raise OutputError(f"{model} has other files in it ({min(others)}); choose another place, or move them")
    if (folder / CONFIG).exists():
        _check_is_ours(folder / CONFIG)
    if (folder / MODEL).exists():
        _check_same_config(folder, config)


def start_run(folder: Path, config: TrainConfig) -> None:
    """Makes the folder, with the config and an empty list of metrics in it, and without an earlier run's checkpoints.

    Raises:
        OutputError: if it cannot be written.
    """
    for earlier in checkpoints_of(folder / CHECKPOINTS):
        try:
            shutil.rmtree(earlier)
        except OSError as error:
            raise OutputError(f"{earlier} cannot be replaced: {error.strerror}; choose another place") from error
    write_atomically(folder / CONFIG, to_yaml(config))
    write_atomically(folder / METRICS, "")


def checkpoint_folder(folder: Path, epoch: int) -> Path:
    """Where a run keeps its model after so many epochs; of epoch 0 the first weights."""
    return folder / CHECKPOINTS / EPOCH.format(epoch)


def append_metrics(folder: Path, metrics: dict[str, float | int]) -> None:
    """One more line in `metrics.jsonl`.

    Raises:
        OutputError: if it cannot be written.
    """
    try:
        with (folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")
    except OSError as error:
        raise OutputError(f"{folder / METRICS} cannot be written: {error.strerror}; make room there") from error


def _check_is_ours(path: Path) -> None:
    try:
        read_config(path)
    except ConfigError:
        raise OutputError(f"{path} is no settings of a run, and a run would replace it; choose another place") from None


def _check_same_config(folder: Path, config: TrainConfig) -> None:
    try:
        before = plain(read_config(folder / CONFIG))  # settings that are newer than the run have their defaults
    except ConfigError:
        before = None
    different = _differences(before, plain(config))
    if different:
        raise OutputError(
            f"{folder} holds a finished run of another config (differs in {', '.join(different[:3])}); "
            "choose another folder, or delete this one"
        )


def _differences(before: Any, now: Any, path: str = "") -> list[str]:
    """Paths of all settings that are not the same in both."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now else [path or CONFIG]
    names = [*now, *(name for name in before if name not in now)]
    return [
        found
        for name in names
        for found in _differences(before.get(name), now.get(name), f"{path}.{name}" if path else str(name))
    ]
