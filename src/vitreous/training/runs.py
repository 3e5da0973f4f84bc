"""A run's folder: `config.yaml`, `metrics.jsonl`, `model/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from vitreous.atomic import check_writable, write_atomically
from vitreous.errors import ConfigError, OutputError
from vitreous.training.config import TrainConfig
from vitreous.training.settings_file import read_config, to_yaml

CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
MODEL = "model"
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
    others = {entry.name for entry in (folder / MODEL).glob("*")} - SAVED
    if others:
        raise OutputError(f"{folder / MODEL} has other files in it ({min(others)}); choose another place, or move them")
    if (folder / CONFIG).exists():
        _check_is_ours(folder / CONFIG)
    if (folder / MODEL).exists():
        _check_same_config(folder, config)


def start_run(folder: Path, config: TrainConfig) -> None:
    """Makes the folder, with the config and an empty list of metrics in it.

    Raises:
        OutputError: if it cannot be written.
    """
    write_atomically(folder / CONFIG, to_yaml(config))
    write_atomically(folder / METRICS, "")


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
        before = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        before = None
    different = _differences(before, yaml.safe_load(to_yaml(config)))
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
