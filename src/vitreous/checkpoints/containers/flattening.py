"""Nested dictionaries of a pickle as one of tensors and one of short plain values, with dots in the names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vitreous.checkpoints.containers.contract import LARGEST_NAME, MOST_TENSORS, shown_name, why_not_a_name
from vitreous.checkpoints.containers.pickle_globals import Record, Refused, View

MOST_VALUES = 500_000
"""Values looked at. Parts that are shared are looked at each time they are met, and can be so without end."""

DEEPEST = 100

LONGEST_TEXT = 1024
LONGEST_LIST = 64
MOST_EXTRAS = 4096

_Plain = bool | int | float | str | None
_LARGEST_INT = 2**63


@dataclass
class Flat:
    """What was found.

    Attributes:
        tensors: by name.
        extras: numbers, texts, None and short lists of these, by name; up to 4,096 of them, all others are dropped.
        values: how many values were looked at.
    """

    tensors: dict[str, View] = field(default_factory=dict)
    extras: dict[str, Any] = field(default_factory=dict)
    values: int = 0


def flatten(root: object) -> Flat:
    """Everything in nested dictionaries, lists and records; `{"model": {"cls_token": t}}` has "model.cls_token".

    Raises:
        Refused: if there is more than `MOST_VALUES`, nesting without end, a name twice, or no tensor.
    """
    if isinstance(root, View):
        raise Refused("it holds one tensor without a name; save a dictionary of tensors")
    found = Flat()
    _collect(root, "", 0, found)
    if not found.tensors:
        raise Refused("it holds no tensor")
    return found


def _collect(value: object, name: str, depth: int, found: Flat) -> None:
    found.values += 1
    if found.values > MOST_VALUES:
        raise Refused(f"it has more than {MOST_VALUES:,} values, by sharing parts with itself or otherwise")
    if depth > DEEPEST:
        raise Refused(f"it is nested more than {DEEPEST} deep")
    if isinstance(value, View):
        _add_tensor(value, name, found)
    elif isinstance(value, dict | Record):
        attributes = value.attributes if isinstance(value, Record) else value
        for key, part in attributes.items():
            _collect(part, _joined(name, key), depth + 1, found)
    elif isinstance(value, list | tuple) and not (len(value) <= LONGEST_LIST and all(map(_is_plain, value))):
        for index, part in enumerate(value):
            _collect(part, _joined(name, index), depth + 1, found)
    elif len(found.extras) < MOST_EXTRAS and name not in found.tensors:
        plain = list(value) if isinstance(value, list | tuple) else value
        if isinstance(plain, list) or _is_plain(plain):
            found.extras.setdefault(name, plain)


def _add_tensor(view: View, name: str, found: Flat) -> None:
    if wrong := why_not_a_name(name):
        raise Refused(f"it has {wrong}")
    if name in found.tensors:
        raise Refused(f"it has two tensors with the name {shown_name(name)}")
    if len(found.tensors) == MOST_TENSORS:
        raise Refused(f"it has more than {MOST_TENSORS:,} tensors")
    found.tensors[name] = view


def _joined(name: str, key: object) -> str:
    part = key if isinstance(key, str) else repr(key)
    if len(name) + len(part) >= LARGEST_NAME:
        raise Refused(f"it has a name of more than {LARGEST_NAME} characters: {shown_name(name or part)}")
    return f"{name}.{part}" if name else part


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= LONGEST_TEXT
    if isinstance(value, int):
        return -_LARGEST_INT <= value < _LARGEST_INT
    return value is None or isinstance(value, float)
