"""A safetensors file: the length of a JSON header, the header, and the tensors' bytes without a gap.

Read here and not by the safetensors library, which takes duplicate names and any number of entries, and names neither
the file nor the entry that is wrong.

Source: the format's own description, github.com/huggingface/safetensors, README.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from typing import Any

from torch import Tensor

from vitreous.checkpoints.containers.contract import (
    DTYPES,
    MOST_AXES,
    MOST_TENSORS,
    TensorFile,
    shown_name,
    why_not_a_name,
)
from vitreous.checkpoints.containers.json_object import parse_object
from vitreous.checkpoints.containers.regular_file import RegularFile, as_bytes
from vitreous.errors import CheckpointError

LARGEST_HEADER = 4 * 2**20
"""Bytes; a model of 7 billion weights has a header of 100 kB. As JSON it takes up to 25 times as much memory."""

CODES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}
"""Names of types in the header, and PyTorch's."""

_NARROW_FIRST = (
    *("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "C64"),
    *("F64", "I64", "U64"),
)
_CODE_OF = {DTYPES[name]: code for code, name in CODES.items()}

_LENGTH = 8  # bytes of the number that the file begins with
_METADATA = "__metadata__"
_LARGEST_NUMBER = 2**62


@dataclass(frozen=True)
class _Entry:
    dtype: str
    shape: tuple[int, ...]
    start: int  # in the file
    end: int


def read_safetensors(file: RegularFile) -> TensorFile:
    """What is in a safetensors file.

    Raises:
        CheckpointError: if it is not one, or not a whole one; the message names the entry.
    """
    header, data_start = _read_header(file)
    metadata = _check_metadata(file, header.pop(_METADATA, {}))
    if len(header) > MOST_TENSORS:
        raise _broken(file, f"its header has {len(header):,} entries; {MOST_TENSORS:,} are the most")
    entries = {name: _check_entry(file, name, entry, data_start) for name, entry in header.items()}
    _check_layout(file, entries, data_start)

    def read(name: str) -> Tensor:
        entry = entries[name]
        if entry.dtype != "bool":
            return file.tensor(entry.shape, entry.dtype, entry.start)
        return file.tensor(entry.shape, "uint8", entry.start).ne(0)  # a file may hold other bytes than 0 and 1

    return TensorFile(
        path=file.path,
        container="safetensors",
        shapes={name: entry.shape for name, entry in entries.items()},
        dtypes={name: entry.dtype for name, entry in entries.items()},
        extras=metadata,
        read=read,
    )


def in_file_order(tensors: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """Tensors as the safetensors library lays them out: wide numbers first, so that each is aligned, then by name."""
    return sorted(tensors.items(), key=lambda item: (-_NARROW_FIRST.index(_CODE_OF[item[1].dtype]), item[0]))


def safetensors_pieces(
    tensors: Iterable[tuple[str, Tensor]], metadata: Mapping[str, str] | None = None
) -> Iterator[bytes | memoryview]:
    """The bytes of a file of these tensors, in this order, one tensor at a time: there is never a second copy of all.

    With tensors in `in_file_order` they are the bytes that the safetensors library writes.
    """
    laid_out = list(tensors)
    header: dict[str, Any] = {} if metadata is None else {_METADATA: dict(metadata)}
    reached = 0
    for name, tensor in laid_out:
        end = reached + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _CODE_OF[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [reached, end]}
        reached = end
    encoded = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % _LENGTH)
    yield len(encoded).to_bytes(_LENGTH, "little") + encoded
    for _, tensor in laid_out:
        yield as_bytes(tensor.detach().cpu().contiguous())


def write_all(file: FileIO, piece: bytes | memoryview) -> None:
    """Writes all of it: a system call may take a part, and takes 2 GiB at most."""
    rest = memoryview(piece)
    while len(rest):
        rest = rest[file.write(rest) :]


def _read_header(file: RegularFile) -> tuple[dict[str, Any], int]:
    if file.size < _LENGTH + 2:
        raise _broken(file, f"it has only {file.size} bytes")
    length = int.from_bytes(file.read(0, _LENGTH), "little")
    if length > file.size - _LENGTH:
        raise _broken(file, f"byte 0: the header is said to have {length:,} bytes, the file has {file.size:,}")
    if not 2 <= length <= LARGEST_HEADER:
        raise _broken(file, f"byte 0: the header is said to have {length:,} bytes; 2 to {LARGEST_HEADER:,} are read")
    try:
        return parse_object(file.read(_LENGTH, length)), _LENGTH + length
    except ValueError as cause:
        raise _broken(file, f"its header {cause}") from cause


def _check_metadata(file: RegularFile, metadata: object) -> dict[str, Any]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _broken(file, f"{_METADATA} must be an object of texts")
    return metadata


def _check_entry(file: RegularFile, name: str, entry: object, data_start: int) -> _Entry:
    if wrong := why_not_a_name(name):
        raise _broken(file, f"its header has {wrong}")
    label = shown_name(name)
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _broken(file, f"{label} must be an object of dtype, shape and data_offsets")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in CODES:
        raise _broken(file, f"{label} has dtype {shown_name(repr(code))}; known are {', '.join(CODES)}")
    if not _are_counts(shape) or len(shape) > MOST_AXES:
        raise _broken(
            file, f"{label} has shape {shown_name(repr(shape))}; up to {MOST_AXES} whole numbers are expected"
        )
    if not _are_counts(offsets) or len(offsets) != 2:
        raise _broken(file, f"{label} has data_offsets {shown_name(repr(offsets))}; two whole numbers are expected")
    need = math.prod(shape) * DTYPES[CODES[code]].itemsize
    start, end = offsets
    if end - start != need:
        raise _broken(file, f"{label} has shape {tuple(shape)} of {code}, which is {need:,} bytes, in {end - start:,}")
    if data_start + end > file.size:
        raise _broken(file, f"{label} ends at byte {data_start + end:,}, the file at {file.size:,}")
    return _Entry(CODES[code], tuple(shape), data_start + start, data_start + end)


def _check_layout(file: RegularFile, entries: dict[str, _Entry], data_start: int) -> None:
    """The tensors must stand one behind the other from the header to the end of the file."""
    reached = data_start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != reached:
            what = "overlaps the one before" if entry.start < reached else "leaves a gap before it"
            raise _broken(file, f"{shown_name(name)} starts at byte {entry.start:,}, not at {reached:,}: it {what}")
        reached = entry.end
    if reached != file.size:
        raise _broken(file, f"its last tensor ends at byte {reached:,}, the file at {file.size:,}")


def _are_counts(numbers: object) -> bool:
    return isinstance(numbers, list) and all(
        type(number) is int and 0 <= number < _LARGEST_NUMBER for number in numbers
    )


def _broken(file: RegularFile, cause: str) -> CheckpointError:
    return file.refusal(f"not a whole safetensors file: {cause}")
