"""What an interrupted run goes on from: all of its tensors and numbers after some step, in one file with a checksum.

A file is a safetensors file that any reader of the format opens. Its last two tensors are bytes: `about`, the numbers
as JSON, and `sha256`, the checksum of everything before it.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitreous.atomic import file_written_atomically, remove_unfinished
from vitreous.checkpoints.containers.regular_file import RegularFile, as_bytes, open_regular
from vitreous.checkpoints.containers.safetensors import (
    in_file_order,
    read_safetensors,
    safetensors_pieces,
    write_all,
)
from vitreous.errors import CheckpointError, InputError, OutputError
from vitreous.training.changes import (
    FREE,
    ROUNDING,
    change,
    changed_names,
    changed_parts,
    differences,
    is_census,
    listed,
)

NAME = "step-{:09d}.safetensors"

_ABOUT, _CHECKSUM = "about", "sha256"  # JSON as bytes: a safetensors header is limited, a list of unread images is not
_CHECKSUM_BYTES = 32
_CHUNK = 2**22
_REMEDY = "delete the folder to start anew"


@dataclass(frozen=True)
class State:
    """A run after some step.

    Attributes:
        step: of the optimizer, over the whole run; 0 before the first.
        tensors: on the CPU, each in memory of its own.
        meta: plain data: what the run is, for `check_same_run`, and where it is.
        remarks: a sentence for each newer state that is damaged and was passed over, with its name.
    """

    step: int
    tensors: dict[str, Tensor]
    meta: dict[str, Any]
    remarks: tuple[str, ...] = ()


def write_state(
    folder: Path, step: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], *, keep: int = 2
) -> None:
    """Adds a state to the folder, whole or not at all, and removes all but the last few.

    States of later steps go, too: a run that is at this step was there once more, because they are damaged. So does
    what a killed run left half written. One process writes to a folder at a time.

    Args:
        folder: `states/` of a run; made if there is none.
        step: of the optimizer, over the whole run.
        tensors: by name, of any type and on any device; not changed. `about` and `sha256` are no names for them.
        meta: plain data.
        keep: how many of the latest states stay, this one among them.

    Raises:
        OutputError: if the state cannot be written; those before it stay.
    """
    remove_unfinished(folder)
    about = torch.frombuffer(bytearray(json.dumps({**meta, "step": step}).encode()), dtype=torch.uint8)
    digest, checksum = hashlib.sha256(), bytearray(_CHECKSUM_BYTES)
    last = {_ABOUT: about, _CHECKSUM: torch.frombuffer(checksum, dtype=torch.uint8)}
    pieces = safetensors_pieces([*in_file_order(tensors), *last.items()])
    with (
        _room_is_named(tensors, keep),
        file_written_atomically(folder / NAME.format(step)) as filling,
        filling.open("wb", buffering=0) as file,
    ):
        for piece in pieces:
            write_all(file, piece)
            digest.update(piece)
            checksum[:] = digest.digest()  # of all before the next piece: right when its own turn comes
    earlier = [path for path in _newest_first(folder) if _step_of(path) <= step]
    for path in _newest_first(folder):
        if path not in earlier[:keep]:
            with suppress(OSError):  # what cannot be removed only takes room, and is tried again at the next state
                path.unlink()


def newest_state(folder: Path) -> State | None:
    """The latest state that is whole, or None where no state was ever written.

    Raises:
        CheckpointError: if there are states and all of them are damaged.
    """
    remarks: list[str] = []
    for path in _newest_first(folder):
        try:
            state = read_state(path)
        except (CheckpointError, InputError) as damage:
            remarks.append(str(damage).splitlines()[0])
            continue
        return State(state.step, state.tensors, state.meta, tuple(remarks))
    if remarks:
        raise CheckpointError(f"no state of the run can be read: {remarks[0]}\n{_REMEDY}")
    return None


def has_states(folder: Path) -> bool:
    """Whether a state was ever written there, damaged or not."""
    return bool(_newest_first(folder))


def bytes_of_states(folder: Path) -> int:
    """How much room the states there take, damaged ones too."""
    return sum(path.stat().st_size for path in _newest_first(folder))


def read_state(path: Path) -> State:
    """What `write_state` wrote.

    Raises:
        InputError: if the file is missing or empty.
        CheckpointError: if a single bit of it is not as it was written.
    """
    with open_regular(path) as file:
        _check_whole(file)
        content = read_safetensors(file)
        tensors = {name: content.read(name) for name in content.shapes}
    try:
        del tensors[_CHECKSUM]
        meta = json.loads(bytes(as_bytes(tensors.pop(_ABOUT))))
        return State(int(meta.pop("step")), tensors, meta)
    except (KeyError, TypeError, ValueError, AttributeError) as cause:  # whole, but none of ours
        raise file.refusal("it is no state of a run", _REMEDY) from cause


def check_same_run(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """How the machine differs from the one that a state was written on; an empty list if the bits will be the same.

    Both are plain data with the same names:

        config        the settings, as `settings_file.plain` makes them
        data          what each part's census says, by part; fingerprints alone in states of earlier versions
        class_names   a list
        anything else, such as versions, threads, world, device: may change, and is remarked on

    Settings that cannot change a bit (`keep`, `workers`) may be others, and those that change only how numbers are
    rounded, or what dropout draws, are remarked on (see `ROUNDING`).

    Returns:
        A sentence for each change, such as `threads 1 -> 2`; without dropout the run's numbers are then equal but for
        rounding.

    Raises:
        CheckpointError: if the state is of another run: settings, data or classes differ. The message shows how.
    """
    data = before.get("data", {})
    refused = changed_parts(data, now.get("data", {}))
    classes = before.get("class_names", ()), now.get("class_names", ())
    if classes[0] != classes[1] and not all(map(is_census, data.values())):  # else the parts have told it
        refused.append(f"classes: {changed_names(*classes, ('then', 'now'))}")
    remarks: list[str] = []
    for name, was, is_now in differences(_others(before), _others(now)):
        top, _, below = name.partition(".")
        setting = below.partition(".")[0].partition("[")[0]
        if top == "config" and setting in FREE:
            continue
        label = below if top in ("config", "versions") else name
        is_refused = top == "config" and setting not in ROUNDING
        (refused if is_refused else remarks).append(change(label or name, was, is_now))
    if refused:
        raise CheckpointError(
            f"the states in this folder are of another run: {listed(refused)}\n"
            "bring back its settings and data to go on with it, choose another folder, or delete this one to start anew"
        )
    return remarks


@contextmanager
def _room_is_named(tensors: Mapping[str, Tensor], keep: int) -> Iterator[None]:
    """On a full disk the refusal also says how much a state takes, and what takes less."""
    try:
        yield
    except OutputError as error:
        if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        needed = sum(tensor.nbytes for tensor in tensors.values())
        raise OutputError(
            f"{error}\na state takes {needed / 2**20:,.1f} MiB, and there are {keep + 1} while one is written\n"
            "delete models in checkpoints/ or lower keep.states; the same command then goes on from the state before"
        ) from error.__cause__


def _others(meta: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in meta.items() if name not in ("data", "class_names")}


def _check_whole(file: RegularFile) -> None:
    """The checksum is right.

    Raises:
        CheckpointError: if it is not.
    """
    digest, rest = hashlib.sha256(), max(file.size - _CHECKSUM_BYTES, 0)
    room = memoryview(bytearray(min(_CHUNK, rest)))
    for start in range(0, rest, _CHUNK):
        part = room[: min(_CHUNK, rest - start)]
        file.fill(part, start)
        digest.update(part)
    if file.read(rest, file.size - rest) != digest.digest():
        raise file.refusal("its checksum is wrong: it is damaged or cut", _REMEDY)


def _newest_first(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("step-*.safetensors") if _step_of(path) >= 0]
    return sorted(found, key=_step_of, reverse=True)


def _step_of(path: Path) -> int:
    number = path.stem.partition("-")[2]
    return int(number) if number.isdecimal() else -1
