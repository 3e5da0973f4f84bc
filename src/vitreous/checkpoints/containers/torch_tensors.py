"""From the views in a pickle to tensors: each checked against the bytes that the file really has."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vitreous.checkpoints.containers.contract import DTYPES, Container, TensorFile, shown_name
from vitreous.checkpoints.containers.flattening import flatten
from vitreous.checkpoints.containers.pickle_globals import NumberType, Refused, Storage, View, as_count
from vitreous.checkpoints.containers.pickle_machine import Persistent
from vitreous.checkpoints.containers.regular_file import RegularFile, as_bytes
from vitreous.checkpoints.containers.zips import Member, check_crc, crc_of
from vitreous.errors import CheckpointError

REMEDY = (
    "if you trust it, load it with the code that made it, and save what counts without pickle: "
    'safetensors.torch.save_file(model.state_dict(), "model.safetensors")'
)

MOST_SHARING = 8
"""How many times larger than its storages all tensors together may be. Weights that are shared are read once a name."""


@dataclass(frozen=True)
class Place:
    """Where the numbers of a storage are.

    Attributes:
        start: in the file.
        size: in bytes.
        member: of a zip archive, with its checksum; None in a file without.
    """

    start: int
    size: int
    member: Member | None = None


Find = Callable[[Storage], Place]


def refuse_pickle(file: RegularFile, cause: Refused) -> CheckpointError:
    """The error for a pickle that asks for too much; it has not been obeyed."""
    return file.refusal(str(cause), REMEDY)


def storages_by_key() -> Persistent:
    """For `run_pickle`: makes the storages that a pickle refers to, one for each key."""
    known: dict[str, Storage] = {}

    def storage(claim: Any) -> Storage:
        kind, number_type, key, _, numel, *view = claim  # the device it was on does not matter
        if kind != "storage" or not isinstance(number_type, NumberType) or not isinstance(key, str) or any(view):
            raise Refused("its pickle refers to something that is no storage")
        made = Storage(key, number_type.dtype, as_count(numel))
        before = known.setdefault(key, made)
        if (before.dtype, before.numel) != (made.dtype, made.numel):
            raise Refused(f"its pickle describes the storage {shown_name(key)} in two ways")
        return before

    return storage


def as_tensor_file(file: RegularFile, container: Container, root: object, find: Find) -> TensorFile:
    """What a pickle described, as tensors to be read from the file.

    Args:
        file: has the storages.
        container: what it is.
        root: what the pickle described.
        find: where a storage is; raises Refused if the file has it not.

    Raises:
        Refused: if a tensor does not fit its storage, or a storage its place.
    """
    flat = flatten(root)
    places: dict[Storage, Place] = {}
    for name, view in flat.tensors.items():
        if view.storage not in places:
            places[view.storage] = _checked_place(view.storage, find(view.storage))
        _check_view(name, view)
    _check_sharing(flat.tensors, places)
    verified: set[Storage] = set()

    def read(name: str) -> Tensor:
        view = flat.tensors[name]
        place = places[view.storage]
        if view.extent * DTYPES[view.dtype].itemsize != place.size and view.storage not in verified:
            _verify(file, place)
            verified.add(view.storage)
        return _read_view(file, view, place, view.storage in verified)

    return TensorFile(
        path=file.path,
        container=container,
        shapes={name: view.shape for name, view in flat.tensors.items()},
        dtypes={name: view.dtype for name, view in flat.tensors.items()},
        extras=flat.extras,
        read=read,
    )


def _checked_place(storage: Storage, place: Place) -> Place:
    if storage.size != place.size:
        raise Refused(
            f"its storage {shown_name(storage.key)} is said to have {storage.numel:,} numbers of {storage.dtype}, "
            f"which is {storage.size:,} bytes; {place.size:,} are there"
        )
    return place


def _check_view(name: str, view: View) -> None:
    label, have = shown_name(name), view.storage.size // DTYPES[view.dtype].itemsize
    if len(view.shape) != len(view.stride):
        raise Refused(f"{label} has {len(view.shape)} axes and {len(view.stride)} strides")
    if view.numel > have:
        raise Refused(f"{label} has shape {view.shape}, but its storage only {have:,} numbers")
    if view.numel and view.offset + view.extent > have:
        raise Refused(f"{label} reaches number {view.offset + view.extent:,} of its storage, which has {have:,}")


def _check_sharing(tensors: dict[str, View], places: dict[Storage, Place]) -> None:
    total = sum(view.numel * DTYPES[view.dtype].itemsize for view in tensors.values())
    there = sum(place.size for place in places.values())
    if total > MOST_SHARING * there:
        raise Refused(f"its tensors would take {total:,} bytes, its storages have {there:,}: too many share one")


def _verify(file: RegularFile, place: Place) -> None:
    if place.member:
        check_crc(file, place.member, crc_of(file, place.start, place.size))


def _read_view(file: RegularFile, view: View, place: Place, is_verified: bool) -> Tensor:
    """The numbers from the first to the last that the view needs, put into its order."""
    dtype = "uint8" if view.dtype == "bool" else view.dtype
    if not view.numel:
        return file.room(view.shape, view.dtype)
    tensor = file.tensor((view.extent,), dtype, place.start + view.offset * DTYPES[dtype].itemsize)
    if place.member and not is_verified:
        check_crc(file, place.member, zlib.crc32(as_bytes(tensor)))
    ordered = tensor.as_strided(view.shape, view.stride).contiguous()
    return ordered.ne(0) if view.dtype == "bool" else ordered  # a file may hold other bytes than 0 and 1
