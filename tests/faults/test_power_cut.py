"""The power is cut after each call of each writer; a reader finds the old content or the new one."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

import vitreous.atomic
from vitreous.training.lock import locked_run
from vitreous.training.states import newest_state, write_state

_DISK = runpy.run_path(str(Path(__file__).with_name("failing_disk.py")))  # tests are no package to import from
_POWER = runpy.run_path(str(Path(__file__).with_name("power_cut.py")))
WRITERS = runpy.run_path(str(Path(__file__).with_name("writers.py")))["writers"](_DISK["Writer"])
WRITERS.pop("model for Google")  # 200 calls on one file, which "text" has in 9


def _first_run(folder: Path) -> None:
    with locked_run(folder / "run"):
        write_state(folder / "run" / "states", 3, {}, {})


def _state(folder: Path) -> dict[str, int | None]:
    state = newest_state(folder / "run" / "states")
    return {"step": state and state.step}


WRITERS["first state of a run"] = _DISK["Writer"](lambda folder: None, _first_run, _state)
LEAST = {"model": 300, "model for transformers": 900, "folder": 100, "metrics": 3}


@pytest.mark.parametrize("name", WRITERS)
def test_after_a_power_cut_the_old_content_or_the_new_is_there(name: str, tmp_path: Path) -> None:
    states, different = _POWER["cut_after_each_call"](WRITERS[name], _DISK["Disk"], tmp_path)
    assert states >= LEAST.get(name, 20) and different >= 2


@pytest.mark.parametrize("name", ["text", "folder", "state"])
@pytest.mark.parametrize("forgotten", ["_flush_file", "_flush_folder"])
def test_a_writer_that_forgets_to_flush_is_found_out(
    name: str, forgotten: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vitreous.atomic, forgotten, lambda path: None)
    with pytest.raises(Exception, match=r"neither old nor new|may be lost|cannot be read|no such file|No such file"):
        _POWER["cut_after_each_call"](WRITERS[name], _DISK["Disk"], tmp_path)


def test_half_of_a_line_that_was_not_flushed_is_no_line(tmp_path: Path) -> None:
    tree = {"metrics.jsonl": b'{"epoch": 1, "step": 1}\n{"epo'}
    _POWER["put"](tree, tmp_path / "cut")
    assert len(WRITERS["metrics"].read(tmp_path / "cut")["metrics"]) == 1
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["metrics.jsonl"]
