"""Opens any tensor file: safetensors, npz, and what torch.save or torch.jit.save wrote. The content decides which."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vitreous.checkpoints.containers.contract import Shapes, TensorFile
from vitreous.checkpoints.containers.foreign import name_of_foreign
from vitreous.checkpoints.containers.npz import SUFFIX, read_npz
from vitreous.checkpoints.containers.regular_file import REMEDY, RegularFile, open_regular
from vitreous.checkpoints.containers.safetensors import read_safetensors
from vitreous.checkpoints.containers.sharded import join, read_index
from vitreous.checkpoints.containers.torch_legacy import read_torch_legacy
from vitreous.checkpoints.containers.torch_zip import PICKLE, read_torch_zip
from vitreous.checkpoints.containers.zips import read_members
from vitreous.errors import InputError

__all__ = ["Shapes", "TensorFile", "open_sharded", "open_tensors"]

_START = 512  # bytes
_KINDS = "safetensors, npz, and what torch.save writes"


@contextmanager
def open_tensors(path: Path) -> Iterator[TensorFile]:
    """What is in a tensor file, of which single tensors can be read while the context lasts.

    Nothing in the file is run, and no memory is taken for a tensor before it is read.

    Args:
        path: of a file; its name's ending does not matter.

    Raises:
        InputError: if the file is missing, empty, or not a regular one.
        CheckpointError: if it is damaged, asks for code to be run, or is no tensor file.
    """
    with open_regular(path) as file:
        yield _read(file)


@contextmanager
def open_sharded(index: Path) -> Iterator[TensorFile]:
    """What is in the files of an index, as if they were one; no file is opened outside of the index's folder.

    Args:
        index: a model.safetensors.index.json.

    Raises:
        InputError: if the index is missing, empty, or not a regular file.
        CheckpointError: if the index is damaged, if a file of it is missing or damaged, or has other tensors than
            the index says.
    """
    with ExitStack() as stack:
        file = stack.enter_context(open_regular(index))
        places = read_index(file)
        shards = {name: _open_shard(file, name, stack) for name in sorted(set(places.values()))}
        yield join(file, places, shards)


def _open_shard(file: RegularFile, name: str, stack: ExitStack) -> TensorFile:
    try:
        return stack.enter_context(open_tensors(file.path.parent / name))
    except InputError as cause:
        raise file.refusal(f"one of its files: {cause}", "put all files of the model beside the index") from cause


def _read(file: RegularFile) -> TensorFile:
    start = file.read(0, min(file.size, _START))
    if start.startswith(b"PK\3\4"):
        return _read_zip(file)
    if start[:1] == b"\x80" and start[1:2] in b"\0\1\2\3\4\5" and start[8:9] != b"{":
        return read_torch_legacy(file)
    if start[8:9] == b"{":
        return read_safetensors(file)
    if foreign := name_of_foreign(start):
        what, _, remedy = foreign.partition("; ")
        raise file.refusal(f"it is {what}; readable are {_KINDS}", remedy)
    if file.path.suffix == ".safetensors":
        return read_safetensors(file)  # says what is wrong with it
    raise file.refusal(f"its first bytes are of no file that is known; readable are {_KINDS}", REMEDY)


def _read_zip(file: RegularFile) -> TensorFile:
    members = read_members(file)
    if any(name == PICKLE or name.endswith("/" + PICKLE) for name in members):
        return read_torch_zip(file, members)
    if members and all(name.endswith(SUFFIX) for name in members):
        return read_npz(file, members)
    raise file.refusal(
        f"it is a zip archive, but not of arrays and not of torch.save; readable are {_KINDS}",
        "unpack it, and give the path of the model in it",
    )
