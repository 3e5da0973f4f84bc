"""What torch.save wrote before 2020, and still does when told: five pickles, then the storages' bytes.

Source: `_legacy_save` and `_legacy_load` in torch/serialization.py of PyTorch 2.13.
"""

from __future__ import annotations

from typing import Any

from vitreous.checkpoints.containers.contract import DTYPES, TensorFile, shown_name
from vitreous.checkpoints.containers.pickle_globals import Refused, Storage
from vitreous.checkpoints.containers.pickle_machine import LARGEST_PICKLE, run_pickle
from vitreous.checkpoints.containers.regular_file import RegularFile
from vitreous.checkpoints.containers.torch_tensors import Place, as_tensor_file, refuse_pickle, storages_by_key

MAGIC = 0x1950A86A20F9469CFC6C
"""The first of the pickles is this number."""

_PROTOCOL = 1001
_COUNT = 8  # bytes of the number before each storage


def read_torch_legacy(file: RegularFile) -> TensorFile:
    """What is in a file that begins with a pickle.

    Raises:
        CheckpointError: if it is another pickle than PyTorch's, or asks for anything but tensors and plain data.
    """
    data = file.read(0, min(file.size, LARGEST_PICKLE))
    try:
        root, keys, start, storages = _run_pickles(data)
        places = _walk(file, keys, start, storages)

        def find(storage: Storage) -> Place:
            if storage.key not in places:
                raise Refused(f"its storage {shown_name(storage.key)} is missing")
            return places[storage.key]

        return as_tensor_file(file, "torch", root, find)
    except Refused as cause:
        raise refuse_pickle(file, cause) from cause


def _run_pickles(data: bytes) -> tuple[Any, list[str], int, dict[str, Storage]]:
    """The object, the keys of its storages in the order of the file, where they begin, and what is said of them."""
    magic, place = run_pickle(data)
    if magic != MAGIC:
        raise Refused("it is a plain pickle, not one that torch.save wrote, and no tensor is in it")
    protocol, place = run_pickle(data, place)
    system, place = run_pickle(data, place)
    if protocol != _PROTOCOL or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise Refused("it was written by another version of torch.save, or its numbers are not little-endian")
    storages: dict[str, Storage] = {}
    make = storages_by_key()

    def remember(claim: Any) -> Storage:
        made = make(claim)
        assert isinstance(made, Storage)
        return storages.setdefault(made.key, made)

    root, place = run_pickle(data, place, remember)
    keys, place = run_pickle(data, place)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Refused("its list of storages is damaged")
    return root, keys, place, storages


def _walk(file: RegularFile, keys: list[str], start: int, storages: dict[str, Storage]) -> dict[str, Place]:
    """Where each storage is; they must fill the rest of the file."""
    places: dict[str, Place] = {}
    for key in keys:
        storage = storages.get(key)
        if storage is None or key in places:
            raise Refused(f"its list of storages has {shown_name(key)}, which is in it twice or belongs to no tensor")
        if start + _COUNT > file.size:
            raise Refused(f"it ends before its storage {shown_name(key)}")
        numel = int.from_bytes(file.read(start, _COUNT), "little", signed=True)
        size = numel * DTYPES[storage.dtype].itemsize
        if not 0 <= size <= file.size - start - _COUNT:
            raise Refused(f"its storage {shown_name(key)} is said to have {numel:,} numbers, more than the file")
        places[key] = Place(start + _COUNT, size)
        start += _COUNT + size
    if start != file.size:
        raise Refused(f"its last storage ends at byte {start:,}, the file at {file.size:,}")
    return places
