"""A NumPy .npz file: a zip archive of arrays, each with a one-line header, as Google's checkpoints are.

Not read by numpy.load, which hands object arrays to pickle and inflates before it asks how much there is.

Source: NumPy Enhancement Proposal 1, and numpy/lib/format.py.
"""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

from vitreous.checkpoints.containers.contract import DTYPES, MOST_AXES, TensorFile, shown_name, why_not_a_name
from vitreous.checkpoints.containers.regular_file import RegularFile, as_bytes
from vitreous.checkpoints.containers.zips import DEFLATED, STORED, Member, check_crc, inflate, read_comment
from vitreous.errors import CheckpointError

SUFFIX = ".npy"
MOST_INFLATION = 20
"""How many times the file's size all arrays together may have, beyond 64 MiB. Weights shrink by a tenth."""

TYPES = {
    "f8": "float64",
    "f4": "float32",
    "f2": "float16",
    "V2": "bfloat16",  # NumPy has no bfloat16: JAX's arrays are saved as 2 raw bytes
    "i8": "int64",
    "i4": "int32",
    "i2": "int16",
    "i1": "int8",
    "u8": "uint64",
    "u4": "uint32",
    "u2": "uint16",
    "u1": "uint8",
    "b1": "bool",
    "c8": "complex64",
    "c16": "complex128",
}
"""NumPy's codes, without the order of bytes, and PyTorch's names."""

_FREE = 64 * 2**20  # bytes
_MAGIC = b"\x93NUMPY"
_LARGEST_HEADER = 4096
_HEADER = re.compile(
    r"\{\s*'descr':\s*'([<>=|]?)([A-Za-z]\d{0,3})',\s*'fortran_order':\s*(True|False),"
    r"\s*'shape':\s*\(([\d\sL,]*)\)\s*,?\s*\}\s*"
)
_AXIS = re.compile(r"\s*(\d{1,19})L?\s*")  # Python 2 wrote 3L


@dataclass(frozen=True)
class _Array:
    member: Member
    dtype: str
    shape: tuple[int, ...]
    header: bytes  # all before the numbers
    is_big_endian: bool
    is_fortran: bool


def read_npz(file: RegularFile, members: dict[str, Member]) -> TensorFile:
    """What is in an npz file.

    Args:
        file: the archive.
        members: of it, all ending in ".npy".

    Raises:
        CheckpointError: if an array cannot be read safely; the message names it.
    """
    _check_inflation(file, members)
    arrays = {name.removesuffix(SUFFIX): _read_header(file, member) for name, member in members.items()}
    for name in arrays:
        if wrong := why_not_a_name(name):
            raise file.refusal(f"it has {wrong}")

    def read(name: str) -> Tensor:
        return _read_array(file, arrays[name])

    return TensorFile(
        path=file.path,
        container="npz",
        shapes={name: array.shape for name, array in arrays.items()},
        dtypes={name: array.dtype for name, array in arrays.items()},
        extras={"comment": comment} if (comment := read_comment(file)) else {},
        read=read,
    )


def _check_inflation(file: RegularFile, members: dict[str, Member]) -> None:
    for member in members.values():
        if member.method not in (STORED, DEFLATED):
            raise file.refusal(
                f"its array {shown_name(member.name)} is compressed with method {member.method}, which is not deflate",
                "save it again with numpy.savez",
            )
    total, most = sum(member.size for member in members.values()), _FREE + MOST_INFLATION * file.size
    if total > most:
        raise file.refusal(
            f"its arrays would inflate from {file.size:,} to {total:,} bytes; {most:,} are the most",
            "if you trust it, save it again without compression: numpy.savez",
        )


def _read_header(file: RegularFile, member: Member) -> _Array:
    start = _first_bytes(file, member, 12 + _LARGEST_HEADER)
    label = shown_name(member.name)
    if start[:6] != _MAGIC or start[6:8] not in (b"\1\0", b"\2\0", b"\3\0"):
        raise _broken(file, f"{label} is no array")
    before = 10 if start[6] == 1 else 12
    length = int.from_bytes(start[8:before], "little")
    if length > _LARGEST_HEADER:
        raise _broken(file, f"{label} has a header of {length:,} bytes; {_LARGEST_HEADER:,} are the most")
    header = start[: before + length]
    array = _parse_header(file, member, header, before)
    need = len(header) + math.prod(array.shape) * DTYPES[array.dtype].itemsize
    if need != member.size:
        raise _broken(
            file, f"{label} has shape {array.shape} of {array.dtype}: {need:,} bytes, but {member.size:,} are there"
        )
    return array


def _parse_header(file: RegularFile, member: Member, header: bytes, before: int) -> _Array:
    label, text = shown_name(member.name), header[before:].decode("latin-1")
    match = _HEADER.fullmatch(text)
    if match is None:
        raise _broken(file, f"{label} has the header {shown_name(text.strip())}; only plain arrays are read")
    order, code, fortran, shape = match.groups()
    if code.startswith("O"):
        raise file.refusal(
            f"its array {label} holds Python objects, which are a pickle and can run code",
            "save it again with arrays of numbers only, where it comes from",
        )
    if code not in TYPES or (code == "V2" and order == ">"):
        raise _broken(file, f"{label} has type {order}{code}; known are {', '.join(TYPES)}")
    axes = [_AXIS.fullmatch(axis) for axis in shape.split(",") if axis.strip()]
    if len(axes) > MOST_AXES or None in axes:
        raise _broken(file, f"{label} has shape ({shown_name(shape)}); up to {MOST_AXES} whole numbers are expected")
    sizes = tuple(int(axis[1]) for axis in axes if axis)
    return _Array(member, TYPES[code], sizes, header, order == ">", fortran == "True")


def _first_bytes(file: RegularFile, member: Member, length: int) -> bytes:
    length = min(length, member.size)
    if member.method == STORED:
        return file.read(member.start, length)
    found = bytearray()

    def take(piece: bytes) -> bool:
        found.extend(piece[: length - len(found)])
        return len(found) < length

    inflate(file, member, take)
    return bytes(found)


def _read_array(file: RegularFile, array: _Array) -> Tensor:
    shape = array.shape[::-1] if array.is_fortran else array.shape
    tensor = file.room(shape, "uint8" if array.dtype == "bool" else array.dtype)
    if array.member.method == STORED:
        _fill_stored(file, array, as_bytes(tensor))
    else:
        _fill_inflated(file, array, as_bytes(tensor))
    if array.is_big_endian:
        _swap_bytes(tensor)
    if array.dtype == "bool":
        tensor = tensor.ne(0)  # a file may hold other bytes than 0 and 1
    return tensor.permute(*reversed(range(tensor.ndim))).contiguous() if array.is_fortran else tensor


def _fill_stored(file: RegularFile, array: _Array, room: memoryview) -> None:
    file.fill(room, array.member.start + len(array.header))
    check_crc(file, array.member, zlib.crc32(room, zlib.crc32(array.header)))


def _fill_inflated(file: RegularFile, array: _Array, room: memoryview) -> None:
    place = -len(array.header)

    def take(piece: bytes) -> bool:
        nonlocal place
        numbers = memoryview(piece)[max(0, -place) :]
        room[max(0, place) : max(0, place) + len(numbers)] = numbers
        place += len(piece)
        return True

    inflate(file, array.member, take)


def _swap_bytes(tensor: Tensor) -> None:
    parts = 2 if tensor.is_complex() else 1
    size = tensor.element_size() // parts
    tensor.reshape(-1).view(torch.uint8).numpy().view(f"u{size}").byteswap(inplace=True)


def _broken(file: RegularFile, cause: str) -> CheckpointError:
    return file.refusal(f"not a whole npz file: {cause}")
