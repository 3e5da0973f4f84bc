"""What two runs differ in, in words, and which settings may differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vitreous.data.images import shown
from vitreous.errors import InputError

if TYPE_CHECKING:  # they load torch
    from vitreous.data.labelled import LabelledImages
    from vitreous.data.sources.streams import LabelledStream

FREE = ("keep", "workers", "allow_empty")
"""Settings that change no bit of the result."""

ROUNDING = ("threads", "device", "compile", "recompute", "parallel", "accumulate")
"""Settings that change how numbers are rounded, and what dropout draws, and nothing else."""

MOST = 5
"""Differences that a message has room for."""

_REDRAWING = ("world", "accumulate", "device", "compile", "processor")
"""Processes and parts draw for images of their own; a GPU, and compiled code, draw with other generators."""

_LONGEST = 60  # characters of a value
_NAMED = 3  # classes of one kind


def differences(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(path, before, now) of all that is not the same in both; lists are compared item by item."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*now, *(name for name in before if name not in now)]:
            yield from differences(before.get(name), now.get(name), f"{path}.{name}" if path else str(name))
    elif isinstance(before, list | tuple) and isinstance(now, list | tuple):
        if len(before) != len(now):
            yield path, f"{len(before)} items", f"{len(now)} items"
        for index, (was, is_now) in enumerate(zip(before, now, strict=False)):
            yield from differences(was, is_now, f"{path}[{index}]")
    elif before != now:
        yield path, before, now


def change(name: str, before: object, now: object) -> str:
    """`NAME BEFORE -> NOW`, long values cut in the middle."""
    return f"{name} {_cut(before)} -> {_cut(now)}"


def listed(changes: Sequence[str]) -> str:
    """As many as a message has room for, and how many more there are."""
    more = f", and {len(changes) - MOST} more" if len(changes) > MOST else ""
    return "; ".join(changes[:MOST]) + more


def redraws(remarks: Iterable[str]) -> bool:
    """Whether one of some changes, as `change` tells them, is one that dropout's draws depend on."""
    return any(remark.partition(" ")[0] in _REDRAWING for remark in remarks)


def changed_parts(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What happened to a data set: for each part that is another one a clause, with the classes and their counts.

    Args:
        before: by part, what `LabelledImages.census` or `LabelledStream.census` says; of a run of an earlier version
            the fingerprint alone.
        now: the same of the data as it is.
    """
    found = []
    for part in [*now, *(part for part in before if part not in now)]:
        was, is_now = before.get(part), now.get(part)
        if was is None or is_now is None:
            found.append(f"the part {part} {'is new' if was is None else 'is gone'}")
        elif _fingerprint(was) != _fingerprint(is_now):
            found.append(f"{part} {_changed_part(was, is_now)}")
    return found


def is_census(part: Any) -> bool:
    """Whether it tells the images of each class, and not only a fingerprint or what is known of a stream."""
    return isinstance(part, dict) and "images" in part


def changed_names(before: Sequence[str], now: Sequence[str], holders: tuple[str, str]) -> str:
    """Which classes only one of two lists has: `only MODEL has a, b; only DATA has c`.

    Args:
        before: the first list.
        now: the second.
        holders: what to call both.
    """
    sides = zip(holders, (_only_in(before, now), _only_in(now, before)), strict=True)
    clauses = [f"only {holder} has {some(map(shown, only))}" for holder, only in sides if only]
    return "; ".join(clauses) or "the names are the same, in another order"


def check_same_classes(learned: LabelledImages | LabelledStream, tested: LabelledImages) -> None:
    """Nothing, if both parts of a data set have the same classes in the same order.

    Raises:
        InputError: if not, with the names that only one part has.
    """
    if learned.class_names != tested.class_names:
        difference = changed_names(learned.class_names, tested.class_names, ("the training part", "the test part"))
        raise InputError(
            f"{shown(tested.name)}: its parts have other classes: {difference}\n"
            "give both parts the same ones; to train, an empty folder will do with --allow-empty"
        )


def some(names: Iterable[str]) -> str:
    """The first few of some names, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
    return ", ".join(every[:_NAMED]) + more


def _changed_part(was: Any, is_now: Any) -> str:
    if not (is_census(was) and is_census(is_now)):
        return "is another one than then"
    images, images_now = was["images"], is_now["images"]
    clauses = []
    if list(images) != list(images_now):
        clauses.append(changed_names(list(images), list(images_now), ("then", "now")))
    pairs = [(name, images[name], images_now[name]) for name in images if name in images_now]
    if counts := [change(shown(name), count, count_now) for name, count, count_now in pairs if count != count_now]:
        clauses.append(some(counts))
    if clauses:
        return f"had {sum(images.values()):,} images, has {sum(images_now.values()):,} ({'; '.join(clauses)})"
    if others := [shown(name) for name in images if was["hashes"].get(name) != is_now["hashes"].get(name)]:
        return f"has as many images as then, but others (names or sizes in {some(others)})"
    return "has the images of then in another order, or in files of other sizes"


def _fingerprint(part: Any) -> Any:
    return part["fingerprint"] if isinstance(part, dict) else part


def _only_in(names: Sequence[str], others: Sequence[str]) -> list[str]:
    there = set(others)
    return [name for name in names if name not in there]


def _cut(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}...{text[-_LONGEST // 2 :]}"
