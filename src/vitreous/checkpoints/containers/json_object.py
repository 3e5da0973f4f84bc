"""JSON from a file that nobody has checked."""

from __future__ import annotations

import json
from typing import Any

from vitreous.checkpoints.containers.contract import shown_name

_MOST_DIGITS = 20


def parse_object(content: bytes) -> dict[str, Any]:
    """A JSON object in which no key stands twice, and no number is NaN or infinite.

    Args:
        content: small; the objects made from it take up to 25 times as much memory.

    Raises:
        ValueError: with the cause and its place, if it is anything else.
    """
    if not content.startswith(b"{"):
        raise ValueError(f"begins with {shown_name(repr(content[:8]))} where {{ is expected")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as cause:
        raise ValueError(f"is not UTF-8 at its byte {cause.start:,}") from cause
    try:
        parsed: dict[str, Any] = json.loads(text, **_STRICT)
    except json.JSONDecodeError as cause:
        raise ValueError(f"is not JSON at its character {cause.pos:,}: {cause.msg}") from cause
    except RecursionError as cause:
        raise ValueError("is nested too deep") from cause
    return parsed


def _short_number(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"has a number of {len(digits):,} digits")
    return int(digits)


def _no_number(word: str) -> float:
    raise ValueError(f"has {word}, for which JSON has no word")


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for place, name in enumerate(names) if name in names[:place])
        raise ValueError(f"has {shown_name(twin)} twice")
    return found


_STRICT: dict[str, Any] = {
    "object_pairs_hook": _without_twins,
    "parse_int": _short_number,
    "parse_constant": _no_number,
}
