"""Weights files that lie, explode or run code, made on the fly: every one must be refused, or read without harm.

Rows, as counted in docs/checkpoints.md:

    C1   safetensors whose container is broken      C8   pickles that take memory or time
    C2   names that attack who prints or uses them  C9   an index of several files that leads astray
    C5   npz that lies, explodes or runs code       C10  something else than the ending says
    C6   pickles that run code                      C12  traps of the file system
    C7   pickles whose tensors do not fit

A payload of C5 or C6 leaves a marker beside its file when it is run.
"""

from __future__ import annotations

import io
import json
import os
import random
import runpy
import struct
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as to_safetensors

_PICKLES = runpy.run_path(str(Path(__file__).with_name("bad_pickles.py")))
BadFile, archive, member, deflated_zeros = (
    _PICKLES[name] for name in ("BadFile", "archive", "member", "deflated_zeros")
)
file, payload, touch, mutated = (_PICKLES[name] for name in ("file", "payload", "touch", "mutated"))
program, text, view, torch_archive = (_PICKLES[name] for name in ("program", "text", "view", "torch_archive"))
payload_files, view_files, bombs, pickle_mutations = (
    _PICKLES[name] for name in ("payload_files", "view_files", "bombs", "pickle_mutations")
)

MIB = 2**20


@cache
def bad_files() -> tuple[BadFile, ...]:
    """All of them, in the order of the rows."""
    rows = (
        _safetensors_containers,
        _safetensors_mutations,
        _names,
        _npz_files,
        payload_files,
        view_files,
        bombs,
        pickle_mutations,
        _indexes,
        _other_files,
        _traps,
    )
    return tuple(bad for row in rows for bad in row())


def counts() -> dict[str, int]:
    """How many there are of each row."""
    return dict(Counter(bad.row for bad in bad_files()))


def safetensors_bytes(header: dict[str, Any] | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """The container around any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(start: int = 0, end: int = 16, dtype: Any = "F32", shape: Any = (4,)) -> dict[str, Any]:
    """A header's description of one tensor; by itself a true one of 16 bytes."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def _safetensors_containers() -> Iterable[BadFile]:
    good = safetensors_bytes({"a": entry()}, bytes(16))
    data = bytes(16)
    one = json.dumps(entry())
    contents: dict[str, bytes] = {
        "length 0": safetensors_bytes(b"", data),
        "length 1": safetensors_bytes({"a": entry()}, data, 1),
        "length 2^63": safetensors_bytes({"a": entry()}, data, 2**63),
        "length 2^64-1": safetensors_bytes({"a": entry()}, data, 2**64 - 1),
        "length 100 MB and 1": safetensors_bytes({"a": entry()}, data, 100_000_001),
        "length past the end": safetensors_bytes({"a": entry()}, data, len(good)),
        "length into the data": safetensors_bytes({"a": entry()}, data, len(good) - 10),
        "header of 5 MiB": safetensors_bytes(b'{"a":' + one.encode() + b" " * (5 * MIB) + b"}", data),
        "100,000 entries": safetensors_bytes({f"{n}": entry(0, 0, shape=[0]) for n in range(100_000)}),
        "4 MB of brackets": safetensors_bytes(b'{"a":[' + b"[]," * 1_390_000 + b"1]}"),
        "4 MB of braces": safetensors_bytes(b'{"a":[' + b"{}," * 1_390_000 + b"1]}"),
        "not UTF-8": safetensors_bytes(b'{"a\xff":' + one.encode() + b"}", data),
        "not JSON": safetensors_bytes(b"{a: 1}", data),
        "unfinished JSON": safetensors_bytes(b'{"a":', data),
        "two objects": safetensors_bytes(b'{}{"a":1}', data),
        "an array": safetensors_bytes(b"[]", data),
        "null": safetensors_bytes(b"null", data),
        "20,000 deep": safetensors_bytes(b'{"a":' * 20_000 + b"1" + b"}" * 20_000, data),
        "BOM": safetensors_bytes(b"\xef\xbb\xbf{}"),
        "leading space": safetensors_bytes(b' {"a":' + one.encode() + b"}", data),
        "5,000 digits": safetensors_bytes(b'{"a":' + b"9" * 5000 + b"}", data),
        "name twice": safetensors_bytes(f'{{"a":{one},"a":{one}}}'.encode(), data),
        "field twice": safetensors_bytes(
            b'{"a":{"dtype":"F32","dtype":"F32","shape":[4],"data_offsets":[0,16]}}', data
        ),
        "overlap": safetensors_bytes({"a": entry(), "b": entry(8, 24)}, bytes(24)),
        "same bytes twice": safetensors_bytes({"a": entry(), "b": entry()}, data),
        "gap at the start": safetensors_bytes({"a": entry(4, 20)}, bytes(20)),
        "gap inside": safetensors_bytes({"a": entry(), "b": entry(20, 36)}, bytes(36)),
        "negative offset": safetensors_bytes({"a": entry(-16, 0)}, data),
        "end before start": safetensors_bytes({"a": entry(16, 0)}, data),
        "end past the file": safetensors_bytes({"a": entry(0, 4 * 10**12, shape=[10**6, 10**6])}, data),
        "offset 2^64": safetensors_bytes({"a": entry(2**64, 2**64 + 16)}, data),
        "offset a float": safetensors_bytes({"a": entry(0.0, 16.0)}, data),  # type: ignore[arg-type]
        "three offsets": safetensors_bytes({"a": entry() | {"data_offsets": [0, 8, 16]}}, data),
        "negative axis": safetensors_bytes({"a": entry(shape=[-4])}, data),
        "two negative axes": safetensors_bytes({"a": entry(shape=[-2, -2])}, data),
        "product overflows": safetensors_bytes({"a": entry(shape=[2**32, 2**32 + 1])}, data),
        "axis a float": safetensors_bytes({"a": entry(shape=[4.0])}, data),
        "axis true": safetensors_bytes({"a": entry(0, 4, shape=[True])}, bytes(4)),
        "1,000 axes": safetensors_bytes({"a": entry(0, 4, shape=[1] * 1000)}, bytes(4)),
        "shape too large": safetensors_bytes({"a": entry(shape=[5])}, data),
        "shape null": safetensors_bytes({"a": entry(shape=None)}, data),
        "unknown dtype": safetensors_bytes({"a": entry(dtype="F33")}, data),
        "dtype a list": safetensors_bytes({"a": entry(dtype=["F32"])}, data),
        "field missing": safetensors_bytes({"a": {"dtype": "F32", "shape": [4]}}, data),
        "field too many": safetensors_bytes({"a": entry() | {"run": "me"}}, data),
        "entry a text": safetensors_bytes({"a": "F32"}, data),
        "metadata a list": safetensors_bytes({"__metadata__": [], "a": entry()}, data),
        "metadata of numbers": safetensors_bytes({"__metadata__": {"a": 1}, "a": entry()}, data),
        "cut in the data": good[:-1],
        "cut in the header": good[:20],
        "cut in the length": good[:5],
        "trailing byte": good + b"\0",
        "trailing archive": good + archive(member("x", b"")),
    }
    for name, content in contents.items():
        yield file("C1", f"{name}.safetensors", content)


def _safetensors_mutations() -> Iterable[BadFile]:
    draw = random.Random(1)
    weights = {"a": torch.arange(6.0).reshape(2, 3), "b.c": torch.ones(3, dtype=torch.float16)}
    good = to_safetensors(weights, metadata={"format": "pt"})
    for number in range(60):
        yield file("C1", f"mutation {number}.safetensors", mutated(good, draw), "either")


def _names() -> Iterable[BadFile]:
    names = {
        "traversal": "../../etc/passwd",
        "absolute": "/etc/passwd",
        "backslash": "..\\..\\x",
        "NUL": "a\0b",
        "newline": "a\nb",
        "ESC": "\x1b[31mred\x1b[0m",
        "right to left": "a\u202egnp.exe",
        "empty": "",
        "1 MB": "a" * 10**6,
    }
    for title, name in names.items():
        yield file("C2", f"{title}.safetensors", safetensors_bytes({name: entry()}, bytes(16)))
        yield file("C2", f"{title}.pth", torch_archive(text(name) + view()))
        if title not in ("1 MB", "empty"):  # longer than a zip archive can have it; an array without a name is another
            yield file("C2", f"{title}.npz", archive(member(name + ".npy", npy())))
    html = "<img src=x onerror=alert(1)>"
    yield file("C2", "HTML.safetensors", safetensors_bytes({html: entry()}, bytes(16)), "read")
    yield file("C2", "HTML.pth", torch_archive(text(html) + view()), "read")


def npy(
    descr: str = "'<f4'", shape: str = "(4,)", data: bytes = bytes(16), fortran: str = "False", version: int = 1
) -> bytes:
    """An array file of any header."""
    return npy_of(f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n", data, version)


def npy_of(header: str, data: bytes = bytes(16), version: int = 1, length: int | None = None) -> bytes:
    """An array file of any text as header."""
    size = struct.pack("<H" if version == 1 else "<I", len(header) if length is None else length)
    return b"\x93NUMPY" + bytes((version, 0)) + size + header.encode("latin-1") + data


def _npz_files() -> Iterable[BadFile]:
    good = member("a.npy", npy())
    contents: dict[str, bytes] = {
        "claims 4 TB": archive(member("a.npy", npy(shape="(1000000, 1000000)"))),
        "claims 2^124 numbers": archive(member("a.npy", npy(shape="(4611686018427387904, 4611686018427387904)"))),
        "one number short": archive(member("a.npy", npy(shape="(5,)"))),
        "one number too many": archive(member("a.npy", npy(shape="(3,)"))),
        "header expression": archive(member("a.npy", npy(shape="(2 ** 70,)"))),
        "header call": archive(member("a.npy", npy(shape="(__import__('os').getpid(),)"))),
        "header nested 5,000": archive(member("a.npy", npy(shape="(" * 1900 + ")" * 1900))),
        "header of 60 kB": archive(member("a.npy", npy(shape="(4," + " " * 60_000 + ")"))),
        "header of 4 GiB": archive(member("a.npy", npy_of("{", version=2, length=2**32 - 1))),
        "header past the end": archive(member("a.npy", npy_of("{", length=4000))),
        "header not a dictionary": archive(member("a.npy", npy_of("[1, 2, 3]\n"))),
        "header of digits": archive(member("a.npy", npy(shape="(" + "1" * 3900 + ")"))),
        "negative axis": archive(member("a.npy", npy(shape="(-4,)"))),
        "version 9": archive(member("a.npy", b"\x93NUMPY\x09\0" + npy()[8:])),
        "no magic": archive(member("a.npy", bytes(100))),
        "empty member": archive(member("a.npy", b"")),
        "structured": archive(member("a.npy", npy("[('a', '<f4')]"))),
        "text": archive(member("a.npy", npy("'<U4'", "(1,)"))),
        "dates": archive(member("a.npy", npy("'<M8[s]'", "(2,)"))),
        "void of 4": archive(member("a.npy", npy("'|V4'"))),
        "no array": archive(member("a.npy", npy()), member("readme.txt", b"hello")),
        "name twice": archive(good, good),
        "checksum wrong": archive(member("a.npy", npy(), crc=1)),
        "checksum wrong, deflated": archive(member("a.npy", npy(), method=8, crc=1)),
        "encrypted": archive(member("a.npy", npy(), flags=0x801)),
        "method 99": archive(member("a.npy", npy(), method=99)),
        "size lies, smaller": archive(member("a.npy", npy(data=bytes(64)), method=8, size=len(npy()))),
        "size lies, larger": archive(member("a.npy", npy(shape="(400,)"), method=8, size=len(npy()) + 1586)),
        "size lies, stored": archive(member("a.npy", npy(), size=10**6)),
        "sizes contradict": archive(member("a.npy", npy(), method=8, listed_size=10**6)),
        "names contradict": archive(member("a.npy", npy(), local_name=b"b.npy")),
        "past the end": archive(member("a.npy", npy(), packed=10**6, size=10**6)),
        "starts outside": archive(member("a.npy", npy(), start=10**6)),
        "members share bytes": archive(good, member("b.npy", npy(), local_name=b"a.npy", start=0)),
        "members overlap": _overlapping(),
        "damaged stream": archive(member("a.npy", npy(), method=8, packed_data=b"\xff" * 40)),
        "name not ASCII": archive(member(b"\xe4.npy", npy(), flags=0)),
        "10,000 members": archive(*(member(f"{n}.npy", npy()) for n in range(10_000))),
        "65,535 members, claimed": archive(good, listed=65_535),
        "no members, claimed": archive(good, listed=0),
        "list elsewhere": archive(good, list_start=0),
        "comment": archive(good, comment=b"#!/bin/sh"),
        "something in front": b"GIF89a" + archive(good),
        "cut": archive(good)[:-1],
        "cut at the list": archive(good)[:-40],
        "bomb of 256 MiB": _bomb(256),
        "bomb of 1 GiB": _bomb(1024),
        "bombs, many": archive(
            *(member(f"{n}.npy", npy(shape=f"({MIB},)", data=bytes(4 * MIB)), method=8) for n in range(20))
        ),
    }
    for name, content in contents.items():
        yield file("C5", f"{name}.npz", content)
    numbers = np.arange(6, dtype=">f4").reshape(2, 3)
    yield file("C5", "big-endian.npz", archive(member("a.npy", npy("'>f4'", "(2, 3)", numbers.tobytes()))), "read")
    fortran = member("a.npy", npy("'>f4'", "(2, 3)", numbers.tobytes(order="F"), fortran="True"))
    yield file("C5", "Fortran.npz", archive(fortran), "read")
    for full in ("os.system", "builtins.open"):
        yield payload("C5", f"objects, {full}.npz", _as_objects(touch(full)))


def _overlapping() -> bytes:
    """Two true arrays, of which the second stands within the first, local header and all."""
    inner = archive(member("b.npy", npy()))[: 30 + len("b.npy") + len(npy())]
    outer = npy("'|u1'", f"({len(inner)},)", inner)
    place = 30 + len("a.npy") + len(outer) - len(inner)
    return archive(member("a.npy", outer), member("b.npy", npy(), start=place))


def _bomb(mebibytes: int) -> bytes:
    """A true array of zeros, but for what it does to memory and for its checksum, which is not reached."""
    head = npy(shape=f"({mebibytes * MIB // 4},)", data=b"")
    packed = deflated_zeros(mebibytes, head)
    return archive(member("a.npy", b"", method=8, packed_data=packed, size=len(head) + mebibytes * MIB))


def _as_objects(body: Callable[[Path], bytes]) -> Callable[[Path], bytes]:
    return lambda folder: archive(member("a.npy", npy("'|O'", "(1,)", program(body(folder)))))


def _indexes() -> Iterable[BadFile]:
    shards = {"one.safetensors": {"a": torch.ones(2)}, "two.safetensors": {"b": torch.ones(3)}}
    truth = {"a": "one.safetensors", "b": "two.safetensors"}
    yield _index("true.json", json.dumps({"metadata": {"total_size": 20}, "weight_map": truth}), shards, "read")
    maps: dict[str, Any] = {
        "missing": truth | {"c": "three.safetensors"},
        "passwd": truth | {"b": "../../etc/passwd"},
        "absolute": truth | {"b": "/etc/passwd"},
        "backslash": truth | {"b": "..\\two.safetensors"},
        "here": truth | {"b": "."},
        "device": truth | {"b": "/dev/zero"},
        "linked device": truth | {"b": "zero.safetensors"},
        "URL": truth | {"b": "https://example.org/two.safetensors"},
        "NUL": truth | {"b": "two.safetensors\0"},
        "itself": truth | {"b": "itself.json"},
        "wrong file": {"a": "two.safetensors", "b": "one.safetensors"},
        "not in the map": {"a": "one.safetensors", "b": "both.safetensors"},
        "not in the file": truth | {"c": "two.safetensors"},
        "cut file": truth | {"b": "cut.safetensors"},
        "a number": truth | {"b": 2},
        "a list": ["one.safetensors"],
        "nothing": {},
        "1,000 files": {f"t{n}": f"{n}.safetensors" for n in range(1000)},
    }
    for title, places in maps.items():
        yield _index(f"{title}.json", json.dumps({"weight_map": places}), shards)
    twice = '{"weight_map": {"a": "one.safetensors", "a": "two.safetensors"}}'
    for title, content in {"twice": twice, "array": "[]", "no JSON": "weight_map", "deep": '{"a":' * 10**5}.items():
        yield _index(f"{title}.json", content, shards)


def _index(title: str, content: str, shards: dict[str, dict[str, torch.Tensor]], outcome: str = "refused") -> BadFile:
    def write(folder: Path) -> Path:
        for name, tensors in shards.items():
            (folder / name).write_bytes(to_safetensors(tensors))
        (folder / "both.safetensors").write_bytes(to_safetensors(shards["one.safetensors"] | {"b": torch.ones(3)}))
        (folder / "cut.safetensors").write_bytes(to_safetensors({"b": torch.ones(3)})[:-1])
        (folder / "zero.safetensors").symlink_to("/dev/zero")
        (folder / title).write_text(content)
        return folder / title

    return BadFile("C9", title, write, outcome)


def _other_files() -> Iterable[BadFile]:
    good = to_safetensors({"a": torch.ones(2)})
    taken = io.BytesIO()
    with tarfile.open(fileobj=taken, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("model.pth"))
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 346284714\n"
    contents = {
        "pointer.safetensors": pointer,
        "page.pth": b"\n<!DOCTYPE html><html><body>Sign in</body></html>",
        "listing.npz": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
        "image.pth": b"\x89PNG\r\n\x1a\n" + bytes(50),
        "photo.safetensors": b"\xff\xd8\xff\xe0" + bytes(50),
        "packed.pth": b"\x1f\x8b\x08" + bytes(50),
        "tar.pth": taken.getvalue(),
        "keras.safetensors": b"\x89HDF\r\n\x1a\n" + bytes(50),
        "array.npz": npy(),
        "index.safetensors": b'{"weight_map": {}}',
        "empty.zip": archive(),
        "other.zip": archive(member("readme.txt", b"hello")),
        "one byte.pth": b"\x80",
        "noise.bin": random.Random(10).randbytes(1000),
        "empty.pth": b"",
    }
    for title, content in contents.items():
        yield file("C10", title, content)
    yield file("C10", "safetensors.pth", good, "read")
    yield file("C10", "archive.safetensors", torch_archive(text("a") + view()), "read")
    yield file("C10", "arrays.pth", archive(member("a.npy", npy())), "read")


def _traps() -> Iterable[BadFile]:
    made: dict[str, Callable[[Path], object]] = {
        "folder.safetensors": lambda path: path.mkdir(),
        "pipe.pth": os.mkfifo,
        "circle.npz": lambda path: path.symlink_to(path),
        "nowhere.pth": lambda path: path.symlink_to("nowhere"),
        "zero.pth": lambda path: path.symlink_to("/dev/zero"),
        "null.npz": lambda path: path.symlink_to("/dev/null"),
        "missing.pth": lambda path: None,
        "long" * 100: lambda path: None,
    }
    for title, make in made.items():
        yield BadFile("C12", title, lambda folder, title=title, make=make: (make(folder / title), folder / title)[1])
