"""What a pickle may name, and what each name becomes: plain data, or a record that does nothing."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from vitreous.checkpoints.containers.contract import DTYPES, MOST_AXES, shown_name

_LARGEST = 2**62
_OTHER_TENSOR = re.compile(r"torch\.(_utils\._rebuild_\w{1,50}|\w{1,20}Storage)")


class Refused(Exception):
    """A pickle asks for what is not given; the message says for what, without the name of the file."""


@dataclass(frozen=True, eq=False)
class Global:
    """A name that a pickle may use, and what calling it would give."""

    name: str
    call: Callable[..., object] | None = None


@dataclass(frozen=True, eq=False)
class NumberType:
    """A type of numbers: of a storage, or by itself."""

    dtype: str


@dataclass(frozen=True, eq=False)
class Storage:
    """Numbers in a row somewhere in the file.

    Attributes:
        key: names it within the file.
        dtype: of its numbers, a key of `DTYPES`.
        numel: how many, by the pickle's claim.
    """

    key: str
    dtype: str
    numel: int

    @property
    def size(self) -> int:
        """In bytes."""
        return self.numel * DTYPES[self.dtype].itemsize


@dataclass(frozen=True, eq=False)
class View:
    """A tensor that is not read yet: which numbers of a storage, in which order.

    Attributes:
        storage: whose type is not always the tensor's.
        dtype: of the tensor.
        offset: the first number.
        shape: of the tensor.
        stride: how far one step along each axis goes in the storage.
    """

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def numel(self) -> int:
        """How many numbers the tensor has."""
        return math.prod(self.shape)

    @property
    def extent(self) -> int:
        """How many numbers lie from its first to its last in the storage, both included."""
        return 1 + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True)) if self.numel else 0


@dataclass(frozen=True, eq=False)
class Record:
    """What was an object with attributes: an argparse.Namespace, or a module in a TorchScript archive."""

    attributes: dict[str, Any] = field(default_factory=dict)


class _Ordered(dict[Any, Any]):
    """What was an OrderedDict; it may have attributes, which are dropped, as `_metadata` of a state dict."""

    __slots__ = ()


@dataclass(frozen=True, eq=False)
class _NumpyType:
    """What was a numpy.dtype of one number."""

    code: str


def look_up(module: str, name: str) -> object:
    """What stands for a name.

    Raises:
        Refused: if it is not in the table; the message has the name.
    """
    full = f"{module}.{name}"
    if module == "__torch__" or module.startswith("__torch__."):
        return _MODULE
    if _OTHER_TENSOR.fullmatch(full) and full not in _KNOWN:
        raise Refused(f"its pickle has a tensor that is sparse, quantised or without numbers: {shown_name(full)}")
    if full not in _KNOWN:
        raise Refused(f"its pickle asks for {shown_name(full)}, which can run code")
    return _KNOWN[full]


def reduce(target: Global, arguments: tuple[Any, ...]) -> object:
    """What calling a name with these arguments stands for."""
    if target.call is None:
        raise Refused(f"its pickle calls {target.name}, which no model needs")
    return target.call(*arguments)


def make(target: Global, arguments: tuple[Any, ...]) -> object:
    """A new object of a class."""
    if target in (_NAMESPACE, _MODULE) and not arguments:
        return Record()
    if target is _ORDERED and not arguments:
        return _Ordered()
    raise Refused(f"its pickle makes a {target.name} in a way that no model needs")


def build(made: object, state: object) -> None:
    """Gives an object its attributes."""
    if isinstance(made, Record) and isinstance(state, dict):
        for name, value in state.items():
            if not isinstance(name, str) or name.startswith("__"):
                raise Refused(f"its pickle sets the attribute {shown_name(str(name))}, which can run code")
            made.attributes[name] = value
    elif isinstance(made, _NumpyType):
        if not isinstance(state, tuple) or state[1] not in ("<", "|", "="):
            raise Refused("its pickle has a NumPy number with its bytes in reverse order")
    elif not isinstance(made, _Ordered):
        raise Refused("its pickle sets attributes of something that has none")


def as_count(number: object) -> int:
    """A whole number that is not negative.

    Raises:
        Refused: if it is something else.
    """
    if type(number) is not int or not 0 <= number < _LARGEST:
        what = f"{number:,}" if type(number) is int and abs(number) < 2 * _LARGEST else "something else"
        raise Refused(f"its pickle has {what} where a length or a place is expected")
    return number


def _ordered(items: object = ()) -> _Ordered:
    if not isinstance(items, list | tuple | dict):
        raise TypeError("pairs are expected here")
    made = _Ordered()
    for key, value in items.items() if isinstance(items, dict) else items:
        if not isinstance(key, str | int):
            raise TypeError("a key is expected here")
        made[key] = value
    return made


def _view(storage: object, offset: object, shape: object, stride: object, *rest: object) -> View:
    """`torch._utils._rebuild_tensor` and `_rebuild_tensor_v2`: rest is (requires_grad, hooks[, metadata])."""
    if len(rest) > 2 and rest[2]:
        raise Refused("its pickle has a conjugated or negated view; save the tensor itself")
    if not isinstance(storage, Storage):
        raise TypeError("a storage is expected here")
    return View(storage, storage.dtype, as_count(offset), _axes(shape), _axes(stride))


def _view_of_type(storage: object, offset: object, shape: object, stride: object, *rest: object) -> View:
    """`torch._utils._rebuild_tensor_v3`: rest is (requires_grad, hooks, type[, metadata])."""
    _, _, dtype, *metadata = rest
    view = _view(storage, offset, shape, stride, None, None, *metadata)
    if not isinstance(dtype, NumberType):
        raise TypeError("a type is expected here")
    return View(view.storage, dtype.dtype, view.offset, view.shape, view.stride)


def _parameter(view: object, *_: object) -> View:
    if not isinstance(view, View):
        raise TypeError("a tensor is expected here")
    return view


def _with_attributes(rebuild: object, kind: object, arguments: object, _: object) -> View:
    """`torch._tensor._rebuild_from_type_v2`: a tensor to which somebody has given attributes, which are dropped."""
    if not isinstance(rebuild, Global) or kind not in (_TENSOR, _PARAMETER) or not isinstance(arguments, tuple):
        raise TypeError("a tensor is expected here")
    if rebuild.call not in (_view, _view_of_type, _parameter):  # one that calls itself could do so for ever
        raise TypeError("a tensor is expected here")
    return _parameter(rebuild.call(*arguments))


def _axes(numbers: object) -> tuple[int, ...]:
    if not isinstance(numbers, tuple | list):
        raise TypeError("the length of each axis is expected here")
    if len(numbers) > MOST_AXES:
        raise Refused(f"its pickle has a tensor of {len(numbers):,} axes; {MOST_AXES} are the most")
    return tuple(as_count(number) for number in numbers)


def _list(items: object = ()) -> list[Any]:
    if not isinstance(items, list | tuple):
        raise TypeError("a list is expected here")
    return list(items)


def _path(*parts: object) -> str:
    if not all(isinstance(part, str) for part in parts):
        raise TypeError("texts are expected here")
    return str(PurePosixPath(*map(str, parts)))


def _encode(text: object, encoding: object) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise TypeError("bytes as latin1 are expected here")
    return text.encode("latin-1")


def _numpy_type(code: object, *_: object) -> _NumpyType:
    if code not in _NUMPY:
        raise Refused(f"its pickle has a NumPy type {shown_name(repr(code)) if isinstance(code, str) else ''}")
    return _NumpyType(str(code))


def _numpy_number(dtype: object, content: object) -> int | float | bool:
    if not isinstance(dtype, _NumpyType) or not isinstance(content, bytes):
        raise TypeError("a number is expected here")
    number: int | float | bool = struct.unpack("<" + _NUMPY[dtype.code], content)[0]
    return number


_NUMPY = {"f8": "d", "f4": "f", "f2": "e", "b1": "?"} | {
    f"{kind}{size}": letter.upper() if kind == "u" else letter
    for kind in "iu"
    for size, letter in {8: "q", 4: "i", 2: "h", 1: "b"}.items()
}
_STORAGES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
}
_NAMESPACE = Global("argparse.Namespace")
_MODULE = Global("a TorchScript module")
_ORDERED = Global("collections.OrderedDict", _ordered)
_TENSOR = Global("torch.Tensor")
_PARAMETER = Global("torch.nn.parameter.Parameter")

_CALLS: dict[str, Callable[..., object]] = {
    "torch._utils._rebuild_tensor": _view,
    "torch._utils._rebuild_tensor_v2": _view,
    "torch._utils._rebuild_tensor_v3": _view_of_type,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _with_attributes,
    "torch.Size": lambda shape=(): _axes(shape),
    "torch.device": lambda *parts: ":".join(str(part) for part in parts if isinstance(part, str | int)),
    "torch.jit._pickle.build_intlist": _list,
    "torch.jit._pickle.build_doublelist": _list,
    "torch.jit._pickle.build_boollist": _list,
    "torch.jit._pickle.build_tensorlist": _list,
    "torch.jit._pickle.restore_type_tag": lambda value, _: value,
    "collections.Counter": _ordered,
    "_codecs.encode": _encode,
    "numpy.dtype": _numpy_type,
    "numpy.core.multiarray.scalar": _numpy_number,
    "numpy._core.multiarray.scalar": _numpy_number,
    **{f"{module}.set": _list for module in ("builtins", "__builtin__")},
    **{f"{module}.{kind}Path": _path for module in ("pathlib", "pathlib._local") for kind in ("", "Posix", "Windows")},
}
_KNOWN: dict[str, object] = {
    **{name: Global(name, call) for name, call in _CALLS.items()},
    **{known.name: known for known in (_NAMESPACE, _ORDERED, _TENSOR, _PARAMETER)},
    **{f"torch.{name}": NumberType(name) for name in DTYPES},
    **{f"torch.{place}{n}Storage": NumberType(t) for n, t in _STORAGES.items() for place in ("", "cuda.")},
    **{
        f"torch.{n}": NumberType("uint8")
        for n in ("storage.UntypedStorage", "storage._UntypedStorage", "UntypedStorage")
    },
}
