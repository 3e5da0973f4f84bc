"""How far a long task is: one line on standard error, so that results on standard output stay clean."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column


@contextmanager
def progress_bar(
    title: str, total: int, *, shown: bool = True, done: int = 0, unit: str = ""
) -> Iterator[Callable[[int, str], None]]:
    """A bar that is drawn while the block runs, with the time left. On a narrow terminal the end of the note is cut.

    Args:
        title: what is counted, in front of the bar.
        total: how many there are.
        shown: False draws nothing.
        done: how many of them an earlier run did; they do not count for the speed.
        unit: what is counted, for the speed; "" shows no speed.

    Yields:
        A function to call with how many more are done, and a note to show behind the bar.
    """
    console = Console(file=cast(TextIO, _StandardError()))
    what_is_left = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=12 if console.width >= 100 else 4),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}", markup=False),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False, table_column=what_is_left),
    )
    with Progress(*columns, console=console, disable=not shown, refresh_per_second=2, expand=True) as progress:
        task = progress.add_task(title, total=total, completed=done, note="", speed="")

        def advance(more: int, note: str) -> None:
            progress.update(task, advance=more, note=note)
            speed = progress.tasks[0].speed if unit else None
            if speed is not None:
                progress.update(task, speed=f"{speed:,.{0 if speed >= 10 else 1}f} {unit}/s")

        yield advance


def say(line: str) -> None:
    """One line on standard error; where that is gone, none."""
    print(line, file=cast(TextIO, _StandardError()))


class _StandardError:
    """Standard error, which may go away or be full while the work goes on: what cannot be written is dropped."""

    def __init__(self) -> None:
        self._file = sys.stderr or io.StringIO()

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
