"""Settings checked one by one: what is wrong is named with its value and what is allowed."""

from __future__ import annotations

import difflib
import math
from typing import Any

from vitreous.errors import ConfigError


def check_number(
    name: str, value: Any, *, least: float = -math.inf, above: float = -math.inf, below: float = math.inf
) -> None:
    """Nothing, if `least` <= value < `below` and value > `above`.

    Raises:
        ConfigError: if not, or if it is no number; NaN is none.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 10**300
    if is_number and least <= value < below and value > above:
        return
    lower = f"above {above:g}" if above > -math.inf else f"at least {least:g}"
    upper = f" and below {below:g}" if below < math.inf else " and finite"
    raise ConfigError(f"{name} is {value!r}; it must be {lower}{upper}")


def check_count(name: str, value: Any, *, least: int) -> None:
    """Nothing, if the value is a whole number of at least `least`.

    Raises:
        ConfigError: if not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number, at least {least}")


def check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Nothing, if the value is among those allowed.

    Raises:
        ConfigError: if not, with the nearest of them.
    """
    if value not in allowed:
        close = difflib.get_close_matches(str(value), allowed, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"{name} is {value!r}; choose one of {', '.join(allowed)}{hint}")
