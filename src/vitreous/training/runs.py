"""A run's folder: `config.yaml`, `metrics.jsonl`, `states/`, `model/`, `evaluation.json`, and what else was asked for.

One process at a time trains in it: the one that holds `run.lock`. A run that goes on does, in this order: `check_run`,
`locked_run`, `states.newest_state`, then `go_on`, or `start_run` where there is no state.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vitreous.atomic import check_writable, remove_unfinished, write_atomically
from vitreous.checkpoints.words import CHECKPOINTS, EPOCH, MODEL, checkpoints_of
from vitreous.errors import CheckpointError, ConfigError, OutputError
from vitreous.training.changes import FREE, change, differences, listed
from vitreous.training.config import TrainConfig
from vitreous.training.settings_file import plain, read_config, to_yaml

CONFIG = "config.yaml"
METRICS = "metrics.jsonl"

EVALUATION = "evaluation.json"
"""How the result did on the test part, what it took, and which data it was made of."""

BEST = "best"
"""Folder of the model that did best on the test part."""

STATES = "states"
"""Folder of what an interrupted run goes on from."""

SKIPPED = "skipped.tsv"
"""Images that could not be read, and why."""

BAD_BATCH = "bad-batch.txt"
"""Images of the batch whose loss or gradient was NaN or infinite, where a message has not room for all."""

SAVED = {"config.json", "model.safetensors", "README.md"}
"""Files of a saved model."""


def check_run(folder: Path, config: TrainConfig) -> None:
    """Nothing, if a run of this config can be made in the folder; nothing is written to find out.

    An unfinished run there goes on; a finished one is left as it is. Settings that change no bit of the result, such as
    the number of workers, may be others.

    Raises:
        OutputError: if the folder cannot be written, or holds somebody's own files of the same names.
        CheckpointError: if it holds a finished run of another config, with the difference.
    """
    for name in (CONFIG, METRICS):
        check_writable(folder / name)
    if (folder / MODEL).exists() and not (folder / MODEL).is_dir():
        raise OutputError(f"{folder / MODEL} is a file, but a folder goes there; choose another place")
    for model in (folder / MODEL, folder / BEST, *checkpoints_of(folder / CHECKPOINTS)):
        others = {entry.name for entry in model.glob("*")} - SAVED
        if others:
            raise OutputError(f"{model} has other files in it ({min(others)}); choose another place, or move them")
    if (folder / CONFIG).exists():
        _check_is_ours(folder / CONFIG)
    elif not (folder / STATES).exists():
        _check_nobody_elses(folder)
    if (folder / MODEL).exists():
        _check_same_config(folder, config)


def start_run(folder: Path, config: TrainConfig) -> None:
    """Makes the folder, with the config and an empty list of metrics in it, and without what an earlier run left.

    Raises:
        OutputError: if it cannot be written.
    """
    _remove_unfinished(folder)
    if (folder / CONFIG).exists():  # else files of these names are somebody's own
        for earlier in checkpoints_of(folder / CHECKPOINTS):
            _remove_model(earlier)
        _remove_results(folder)
    write_atomically(folder / CONFIG, to_yaml(config))
    write_atomically(folder / METRICS, "")


def checkpoint_folder(folder: Path, epoch: int) -> Path:
    """Where a run keeps its model after so many epochs; of epoch 0 the first weights."""
    return folder / CHECKPOINTS / EPOCH.format(epoch)


def go_on(folder: Path, config: TrainConfig, step: int) -> None:
    """Makes the folder as it was after some step: what an interrupted run did later is done again.

    The config there becomes this one, which may have other threads, say. Lines of later steps leave `metrics.jsonl`, so
    does one that was cut while it was written, and so do models of later epochs `checkpoints/`; and what is half
    written goes.

    Args:
        folder: of a run, locked.
        config: of the run as it goes on.
        step: of the state that the run goes on from.

    Raises:
        OutputError: if it cannot be written.
    """
    _remove_unfinished(folder)
    _remove_files(folder, BAD_BATCH)
    write_atomically(folder / CONFIG, to_yaml(config))
    kept = [metrics for metrics in read_metrics(folder) if metrics.get("step", 0) <= step]
    write_atomically(folder / METRICS, "".join(json.dumps(metrics) + "\n" for metrics in kept))
    epochs = int(max((metrics.get("epoch", 0) for metrics in kept), default=0))
    done = {checkpoint_folder(folder, epoch) for epoch in range(epochs + 1)}
    for model in checkpoints_of(folder / CHECKPOINTS):
        if model not in done:
            _remove_model(model)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`, without one that a killed run left unfinished; none if there is no such file."""
    try:
        text = (folder / METRICS).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OutputError(f"{folder / METRICS} cannot be read: {error.strerror}; check its permissions") from error
    found = []
    for line in text.splitlines(keepends=True):
        with suppress(ValueError):
            metrics = json.loads(line) if line.endswith("\n") else None
            found += [metrics] if isinstance(metrics, dict) else []
    return found


def append_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """One more line in `metrics.jsonl`, or, if that fails, none.

    Raises:
        OutputError: if it cannot be written.
    """
    path = folder / METRICS
    line = (json.dumps(metrics) + "\n").encode()
    try:
        with path.open("ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            try:
                while line:  # a system call may take a part
                    line = line[file.write(line) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(before)
                raise
    except OSError as error:
        remedy = "raise the limit (`ulimit -f`)" if error.errno == errno.EFBIG else "make room there"
        raise OutputError(f"{path} cannot be written: {error.strerror}; {remedy}") from error


def check_room(folder: Path, needed: int) -> None:
    """Nothing, if so many bytes are free where the folder is; before the first step, not when a state is written.

    Raises:
        OutputError: if not, with both numbers.
    """
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise OutputError(
            f"{folder} needs {needed / 2**20:,.1f} MiB for this run's model and states, "
            f"{free / 2**20:,.1f} MiB are free there; make room, or choose another place"
        )


def _check_is_ours(path: Path) -> None:
    try:
        read_config(path)
    except ConfigError:
        raise OutputError(f"{path} is no settings of a run, and a run would replace it; choose another place") from None


def _check_nobody_elses(folder: Path) -> None:
    """Nothing, if a run that begins here replaces no file; where there are settings of a run, the files are that run's.

    Raises:
        OutputError: if it would.
    """
    models = [folder / BEST, *checkpoints_of(folder / CHECKPOINTS)]
    for place in (*models, *(folder / name for name in (METRICS, EVALUATION, SKIPPED))):
        if place.exists():
            raise OutputError(
                f"{place} is there without a {CONFIG} that says of which run, and a run would replace it\n"
                "choose another folder, or move it"
            )


def _remove_unfinished(folder: Path) -> None:
    for place in (folder, folder / CHECKPOINTS):
        remove_unfinished(place)


def _remove_model(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise OutputError(f"{folder} cannot be replaced: {error.strerror}; choose another place") from error


def _remove_results(folder: Path) -> None:
    if (folder / BEST).exists():
        _remove_model(folder / BEST)
    _remove_files(folder, EVALUATION, SKIPPED, BAD_BATCH)


def _remove_files(folder: Path, *names: str) -> None:
    try:
        for name in names:
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be changed: {error.strerror}; choose another place") from error


def _check_same_config(folder: Path, config: TrainConfig) -> None:
    try:
        before = plain(read_config(folder / CONFIG))  # settings that are newer than the run have their defaults
    except ConfigError:
        raise OutputError(
            f"{folder} has a model, but no {CONFIG} that says of which run; choose another folder, or move the model"
        ) from None
    found = [
        change(path, was, is_now)
        for path, was, is_now in differences(before, plain(config))
        if path.partition(".")[0] not in FREE
    ]
    if found:
        raise CheckpointError(
            f"{folder} holds a finished run of another config: {listed(found)}\n"
            "choose another folder, or delete this one to train again"
        )
