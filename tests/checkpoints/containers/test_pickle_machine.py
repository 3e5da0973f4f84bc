"""The machine beside Python's own unpickler, on pickles that need no class."""

from __future__ import annotations

import pickle
import pickletools
import struct
from collections.abc import Callable
from typing import Any

import pytest

from vitreous.checkpoints.containers.pickle_globals import Refused
from vitreous.checkpoints.containers.pickle_machine import run_pickle

VALUES = [
    None,
    True,
    -1,
    255,
    65_535,
    65_536,
    -(2**31),
    2**31,
    2**63,
    -(2**200),
    0.1,
    "",
    "Größe",
    "x" * 300,
    b"bytes",
    (),
    (1,),
    (1, 2),
    (1, 2, 3),
    (1, 2, 3, 4),
    [],
    [1, [2, [3]]],
    {"a": {"b": [1.5, None]}, 3: "c", None: False, 2.5: 1},
    ["shared"] * 3,
]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_are_those_of_python(protocol: int) -> None:
    values = [value for value in VALUES if not (protocol == 2 and isinstance(value, bytes))]  # 2 has no bytes
    content = pickle.dumps(values, protocol=protocol)
    found, end = run_pickle(content)
    assert repr(found) == repr(values) and end == len(content)


def test_several_pickles_follow_each_other() -> None:
    content = pickle.dumps(1, protocol=2) + pickle.dumps("two", protocol=4)
    first, place = run_pickle(content)
    second, end = run_pickle(content, place)
    assert (first, second, end) == (1, "two", len(content))


def test_shared_parts_stay_shared_and_a_set_is_a_list() -> None:
    part = [1]
    found, _ = run_pickle(pickle.dumps([part, part, {5}, frozenset((6,))], protocol=4))
    assert found[0] is found[1] and found[2:] == [[5], [6]]


def test_bytes_of_python_2_and_3_are_read(bad: dict[str, Any]) -> None:
    assert run_pickle(pickle.dumps(b"\0\xff", protocol=2))[0] == b"\0\xff"
    assert run_pickle(b"\x80\x02U\x03abc.")[0] == "abc"
    assert run_pickle(b"\x80\x02T\x03\0\0\0abc.")[0] == "abc"


def test_every_operation_of_python_is_known_or_refused() -> None:
    known = set(
        "\x80\x95(N\x88\x89JKMG\x8a\x8bX\x8c\x8dTUBC\x8e\x96]})\x8f\x91t\x85\x86\x87ae\x90suhjqr\x94c\x93R\x81bQ."
    )
    for operation in pickletools.opcodes:
        if operation.code not in known:
            with pytest.raises(Refused, match=r"which can run code|does not write"):
                run_pickle(b"\x80\x02" + operation.code.encode("latin-1") + b"os\nsystem\n" + bytes(9))


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b".", b"N", b"NN.", b"(.", b"0.", b"t.", b"a.", b"]a.", b"Na.", b"}Ns.", b"}(Nu.", b"}]Ns.", b"h\0."),
        *(b"q\0.", b"R.", b"N)R.", b"Nb.", b"N(\x85.", b"Q.", b"NQ.", b"cos", b"c\xff\n\n.", b"X\1\0\0\0\xff."),
        *(b"K", b"\x93.", b"NN\x93.", b"J\0."),
    ],
)
def test_a_pickle_that_makes_no_sense_is_refused(content: bytes) -> None:
    with pytest.raises(Refused):
        run_pickle(content)


def test_nothing_is_taken_for_a_claim() -> None:
    for code, form in (("X", "<I"), ("B", "<I"), ("\x8d", "<Q"), ("\x8e", "<Q"), ("\x96", "<Q"), ("\x95", "<Q")):
        with pytest.raises(Refused, match="more than there are"):
            run_pickle(code.encode("latin-1") + struct.pack(form, 2**32 - 1) + b".")


def test_steps_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitreous.checkpoints.containers.pickle_machine.MOST_STEPS", 10)
    assert run_pickle(b"](" + b"N" * 6 + b"e.")[0] == [None] * 6
    with pytest.raises(Refused, match="more than 10 operations"):
        run_pickle(b"](" + b"N" * 7 + b"e.")


def test_copies_have_an_end(bad: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitreous.checkpoints.containers.pickle_machine.MOST_STEPS", 60)
    text: Callable[[str], bytes] = bad["text"]
    encoded = bad["call"]("_codecs.encode", text("x" * 20), text("latin1"))
    assert run_pickle(b"](" + encoded * 2 + b"e.")[0] == [b"x" * 20] * 2
    with pytest.raises(Refused, match="copies more than 60"):
        run_pickle(b"](" + encoded * 3 + b"e.")
