"""Each call of each writer goes wrong in each way; a reader finds the old content or the new one, and nothing else."""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from typing import Any

import pytest

from vitreous.errors import OutputError

_DISK = runpy.run_path(str(Path(__file__).with_name("failing_disk.py")))  # tests are no package to import from
_WRITERS = runpy.run_path(str(Path(__file__).with_name("writers.py")))
KINDS, fail_each_call = _DISK["KINDS"], _DISK["fail_each_call"]
WRITERS = _WRITERS["writers"](_DISK["Writer"])

MOST = int(os.environ.get("VITREOUS_FAULTS", "25"))
"""Calls of a writer that go wrong in each way; `make soak` takes all."""

LEAST = {"text": 60, "folder": 140, "model": 150, "state": 90, "run": 120, "metrics": 20}
"""Faults of a writer, over all kinds: fewer, and calls are no longer seen."""


@pytest.mark.parametrize("name", WRITERS)
def test_whatever_call_fails_the_old_content_or_the_new_is_there_and_nothing_else(name: str, tmp_path: Path) -> None:
    tallies = [fail_each_call(WRITERS[name], tmp_path / kind, kind, MOST) for kind in KINDS]
    assert sum(tally.faults for tally in tallies) >= LEAST.get(name, 40)
    assert any("dead" in tally.ended for tally in tallies) and any("refused" in tally.ended for tally in tallies)


def _in_place(folder: Path) -> None:
    (folder / "a.txt").write_text("new")


def _beside_but_without_care(folder: Path) -> None:
    (folder / "a.tmp").write_text("new")
    try:
        (folder / "a.tmp").replace(folder / "a.txt")
    except OSError as error:
        raise OutputError("no") from error


@pytest.mark.parametrize(
    "write, kind, found",
    [
        (_in_place, "dies before", "neither old nor new"),
        (_in_place, "dies half-way", "neither old nor new"),
        (_beside_but_without_care, "broken", "left {'a.tmp'}"),
    ],
)
def test_a_careless_writer_is_found_out(write: Any, kind: str, found: str, tmp_path: Path) -> None:
    writer = _DISK["Writer"](
        lambda folder: (folder / "a.txt").write_text("old"), write, lambda folder: {"a": (folder / "a.txt").read_text()}
    )
    with pytest.raises((AssertionError, OSError), match=found):
        fail_each_call(writer, tmp_path, kind)
