"""What two runs differ in, and which settings may."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

FREE = ("keep", "workers", "allow_empty")
"""Settings that change no bit of the result."""

ROUNDING = ("threads", "device", "compile", "recompute", "parallel", "accumulate")
"""Settings that change how numbers are rounded, and nothing else."""


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
