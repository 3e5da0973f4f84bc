"""A model in several files, and the index that says which tensor is in which.

Source: transformers' `save_pretrained`, which writes model.safetensors.index.json.
"""

from __future__ import annotations

import re

from torch import Tensor

from vitreous.checkpoints.containers.contract import TensorFile, shown_name
from vitreous.checkpoints.containers.json_object import parse_object
from vitreous.checkpoints.containers.regular_file import RegularFile
from vitreous.errors import CheckpointError

LARGEST_INDEX = 4 * 2**20  # bytes
MOST_SHARDS = 256

_PLAIN_NAME = re.compile(r"\w[\w.-]{0,200}", re.ASCII)  # of a file in the index's own folder


def read_index(file: RegularFile) -> dict[str, str]:
    """The file of each tensor, by the tensor's name; only names of files in the index's own folder.

    Args:
        file: JSON with a `weight_map`.

    Raises:
        CheckpointError: if it is something else, or leads elsewhere.
    """
    if file.size > LARGEST_INDEX:
        raise file.refusal(f"an index of {file.size:,} bytes; {LARGEST_INDEX:,} are the most")
    try:
        places = parse_object(file.read(0, file.size)).get("weight_map")
    except ValueError as cause:
        raise file.refusal(f"the index {cause}") from cause
    if not isinstance(places, dict) or not places or not all(isinstance(place, str) for place in places.values()):
        raise file.refusal("it has no weight_map, an object that names the file of each tensor")
    for name, place in places.items():
        if not _PLAIN_NAME.fullmatch(place):
            raise file.refusal(
                f"it says that {shown_name(name)} is in {shown_name(place)}, which is no file in the same folder",
                "do not use it: an index names files beside it, and nothing else is opened",
            )
    if len(set(places.values())) > MOST_SHARDS:
        raise file.refusal(f"it names {len(set(places.values())):,} files; {MOST_SHARDS} are the most")
    return places


def join(file: RegularFile, places: dict[str, str], shards: dict[str, TensorFile]) -> TensorFile:
    """The open files of an index as if they were one.

    Args:
        file: the index.
        places: what `read_index` found.
        shards: each file that is named there.

    Raises:
        CheckpointError: if a file has other tensors than the index says.
    """
    _check_places(file, places, shards)

    def read(name: str) -> Tensor:
        return shards[places[name]].read(name)

    return TensorFile(
        path=file.path,
        container=next(iter(shards.values())).container,
        shapes={name: shards[place].shapes[name] for name, place in places.items()},
        dtypes={name: shards[place].dtypes[name] for name, place in places.items()},
        extras={name: value for shard in shards.values() for name, value in shard.extras.items()},
        read=read,
    )


def _check_places(file: RegularFile, places: dict[str, str], shards: dict[str, TensorFile]) -> None:
    """Each tensor must be in the file that the index names, and in no other."""
    for name, place in places.items():
        if name not in shards[place].shapes:
            raise _differs(file, f"{shown_name(name)} is not in {place}, where the index has it")
    for shard, opened in shards.items():
        for name in opened.shapes:
            if places.get(name) != shard:
                raise _differs(file, f"{shown_name(name)} is in {shard}, where the index does not have it")


def _differs(file: RegularFile, cause: str) -> CheckpointError:
    return file.refusal(cause, "copy or download all files again, from one place")
