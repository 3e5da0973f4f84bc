"""What torch.save and torch.jit.save write since 2020: a zip archive with a pickle and one member for each storage.

Of a TorchScript archive only the values are read; the code that it brings stays unread.

Source: torch/serialization.py and torch/csrc/jit/docs/serialization.md of PyTorch 2.13.
"""

from __future__ import annotations

from vitreous.checkpoints.containers.contract import TensorFile, shown_name
from vitreous.checkpoints.containers.pickle_globals import Refused, Storage
from vitreous.checkpoints.containers.pickle_machine import LARGEST_PICKLE, run_pickle
from vitreous.checkpoints.containers.regular_file import RegularFile
from vitreous.checkpoints.containers.torch_tensors import Place, as_tensor_file, refuse_pickle, storages_by_key
from vitreous.checkpoints.containers.zips import Member, check_stored, read_stored

PICKLE = "data.pkl"


def read_torch_zip(file: RegularFile, members: dict[str, Member]) -> TensorFile:
    """What is in a zip archive of PyTorch.

    Args:
        file: the archive.
        members: of it; one of them is data.pkl, at the top or in a folder.

    Raises:
        CheckpointError: if its pickle asks for anything but tensors and plain data, or promises what is not there.
    """
    prefix = _find_prefix(file, members)
    pickle = members[prefix + PICKLE]
    if pickle.size > LARGEST_PICKLE:
        raise file.refusal(f"its pickle has {pickle.size:,} bytes without the weights; {LARGEST_PICKLE:,} are the most")
    _check_byte_order(file, members.get(prefix + "byteorder"))

    def find(storage: Storage) -> Place:
        member = members.get(f"{prefix}data/{storage.key}")
        if member is None:
            raise Refused(f"its storage {shown_name(storage.key)} is missing")
        check_stored(file, member)
        return Place(member.start, member.size, member)

    is_script = prefix + "constants.pkl" in members
    try:
        root, end = run_pickle(read_stored(file, pickle), persistent=storages_by_key())
        if end != pickle.size:
            raise Refused("something stands behind its pickle")
        return as_tensor_file(file, "torchscript" if is_script else "torch", root, find)
    except Refused as cause:
        raise refuse_pickle(file, cause) from cause


def _find_prefix(file: RegularFile, members: dict[str, Member]) -> str:
    found = [name for name in members if name == PICKLE or name.endswith("/" + PICKLE)]
    if len(found) > 1:
        raise file.refusal(f"it has {len(found)} members {PICKLE}: which one counts depends on who reads it")
    return found[0].removesuffix(PICKLE)


def _check_byte_order(file: RegularFile, member: Member | None) -> None:
    if member and (member.size > 16 or read_stored(file, member) != b"little"):
        raise file.refusal(
            "its numbers are not little-endian", "save it again on the machine it comes from as safetensors"
        )
