from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from vitreous.errors import CheckpointError, OutputError
from vitreous.training.config import Keeping, Optim, TrainConfig
from vitreous.training.runs import (
    append_metrics,
    check_room,
    check_run,
    checkpoint_folder,
    go_on,
    read_metrics,
    start_run,
)
from vitreous.training.settings_file import read_config


def _finish(folder: Path) -> None:
    (folder / "model").mkdir()


def test_a_run_starts_with_its_config_and_no_metrics(tmp_path: Path) -> None:
    start_run(tmp_path / "deep" / "run", TrainConfig())
    assert read_config(tmp_path / "deep" / "run" / "config.yaml") == TrainConfig()
    assert (tmp_path / "deep" / "run" / "metrics.jsonl").read_text() == ""


def test_metrics_are_one_object_a_line(tmp_path: Path) -> None:
    start_run(tmp_path, TrainConfig())
    append_metrics(tmp_path, {"epoch": 1})
    append_metrics(tmp_path, {"epoch": 2, "test_top1": 0.5})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"epoch": 1}, {"epoch": 2, "test_top1": 0.5}]


def test_an_unfinished_run_starts_again(tmp_path: Path) -> None:
    start_run(tmp_path, TrainConfig())
    append_metrics(tmp_path, {"epoch": 1})
    start_run(tmp_path, replace(TrainConfig(), seed=1))
    assert (tmp_path / "metrics.jsonl").read_text() == ""
    assert read_config(tmp_path / "config.yaml").seed == 1


def test_a_finished_run_of_the_same_config_may_be_made_again(tmp_path: Path) -> None:
    start_run(tmp_path, TrainConfig())
    _finish(tmp_path)
    check_run(tmp_path, TrainConfig())


def test_a_finished_run_of_another_config_is_kept(tmp_path: Path) -> None:
    start_run(tmp_path, TrainConfig())
    append_metrics(tmp_path, {"epoch": 1})
    _finish(tmp_path)
    other = replace(TrainConfig(), seed=1, optimizer=Optim(learning_rate=0.5))
    difference = r"another config: optimizer\.learning_rate 0\.001 -> 0\.5; seed 0 -> 1\nchoose another"
    with pytest.raises(CheckpointError, match=difference) as caught:
        check_run(tmp_path, other)
    assert caught.value.exit_code == 5
    assert read_config(tmp_path / "config.yaml") == TrainConfig()
    assert (tmp_path / "metrics.jsonl").read_text()


def test_a_finished_run_is_the_same_with_other_settings_that_change_no_bit(tmp_path: Path) -> None:
    start_run(tmp_path, TrainConfig())
    _finish(tmp_path)
    check_run(tmp_path, replace(TrainConfig(), workers=3, keep=Keeping(states=5, models_every=2)))
    with pytest.raises(CheckpointError, match="threads 1 -> 2\n"):  # it rounds differently
        check_run(tmp_path, replace(TrainConfig(), workers=3, threads=2))


@pytest.mark.parametrize("content", [None, "a: [", "7"])
def test_a_model_without_a_readable_config_is_kept(tmp_path: Path, content: str | None) -> None:
    _finish(tmp_path)
    if content is not None:
        (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(OutputError, match=r"config\.yaml"):
        check_run(tmp_path, TrainConfig())


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/run")):
        with pytest.raises(OutputError, match="cannot be written"):
            check_run(folder, TrainConfig())
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        check_run(tmp_path / "run", TrainConfig())


def test_metrics_that_cannot_be_written_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"metrics\.jsonl cannot be written"):
        append_metrics(tmp_path / "missing", {"epoch": 1})


def test_somebodys_own_files_are_not_replaced_by_a_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("learning_rate: 3\n")
    with pytest.raises(OutputError, match="no settings of a run"):
        check_run(tmp_path, TrainConfig())
    (tmp_path / "config.yaml").unlink()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"other files in it \(notes.txt\)"):
        check_run(tmp_path, TrainConfig())
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_somebodys_own_files_among_checkpoints_are_kept(tmp_path: Path) -> None:
    kept = checkpoint_folder(tmp_path, 5)
    assert kept == tmp_path / "checkpoints" / "epoch-0005"
    kept.mkdir(parents=True)
    for name in ("config.json", "notes.txt"):
        (kept / name).write_text("mine")
    with pytest.raises(OutputError, match=r"epoch-0005 has other files in it \(notes.txt\)"):
        check_run(tmp_path, TrainConfig())
    assert (kept / "notes.txt").read_text() == "mine"


def test_a_finished_run_from_before_a_setting_was_known_is_still_one(tmp_path: Path) -> None:
    start_run(tmp_path, TrainConfig())
    _finish(tmp_path)
    lines = (tmp_path / "config.yaml").read_text().splitlines(keepends=True)
    (tmp_path / "config.yaml").write_text("".join(line for line in lines if not line.startswith("accumulate")))
    check_run(tmp_path, TrainConfig())
    with pytest.raises(CheckpointError, match="accumulate 1 -> 4"):
        check_run(tmp_path, replace(TrainConfig(), accumulate=4))


def test_a_run_that_goes_on_forgets_what_it_did_after_its_state(tmp_path: Path) -> None:
    start_run(tmp_path, TrainConfig())
    for epoch in (1, 2, 3):
        append_metrics(tmp_path, {"epoch": epoch, "step": 10 * epoch})
        checkpoint_folder(tmp_path, epoch).mkdir(parents=True)
        (checkpoint_folder(tmp_path, epoch) / "config.json").write_text("")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "st')
    (tmp_path / ".model.abcd_012.tmp").mkdir()
    (tmp_path / "checkpoints" / ".epoch-0003.abcd_012.tmp").mkdir()
    go_on(tmp_path, TrainConfig(), 25)
    assert [metrics["step"] for metrics in read_metrics(tmp_path)] == [10, 20]
    kept = ["checkpoints", "config.json", "config.json", "config.yaml", "epoch-0001", "epoch-0002", "metrics.jsonl"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == kept


def test_metrics_are_read_without_a_line_that_was_cut(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []
    whole = '{"epoch": 1, "step": 1}\n{"epoch": 2, "step": 2}\n'
    for length in range(len(whole) + 1):
        (tmp_path / "metrics.jsonl").write_text(whole[:length])
        assert len(read_metrics(tmp_path)) == whole[:length].count("\n")
    (tmp_path / "metrics.jsonl").write_bytes(b'\0\0\0\n[1]\n{"epoch": 1}\n\xff\n')
    assert read_metrics(tmp_path) == [{"epoch": 1}]


def test_room_is_asked_for_before_it_is_needed(tmp_path: Path) -> None:
    check_room(tmp_path / "new" / "run", 1)
    with pytest.raises(OutputError, match=r"run needs 1,099,511,627,776.0 MiB .*, [\d,.]+ MiB are free"):
        check_room(tmp_path / "new" / "run", 2**60)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_starts_anew_leaves_nothing_of_an_earlier_one(tmp_path: Path) -> None:
    start_run(tmp_path, TrainConfig())
    (tmp_path / "evaluation.json").touch()
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "model.safetensors").touch()
    (tmp_path / "skipped.tsv").touch()
    checkpoint_folder(tmp_path, 3).mkdir(parents=True)
    (checkpoint_folder(tmp_path, 3) / "config.json").touch()
    start_run(tmp_path, TrainConfig())
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["checkpoints", "config.yaml", "metrics.jsonl"]


@pytest.mark.parametrize("name", ["metrics.jsonl", "evaluation.json", "skipped.tsv", "best", "checkpoints"])
def test_results_without_a_config_are_somebodys_own(tmp_path: Path, name: str) -> None:
    file = {"best": "best/config.json", "checkpoints": "checkpoints/epoch-0002/config.json"}.get(name, name)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).touch()
    with pytest.raises(OutputError, match=rf"{name}\S* is there without a config\.yaml"):
        check_run(tmp_path, TrainConfig())
    (tmp_path / "states").mkdir()  # of a run whose config was lost
    check_run(tmp_path, TrainConfig())


def test_somebodys_own_files_in_the_place_of_the_best_model_are_kept(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"best has other files in it \(notes.txt\)"):
        check_run(tmp_path, TrainConfig())


def test_a_line_that_is_too_long_for_the_limit_says_which_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match=r"File too large; raise the limit \(`ulimit -f`\)"):
        append_metrics(tmp_path, {"epoch": 1})
    assert (tmp_path / "metrics.jsonl").read_text() == ""
