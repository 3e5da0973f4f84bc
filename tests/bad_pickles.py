"""Pickles that attack, rows C6 to C8 of bad_checkpoints.py.

Pickles are put together from their operations: Python's own pickler would not write most of them.
"""

from __future__ import annotations

import io
import pickle
import random
import re
import runpy
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

_ARCHIVES = runpy.run_path(str(Path(__file__).with_name("bad_archives.py")))  # tests are no package to import from
BadFile, Member, file, mutated = (_ARCHIVES[name] for name in ("BadFile", "Member", "file", "mutated"))
archive, member, deflated_zeros = (_ARCHIVES[name] for name in ("archive", "member", "deflated_zeros"))

MARKER = "marker"
MAGIC = 0x1950A86A20F9469CFC6C


def program(body: bytes) -> bytes:
    """A whole pickle of protocol 2."""
    return b"\x80\x02" + body + b"."


def text(content: str) -> bytes:
    """Pushes a text."""
    return b"X" + struct.pack("<I", len(content.encode())) + content.encode()


def whole(number: int) -> bytes:
    """Pushes a whole number."""
    if -(2**31) <= number < 2**31:
        return b"J" + struct.pack("<i", number)
    content = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes((len(content),)) + content


def several(*items: bytes) -> bytes:
    """Pushes a tuple."""
    return b"(" + b"".join(items) + b"t"


def name(full: str) -> bytes:
    """Pushes a class or a function."""
    return b"c" + "\n".join(full.rsplit(".", 1)).encode() + b"\n"


def call(full: str, *arguments: bytes) -> bytes:
    """Calls a class or a function."""
    return name(full) + several(*arguments) + b"R"


def mapping(*pairs: bytes) -> bytes:
    """Pushes a dictionary; each pair is a key and a value."""
    return b"}(" + b"".join(pairs) + b"u"


def storage(key: str = "0", kind: str = "FloatStorage", numel: int = 4, device: str = "cpu") -> bytes:
    """Pushes a storage."""
    return several(text("storage"), name(f"torch.{kind}"), text(key), text(device), whole(numel)) + b"Q"


def view(
    offset: int = 0,
    shape: tuple[int, ...] = (2, 2),
    stride: tuple[int, ...] = (2, 1),
    made_of: bytes | None = None,
    function: str = "_rebuild_tensor_v2",
) -> bytes:
    """Pushes a tensor; by itself a true one, of the storage that `torch_archive` brings."""
    axes = (several(*map(whole, sizes)) for sizes in (shape, stride))
    rest = (b"\x89", call("collections.OrderedDict"))
    return call(f"torch._utils.{function}", storage() if made_of is None else made_of, whole(offset), *axes, *rest)


def torch_archive(pairs: bytes, storages: dict[str, bytes] | None = None, *more: Member, method: int = 0) -> bytes:
    """What torch.save would write for a dictionary of these pairs."""
    return archive_around(program(mapping(pairs)), storages, *more, method=method)


def archive_around(
    pickled: bytes, storages: dict[str, bytes] | None = None, *more: Member, method: int = 0, data: str = "a/data.pkl"
) -> bytes:
    """What torch.save would write, with any bytes for its pickle."""
    kept = {"0": bytes(16)} if storages is None else storages
    members = [member(f"a/data/{key}", content, method=method) for key, content in kept.items()]
    return archive(member(data, pickled), member("a/byteorder", b"little"), *members, *more)


def legacy(body: bytes, keys: bytes | None = None, tail: bytes | None = None, magic: bytes | None = None) -> bytes:
    """What torch.save wrote before 2020; `body` makes the object."""
    system = mapping(text("protocol_version") + whole(1001), text("little_endian") + b"\x88")
    listed = b"](" + text("0") + b"e" if keys is None else keys
    parts = (whole(MAGIC) if magic is None else magic, whole(1001), system, body, listed)
    return b"".join(map(program, parts)) + (struct.pack("<q", 4) + bytes(16) if tail is None else tail)


def legacy_view() -> bytes:
    """Pushes a tensor as the old files have it: its storage may be part of another."""
    parts = (text("storage"), name("torch.FloatStorage"), text("0"), text("cpu"), whole(4), b"N")
    return view(made_of=several(*parts) + b"Q")


def touch(full: str) -> Callable[[Path], bytes]:
    """Operations that call a function so that it makes the marker beside the file."""

    def body(folder: Path) -> bytes:
        marker = str(folder / MARKER)
        opened = f"open({marker!r}, 'w').close()"
        arguments: dict[str, tuple[bytes, ...]] = {
            "system": (text(f"touch '{marker}'"),),
            "call": (b"](" + text("touch") + text(marker) + b"e",),
            "Popen": (b"](" + text("touch") + text(marker) + b"e",),
            "eval": (text(opened),),
            "exec": (text(opened),),
            "timeit": (text("pass"), text(opened)),
            "run": (text(opened),),
            "symlink": (text("nowhere"), text(marker)),
            "mkdir": (text(marker),),
            "makedirs": (text(marker),),
            "mkfifo": (text(marker),),
            "FileHandler": (text(marker),),
        }
        return call(full, *arguments.get(full.rsplit(".", 1)[1], (text(marker), text("w"))))

    return body


CALLABLES = (
    *(
        "os.system",
        "posix.system",
        "nt.system",
        "subprocess.call",
        "subprocess.Popen",
        "builtins.eval",
        "builtins.exec",
    ),
    *("__builtin__.eval", "builtins.open", "io.open", "os.symlink", "os.mkdir", "os.makedirs", "os.mkfifo"),
    *("timeit.timeit", "logging.FileHandler", "zipfile.ZipFile", "tarfile.open", "gzip.open", "codecs.open"),
)


def payload_files() -> Iterable[BadFile]:
    """C6: pickles that run code."""
    for full in CALLABLES:
        yield payload("C6", f"{full}.pth", lambda folder, full=full: torch_archive(text("a") + touch(full)(folder)))
    system = touch("os.system")

    def in_archive(folder: Path) -> bytes:
        return archive_around(program(system(folder)))

    def line(folder: Path) -> bytes:
        return text(f"touch '{folder / MARKER}'")

    def place(folder: Path) -> bytes:
        return call("pathlib.Path", text(str(folder / MARKER)))

    made: dict[str, Callable[[Path], bytes]] = {
        "alone": in_archive,
        "then broken": lambda folder: archive_around(program(system(folder))[:-1] + b"\xff"),
        "then cut": lambda folder: archive_around(program(system(folder))[:-1]),
        "dotted name": lambda folder: archive_around(
            b"\x80\4" + text("pathlib") + text("Path.touch") + b"\x93" + several(place(folder)) + b"R."
        ),
        "INST": lambda folder: archive_around(program(b"(" + line(folder) + b"ios\nsystem\n")),
        "OBJ": lambda folder: archive_around(program(b"(" + name("os.system") + line(folder) + b"o")),
        "in a key": lambda folder: torch_archive(system(folder) + view()),
        "behind the weights": lambda folder: torch_archive(text("a") + view() + text("optimizer") + system(folder)),
        "as a storage": lambda folder: torch_archive(text("a") + view(made_of=system(folder))),
        "as a device": lambda folder: torch_archive(text("a") + call("torch.device", system(folder))),
        "thrown away": lambda folder: torch_archive(text("a") + view() + text("b") + system(folder) + b"0N"),
        "in the attributes": lambda folder: torch_archive(
            text("a") + name("argparse.Namespace") + b")\x81" + mapping(text("x") + system(folder)) + b"b"
        ),
        "legacy, first": lambda folder: legacy(mapping(), magic=system(folder)),
        "legacy, object": lambda folder: legacy(mapping(text("a") + system(folder))),
        "legacy, keys": lambda folder: legacy(mapping(text("a") + legacy_view()), keys=system(folder)),
        "plain pickle": lambda folder: program(system(folder)),
        "plain pickle, protocol 4": lambda folder: framed(system(folder) + b"."),
        "TorchScript": lambda folder: archive_around(
            program(system(folder)), None, member("a/constants.pkl", program(b")")), member("a/code/x.py", b"")
        ),
        "two pickles": lambda folder: archive_around(
            program(mapping(text("a") + view())), None, member("b/data.pkl", program(system(folder)))
        ),
        "one pickle twice": lambda folder: archive_around(
            program(mapping(text("a") + view())), None, member("a/data.pkl", program(system(folder)))
        ),
    }
    for title, content in made.items():
        yield payload("C6", f"{title}.pth", content)
    namespace = name("argparse.Namespace") + b")\x81"
    harmless = {
        "BUILD class": namespace + mapping(text("__class__") + name("torch.Size")) + b"b",
        "BUILD on a list": b"]" + mapping(text("append") + whole(1)) + b"b",
        "NEWOBJ": name("subprocess.Popen") + several(text("ls")) + b"\x81" + mapping() + b"b",
        "NEWOBJ_EX": name("collections.OrderedDict") + several() + mapping() + b"\x92",
        "EXT1": b"\x82\x07",
        "EXT4": b"\x84" + struct.pack("<i", 2**31 - 1),
        "calls a text": text("os.system") + several(text("ls")) + b"R",
        "module of one's own": name("models_vit.VisionTransformer") + b")\x81" + mapping() + b"b",
        "numpy array": call("numpy.core.multiarray._reconstruct", name("numpy.ndarray"), several(whole(0)), text("b")),
        "getattr": call("builtins.getattr", name("torch.Size"), text("__class__")),
        "ESC in a name": name("os.\x1b[31msystem"),
        "name of 1 MB": name("os." + "s" * 10**6),
    }
    for title, body in harmless.items():
        yield file("C6", f"{title}.pth", torch_archive(text("a") + view() + text("b") + body))


def payload(row: str, title: str, content: Callable[[Path], bytes]) -> BadFile:
    """A file whose code, where it is run, makes a marker beside it."""

    def write(folder: Path) -> Path:
        path = folder / title
        path.write_bytes(content(folder))
        return path

    return BadFile(row, title, write, is_payload=True)


def view_files() -> Iterable[BadFile]:
    """C7: tensors that do not fit."""
    sparse = call("torch._utils._rebuild_sparse_tensor", name("torch.sparse_coo"), several())
    quantised = view(made_of=storage(kind="QInt8Storage"), function="_rebuild_qtensor")
    meta = call("torch._utils._rebuild_meta_tensor_no_storage", name("torch.float32"), several(whole(10**18)))
    bodies = {
        "no such storage": view(made_of=storage("7")),
        "storage too short": view(made_of=storage(numel=5)),
        "storage too long": view(made_of=storage(numel=3), shape=(3,), stride=(1,)),
        "storage of 2^62": view(made_of=storage(numel=2**62)),
        "storage below 0": view(made_of=storage(numel=-4)),
        "storage elsewhere": view(made_of=storage("../../a/data.pkl")),
        "view past the end": view(shape=(2, 3)),
        "view one past the end": view(offset=1),
        "offset of 2^62": view(offset=2**62),
        "offset below 0": view(offset=-1),
        "stride below 0": view(stride=(-2, 1)),
        "stride of 2^61": view(stride=(2**61, 1)),
        "axis below 0": view(shape=(-2, -2)),
        "numel of 2^62": view(shape=(2**31, 2**31)),
        "stride 0, 10^12": view(shape=(10**6, 10**6), stride=(0, 0)),
        "overlapping": view(shape=(3, 2), stride=(1, 1)),
        "more axes than strides": view(stride=(2,)),
        "40 axes": view(shape=(1,) * 40, stride=(1,) * 40),
        "true for an axis": call(
            "torch._utils._rebuild_tensor_v2", storage(), whole(0), several(b"\x88"), several(whole(1)), b"\x89", b"N"
        ),
        "sparse": sparse,
        "quantised": quantised,
        "meta of 10^18": meta,
        "type lies": view(made_of=storage(kind="DoubleStorage")),
        "storage in two ways": view() + text("b") + view(made_of=storage(kind="IntStorage")),
        "tensor of a text": view(made_of=text("0")),
        "pickle for a storage": view(made_of=several(text("module"), text("x"), text("y")) + b"Q"),
    }
    for title, body in bodies.items():
        yield file("C7", f"{title}.pth", torch_archive(text("a") + body))
    for title, device in {"cuda 7": "cuda:7", "weird device": "/dev/zero; rm"}.items():
        content = torch_archive(text("a") + view(made_of=storage(device=device)))
        yield file("C7", f"{title}.pth", content, "read")
    good = mapping(text("a") + legacy_view())
    tails = {
        "legacy, short": struct.pack("<q", 4) + bytes(15),
        "legacy, long": struct.pack("<q", 4) + bytes(17),
        "legacy, says less": struct.pack("<q", 3) + bytes(16),
        "legacy, below 0": struct.pack("<q", -4) + bytes(16),
        "legacy, of 2^62": struct.pack("<q", 2**62) + bytes(16),
        "legacy, nothing": b"",
    }
    for title, tail in tails.items():
        yield file("C7", f"{title}.pth", legacy(good, tail=tail))
    yield file("C7", "legacy, a key twice.pth", legacy(good, keys=b"](" + text("0") * 2 + b"e"))
    yield file("C7", "legacy, no key.pth", legacy(good, keys=b"]", tail=b""))
    yield file("C7", "one tensor.pth", archive_around(program(view())))
    yield file("C7", "no tensor.pth", torch_archive(text("a") + whole(1)))
    yield file("C7", "a name twice.pth", torch_archive(text("a.b") + view() + text("a") + mapping(text("b") + view())))


def bombs() -> Iterable[BadFile]:
    """C8: pickles that take memory or time."""
    doubled = b"K\1K\2\x86q\0" + b"".join(b"h" + bytes((n,)) + b"\x86q" + bytes((n + 1,)) for n in range(40))
    many_pairs = b"](" + b"K\1K\2\x86" * 30_000 + b"e\x85q\0" + name("collections.OrderedDict") + b"q\1"
    again = b"ctorch._tensor\n_rebuild_from_type_v2\nq\0(h\0ctorch\nTensor\nq\1"
    bodies = {
        "calls 20,000 deep": again + b"(h\0h\1" * 20_000 + b")" + b"Nt" * 20_001 + b"R",
        "BINBYTES8 of 1 TiB": b"\x8e" + struct.pack("<Q", 2**40),
        "BINUNICODE8 of 1 TiB": b"\x8d" + struct.pack("<Q", 2**40),
        "BYTEARRAY8 of 2^63": b"\x96" + struct.pack("<Q", 2**63),
        "BINSTRING below 0": b"T" + struct.pack("<i", -1),
        "FRAME of 2^60": b"\x95" + struct.pack("<Q", 2**60) + b"N",
        "LONG4 of 2 GiB": b"\x8b" + struct.pack("<i", 2**31 - 1),
        "LONG4 of 100 kB": b"\x8b" + struct.pack("<i", 100_000) + b"\x7f" * 100_000,
        "memo at 2^31": b"Nr" + struct.pack("<I", 2**31),
        "memo not there": b"j" + struct.pack("<I", 2**31),
        "lists 200,000 deep": b"]" * 200_000 + b"a" * 199_999,
        "tuples 200,000 deep": b")" + b"\x85" * 200_000,
        "dictionaries 20,000 deep": (b"}" + text("a")) * 20_000 + b"N" + b"s" * 20_000,
        "list of itself": b"]q\0h\0a",
        "2^40 leaves": doubled,
        "2 million operations": b"]" * 2_000_000,
        "1 million marks": b"(" * 1_000_001,
        "900,000 sets": b"\x8f" * 900_000,
        "many copies of 30,000 pairs": many_pairs + b"h\1h\0R" * 1000,
        "keys of one hash": b"}(" + b"".join(whole((2**61 - 1) * n) + b"N" for n in range(8, 40_000)) + b"u",
        "names that grow": text("n" * 10**6) + b"q\0" + b"}(h\0" * 200 + b"N" + b"u" * 200,
    }
    for title, body in bodies.items():
        yield file("C8", f"{title}.pth", torch_archive(text("a") + view() + text("b") + body))
    yield file("C8", "pickle of 20 MiB.pth", archive_around(b"\x80\x02" + b"N0" * (10 * 2**20)))
    size = 2**28
    large = text("a") + view(made_of=storage(numel=size // 4), shape=(size // 4,), stride=(1,))
    zeros = member("a/data/0", b"", method=8, packed_data=deflated_zeros(256), size=size)
    yield file("C8", "deflated storage.pth", torch_archive(large, {}, zeros))
    yield file("C8", "deflated pickle.pth", archive(member("a/data.pkl", program(mapping() + b"0N" * 10**5), method=8)))
    sharing = b"".join(text(f"t{n}") + view(shape=(4096,), stride=(1,), made_of=storage(numel=4096)) for n in range(99))
    yield file("C8", "99 tensors of one storage.pth", torch_archive(sharing, {"0": bytes(4 * 4096)}))


def pickle_mutations() -> Iterable[BadFile]:
    """C8: changes at random to honest files; in half of the archives under a checksum that fits."""
    draw = random.Random(8)
    weights = {"model": {"w": torch.arange(6.0).reshape(2, 3).t(), "b": torch.ones(3).half()}, "epoch": 3, "lr": 0.1}
    new = io.BytesIO()
    torch.save(weights, new)
    old = legacy(mapping(text("a") + legacy_view(), text("epoch") + whole(3)))  # torch.save would put addresses in it
    inner = program(mapping(text("a") + view(), text("epoch") + whole(3)))
    for number in range(40):
        yield file("C8", f"mutation {number}, archive.pth", mutated(new.getvalue(), draw), "either")
        yield file("C8", f"mutation {number}, pickle.pth", archive_around(mutated(inner, draw)), "either")
        yield file("C8", f"mutation {number}, legacy.pth", mutated(old, draw), "either")


def framed(program_: bytes) -> bytes:
    """Protocol 4 tells how long the program is."""
    return b"\x80\x04\x95" + struct.pack("<Q", len(program_)) + program_


def run_without_care(paths: Iterable[str]) -> None:
    """What a loader that trusts its files does. Only for a process of its own: it runs the payloads."""

    class Trusting(pickle.Unpickler):
        def persistent_load(self, pid: Any) -> Any:
            memory = torch.UntypedStorage(16)
            return torch.storage.TypedStorage(wrap_storage=memory, dtype=torch.float32, _internal=True)

    for path in paths:
        content = Path(path).read_bytes()
        streams = [content[match.start() :] for match in re.finditer(rb"\x80[\2\4]", content)]
        for stream in streams or [content]:
            try:
                Trusting(io.BytesIO(stream)).load()
            except Exception:
                continue  # broken on purpose, behind the payload
