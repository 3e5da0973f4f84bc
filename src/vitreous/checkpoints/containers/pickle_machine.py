"""Runs a pickle without running code: it can only build plain data and the inert records of `pickle_globals`.

Python's own unpickler looks names up and calls what it finds. This one knows 47 of its operations. A name is looked
up in a fixed table, whatever is not in it is refused by name, and what is in it is never a class or a function of a
library. So there is nothing that a pickle could call.

Source: pickletools.py of Python 3.11, which describes each operation.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from vitreous.checkpoints.containers.contract import shown_name
from vitreous.checkpoints.containers.pickle_globals import Global, Refused, build, look_up, make, reduce

LARGEST_PICKLE = 16 * 2**20
"""Bytes; the pickle of a model of 7 billion weights, without the weights, has 200 kB."""

MOST_STEPS = 1_000_000
"""Operations in a pickle; the model above needs 30,000. Each makes at most about 100 bytes."""

_LONGEST_NUMBER = 128  # bytes
_LONGEST_LINE = 1024
_EXACT_INT = 2**63  # larger whole numbers as keys could be chosen to have one hash

Persistent = Callable[[Any], object]


def run_pickle(data: bytes, start: int = 0, persistent: Persistent | None = None) -> tuple[Any, int]:
    """What a pickle describes, and the place behind its end.

    Lists, tuples, sets and bytes become lists, tuples, lists and bytes; objects of known classes become records.

    Args:
        data: has the pickle.
        start: where in data it begins.
        persistent: makes an object from what the pickle says about something outside of it, in PyTorch a storage.

    Raises:
        Refused: with the cause; if it asks for anything else, or for more than `MOST_STEPS`.
    """
    machine = _Machine(data, start, persistent)
    try:
        return machine.run(), machine.place
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, struct.error) as cause:
        raise Refused(f"its pickle is damaged at byte {machine.place:,}") from cause


class _Machine:
    """A stack, the places where lists began on it, and a memo of what is used again."""

    def __init__(self, data: bytes, start: int, persistent: Persistent | None) -> None:
        self.data = data
        self.place = start
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0

    def run(self) -> Any:
        data = self.data
        for _ in range(MOST_STEPS):
            code = data[self.place]
            self.place += 1
            if code == 0x2E:  # "."
                if len(self.stack) != 1 or self.marks:
                    raise ValueError("something is left over")
                return self.stack.pop()
            step = _STEPS.get(code)
            if step is None:
                raise Refused(_unknown(data, self.place - 1))
            step(self)
        raise Refused(f"its pickle has more than {MOST_STEPS:,} operations; no model needs so many")

    def take(self, length: int) -> bytes:
        """The next bytes; asked for before any room is made for them."""
        if length < 0 or length > len(self.data) - self.place:
            raise Refused(f"its pickle claims {length:,} bytes at byte {self.place:,}, more than there are")
        self.place += length
        return self.data[self.place - length : self.place]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        end = self.data.index(b"\n", self.place, self.place + _LONGEST_LINE)
        content = self.data[self.place : end]
        self.place = end + 1
        return content.decode("utf-8")

    def pop_marked(self) -> list[Any]:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise IndexError("below a mark")
        return self.stack.pop()

    def skip_frame(self) -> None:
        """A frame only tells a reader of streams how much to read; one that says more than there is, lies."""
        length = self.number("<Q")
        if length > len(self.data) - self.place:
            raise Refused(f"its pickle claims a frame of {length:,} bytes, more than there are")

    def check_protocol(self) -> None:
        protocol = self.number("<B")
        if protocol > 5:
            raise Refused(f"its pickle has protocol {protocol}; 2 to 5 are known")

    def long(self, length: int) -> None:
        if not 0 <= length <= _LONGEST_NUMBER:
            raise Refused(f"its pickle has a whole number of {length:,} bytes; {_LONGEST_NUMBER} are the most")
        self.push(int.from_bytes(self.take(length), "little", signed=True))

    def text(self, form: str) -> None:
        self.push(self.take(self.number(form)).decode("utf-8"))

    def raw(self, form: str) -> None:
        self.push(self.take(self.number(form)))

    def pack(self, length: int) -> None:
        self.push(tuple(reversed([self.pop() for _ in range(length)])))

    def append(self) -> None:
        value = self.pop()
        self.top(list).append(value)

    def extend(self) -> None:
        values = self.pop_marked()
        self.top(list).extend(values)

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.top(dict)[_checked_key(key)] = value

    def set_items(self) -> None:
        items = self.pop_marked()
        if len(items) % 2:
            raise ValueError("a key without a value")
        found = self.top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            found[_checked_key(key)] = value

    def top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise TypeError("another object is expected here")
        return self.stack[-1]

    def remember(self, number: int) -> None:
        if number > MOST_STEPS:
            raise Refused(f"its pickle counts its objects up to {number:,}, which it cannot have")
        self.memo[number] = self.stack[-1]

    def global_by_lines(self) -> None:
        module, name = self.line(), self.line()
        self.push(look_up(module, name))

    def global_by_stack(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("a name is no text")
        self.push(look_up(module, name))

    def call(self, how: Callable[[Global, tuple[Any, ...]], object]) -> None:
        arguments, target = self.pop(), self.pop()
        if not isinstance(target, Global) or not isinstance(arguments, tuple):
            raise Refused("its pickle calls something that is no class and no function")
        self.copied += sum(len(part) for part in arguments if isinstance(part, str | list | tuple | dict))
        if self.copied > MOST_STEPS:  # one list of many pairs could be asked for as a dictionary many times
            raise Refused(f"its pickle copies more than {MOST_STEPS:,} items; no model needs so many")
        self.push(how(target, arguments))

    def set_state(self) -> None:
        state = self.pop()
        build(self.stack[-1], state)

    def from_outside(self) -> None:
        if self.persistent is None:
            raise Refused("its pickle refers to something outside of it")
        self.push(self.persistent(self.pop()))


_STEPS: dict[int, Callable[[_Machine], None]] = {
    ord(code): step
    for code, step in {
        "\x80": _Machine.check_protocol,
        "\x95": _Machine.skip_frame,
        "(": lambda machine: machine.marks.append(len(machine.stack)),
        "N": lambda machine: machine.push(None),
        "\x88": lambda machine: machine.push(True),
        "\x89": lambda machine: machine.push(False),
        "J": lambda machine: machine.push(machine.number("<i")),
        "K": lambda machine: machine.push(machine.number("<B")),
        "M": lambda machine: machine.push(machine.number("<H")),
        "G": lambda machine: machine.push(machine.number(">d")),
        "\x8a": lambda machine: machine.long(machine.number("<B")),
        "\x8b": lambda machine: machine.long(machine.number("<i")),
        "X": lambda machine: machine.text("<I"),
        "\x8c": lambda machine: machine.text("<B"),
        "\x8d": lambda machine: machine.text("<Q"),
        "T": lambda machine: machine.text("<i"),  # texts of Python 2
        "U": lambda machine: machine.text("<B"),
        "B": lambda machine: machine.raw("<I"),
        "C": lambda machine: machine.raw("<B"),
        "\x8e": lambda machine: machine.raw("<Q"),
        "\x96": lambda machine: machine.raw("<Q"),
        "]": lambda machine: machine.push([]),
        "}": lambda machine: machine.push({}),
        ")": lambda machine: machine.push(()),
        "\x8f": lambda machine: machine.push([]),  # a set: nothing here asks what is in one
        "\x91": lambda machine: machine.push(machine.pop_marked()),
        "t": lambda machine: machine.push(tuple(machine.pop_marked())),
        "\x85": lambda machine: machine.pack(1),
        "\x86": lambda machine: machine.pack(2),
        "\x87": lambda machine: machine.pack(3),
        "a": _Machine.append,
        "e": _Machine.extend,
        "\x90": _Machine.extend,
        "s": _Machine.set_item,
        "u": _Machine.set_items,
        "h": lambda machine: machine.push(machine.memo[machine.number("<B")]),
        "j": lambda machine: machine.push(machine.memo[machine.number("<I")]),
        "q": lambda machine: machine.remember(machine.number("<B")),
        "r": lambda machine: machine.remember(machine.number("<I")),
        "\x94": lambda machine: machine.remember(len(machine.memo)),
        "c": _Machine.global_by_lines,
        "\x93": _Machine.global_by_stack,
        "R": lambda machine: machine.call(reduce),
        "\x81": lambda machine: machine.call(make),
        "b": _Machine.set_state,
        "Q": _Machine.from_outside,
    }.items()
}
"""Every operation that is known, by its byte."""

_REFUSED = {
    "i": "INST",
    "o": "OBJ",
    "\x82": "EXT1",
    "\x83": "EXT2",
    "\x84": "EXT4",
    "\x92": "NEWOBJ_EX",
    "P": "PERSID",
    "\x97": "NEXT_BUFFER",
}


def _unknown(data: bytes, place: int) -> str:
    name = _REFUSED.get(chr(data[place]))
    if name == "INST":
        named = data[place + 1 : place + _LONGEST_LINE].split(b"\n")[:2]
        asked = shown_name(".".join(part.decode("utf-8", "replace") for part in named))
        return f"its pickle asks for {asked} (INST), which can run code"
    if name:
        return f"its pickle uses {name} at byte {place:,}, which can run code and no model needs"
    return f"its pickle has the operation 0x{data[place]:02x} at byte {place:,}, which PyTorch does not write"


def _checked_key(key: object) -> object:
    if isinstance(key, str | float | bool | None):
        return key
    if isinstance(key, int) and -_EXACT_INT <= key < _EXACT_INT:
        return key
    raise TypeError("no key of a dictionary")
