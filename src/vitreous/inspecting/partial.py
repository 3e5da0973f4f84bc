"""An interrupted inspection: the sums so far in one file, so that the same run can go on from there."""

from __future__ import annotations

import glob
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from vitreous.atomic import write_atomically
from vitreous.errors import ConfigError, InputError
from vitreous.inspecting.seen import FirstImages, ModelFacts, Seen
from vitreous.measures.heads import HEAD_MEASURES
from vitreous.measures.moments import BINS, HeadMoments
from vitreous.tokens import TokenLayout

INTERVAL = 60.0
"""Seconds between two savings: what is lost when a run is killed without a warning."""

_ABOUT = "about"  # JSON as a tensor of bytes: safetensors' own header is limited, a list of unread images is not
_TABLES = ("filters", "filters_variance", "position_similarity")

Settings = Mapping[str, str]
"""All that the numbers depend on, in words or hashes."""


class Partial:
    """Where a run keeps what it has seen; nowhere, if there is no path."""

    def __init__(self, path: Path | None, settings: Callable[[], Settings]) -> None:
        self._path, self._settings_of_the_run = path, settings
        self._saved = time.monotonic()
        self._is_there = False

    @cached_property
    def settings(self) -> Settings:
        """Of this run; hashing the weights takes a moment, so only when they are needed."""
        return self._settings_of_the_run()

    def read(self) -> Seen:
        """What an interrupted run left, or nothing seen.

        Raises:
            ConfigError: if that was another run.
            InputError: if the file is damaged.
        """
        if self._path is None or not self._path.exists():
            return Seen()
        self._is_there = True
        try:
            content = self._path.read_bytes()
        except OSError as cause:
            raise InputError(f"{self._path} cannot be read: {cause.strerror}; choose another name") from cause
        return from_bytes(content, self.settings, str(self._path))

    def keep(self, seen: Seen) -> None:
        """Saves, if the last time is a minute ago.

        Raises:
            OutputError: if the file cannot be written.
        """
        if time.monotonic() - self._saved >= INTERVAL:
            self.write(seen)

    def finish(self, seen: Seen) -> None:
        """Saves the last state where an earlier one is: if the results cannot be written, nothing is lost."""
        if self._is_there:
            self.write(seen)

    def write(self, seen: Seen) -> bool:
        """Saves, and says whether there was anything to save, and a place for it."""
        if self._path is None or not seen.batches:
            return False
        write_atomically(self._path, to_bytes(seen, self.settings))
        self._saved, self._is_there = time.monotonic(), True
        return True


def partial_path(path: Path, process: int, processes: int) -> Path:
    """The file of one of several processes that share the work."""
    return path if processes == 1 else path.with_name(f"{path.name}.{process}-of-{processes}")


def delete_partial(path: Path) -> None:
    """Removes the file, and those of several sizes or processes; what is not there is no error."""
    for file in (path, *path.parent.glob(f"{glob.escape(path.name)}.*")):
        with suppress(OSError):
            file.unlink(missing_ok=True)


def to_bytes(seen: Seen, settings: Settings) -> bytes:
    """Everything in `seen`, as one safetensors file."""
    about: dict[str, Any] = {
        "settings": dict(settings),
        "batches": seen.batches,
        "images": seen.images,
        "unread": seen.unread,
        "largest_error": seen.largest_error,
    }
    tensors = {"rollout_sum": seen.rollout_sum}
    for name, moments in seen.moments.items():
        tensors |= {f"{name}.{key}": value for key, value in moments.state().items()}
    if seen.first is not None:
        about["first"] = {"indices": seen.first.indices, "predictions": seen.first.predictions}
        tensors |= {f"first.{name}": tensor for name, tensor in seen.first.tensors().items()}
    if seen.facts is not None:
        about["facts"] = {"layout": asdict(seen.facts.layout), "notes": seen.facts.notes}
        tensors |= {f"facts.{name}": table for name, table in seen.facts.tables.items()}
    tensors[_ABOUT] = torch.frombuffer(bytearray(json.dumps(about).encode()), dtype=torch.uint8)
    # clones, because empty moments share one zero, which the format refuses
    return to_safetensors({name: tensor.contiguous().clone() for name, tensor in tensors.items()})


def from_bytes(content: bytes, settings: Settings, name: str) -> Seen:
    """What `to_bytes` made of a run with these settings; `name` stands in messages.

    Raises:
        ConfigError: if the settings were others.
        InputError: if the content is damaged.
    """
    try:
        tensors = from_safetensors(content)
        about = json.loads(bytes(tensors.pop(_ABOUT).numpy()))
        _check_settings(about["settings"], settings, name)
        seen = _seen(about, tensors)
        _check_shapes(seen)
    except ConfigError:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as cause:
        raise InputError(
            f"{name} cannot be read as an interrupted run: {' '.join(str(cause).split())}\ndelete it to start anew"
        ) from cause
    return seen


def _seen(about: dict[str, Any], tensors: dict[str, Tensor]) -> Seen:
    first, facts = about.get("first"), about.get("facts")
    return Seen(
        batches=int(about["batches"]),
        images=int(about["images"]),
        unread=tuple((int(index), str(cause)) for index, cause in about["unread"]),
        moments={name: HeadMoments.from_state(_part(tensors, name)) for name in HEAD_MEASURES},
        rollout_sum=tensors["rollout_sum"],
        largest_error=float(about["largest_error"]),
        first=None if first is None else FirstImages(
            indices=tuple(map(int, first["indices"])),
            predictions=tuple(tuple((str(n), float(p)) for n, p in image) for image in first["predictions"]),
            **_part(tensors, "first"),
        ),
        facts=None if facts is None else ModelFacts(
            TokenLayout(**facts["layout"]), tuple(map(str, facts["notes"])), _part(tensors, "facts")
        ),
    )  # fmt: skip


def _part(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.partition(".")[2]: value for key, value in tensors.items() if key.partition(".")[0] == name}


def _check_settings(found: Settings, expected: Settings, name: str) -> None:
    different = sorted(key for key in {*found, *expected} if found.get(key) != expected.get(key))
    if different:
        raise ConfigError(
            f"{name} is of an interrupted run with other settings: {', '.join(different)}\n"
            "repeat that run to go on with it, delete the file to start anew, or write the results elsewhere"
        )


def _check_shapes(seen: Seen) -> None:
    """Raises ValueError unless all that was read fits together, so that nothing fails hours later."""
    if seen.first is None or seen.facts is None:
        if seen.images:
            raise ValueError("the first images are missing")
        return
    layout, first, shown = seen.facts.layout, seen.first, len(seen.first.indices)
    layers_and_heads = tuple(first.class_attention.shape[1:3])
    grid = (layout.rows, layout.columns)
    expected = [
        (seen.rollout_sum, grid, torch.float64),
        (first.inputs, (shown, *first.inputs.shape[1:4]), torch.float32),
        (first.rollout, (shown, *grid), torch.float32),
        (first.class_attention, (shown, *layers_and_heads, *grid), torch.float32),
    ]
    for name, kind in (("flow", torch.float32), ("flow_cut", torch.int8)):
        if name in first.tensors():
            expected.append((first.tensors()[name], (shown, *grid), kind))
    for moments in seen.moments.values():
        state = moments.state()
        expected += [(state[name], layers_and_heads, torch.float64) for name in ("mean", "squares")]
        expected.append((state["counts"], (*layers_and_heads, BINS), torch.int64))
        if int(state["images"]) != seen.images:
            raise ValueError("the numbers of images differ")
    for tensor, shape, kind in expected:
        if tuple(tensor.shape) != shape or tensor.dtype != kind:
            raise ValueError(f"a {tensor.dtype} tensor {tuple(tensor.shape)} should be {kind} {shape}")
    if first.inputs.ndim != 4 or len(first.predictions) not in (0, shown) or not set(seen.facts.tables) <= set(_TABLES):
        raise ValueError("the first images or the model's tables are not whole")
