"""Running out of memory, told as what it is: torch raises it as one of its many runtime errors."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from vitreous.errors import MemoryLimitError

_WORDS = re.compile(r"can't allocate memory|not enough memory|out of memory|bad_alloc|cannot allocate", re.IGNORECASE)
_BYTES = re.compile(r"allocate (\d+) bytes")  # on the CPU
_AMOUNT = re.compile(r"allocate ([\d.]+ [KMGT]iB)")  # on a GPU


@contextmanager
def shortage_named(remedy: str) -> Iterator[None]:
    """Inside, memory that cannot be had is a MemoryLimitError, with how much was asked for, where torch tells.

    Args:
        remedy: what to do, in one line.

    Raises:
        MemoryLimitError: in place of MemoryError, torch.OutOfMemoryError and torch's RuntimeError of the CPU.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as cause:
        if not is_shortage(cause):
            raise
        raise MemoryLimitError(f"there is not enough memory{_amount(str(cause))}\n{remedy}") from cause


def is_shortage(error: BaseException) -> bool:
    """Whether it says that memory cannot be had."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(_WORDS.search(str(error))))


def _amount(message: str) -> str:
    if found := _BYTES.search(message):
        return f" for {int(found[1]) / 2**30:,.2f} GiB more"
    found = _AMOUNT.search(message)
    return f" for {found[1]} more" if found else ""


def memory_of_machine() -> int | None:
    """Bytes of RAM that it has, None where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        return None
