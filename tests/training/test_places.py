from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vitreous.data.augmentation import Augmentation
from vitreous.data.images import Encoded
from vitreous.data.sources.streams import LabelledStream
from vitreous.errors import CheckpointError, InputError, MemoryLimitError
from vitreous.interrupts import Terminated
from vitreous.training import loop, places, preparing
from vitreous.training.config import Keeping, Optim, TrainConfig
from vitreous.training.loop import train
from vitreous.training.states import read_state, write_state

VARYING = ("elapsed_seconds", "train_images_per_second", "mfu", "peak_memory_mib")
KINDS: dict[str, dict[str, Any]] = {
    "adamw, average, parts": {"ema": 0.9, "accumulate": 2},
    "muon, layer decay, mixed": {
        "optimizer": Optim(name="muon", layer_decay=0.8, learning_rate=0.02, warmup=2),
        "augmentation": Augmentation(mixup=0.2, cutmix=1.0),
        "precision": "float32",
    },
    "sgd in bfloat16": {"optimizer": Optim(name="sgd", momentum_precision="bfloat16", learning_rate=0.02, warmup=2)},
    "hidden patches": {"task": "masked-patches", "steps": 7},
}


def _result(folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """The bits of the weights, and the metrics without what depends on the clock."""
    bits = hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return bits, [{name: value for name, value in line.items() if name not in VARYING} for line in lines]


def _before(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[..., None]) -> None:
    """Lets something happen before each call of a function of the loop, which is given the same arguments."""
    inner = getattr(loop, name)

    def outer(*arguments: Any, **options: Any) -> Any:
        act(*arguments)
        return inner(*arguments, **options)

    monkeypatch.setattr(loop, name, outer)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_stopped_again_and_again_ends_with_the_same_bits(
    tiny_run: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    config = replace(tiny_run, **KINDS[kind])
    train(config, tmp_path / "whole", progress=False)
    stops = {0, 3, 5}  # in the middle of epochs, and at the end of the first
    done: list[int] = []

    def stop(run: Any, step: int, *_: Any) -> None:
        done.append(step)
        if step in stops:
            stops.remove(step)
            os.kill(os.getpid(), signal.SIGTERM)

    _before(monkeypatch, "_step", stop)
    for step in (1, 4, 6):
        with pytest.raises(Terminated, match=f"stopped after step {step} of {config.steps or 8}, saved"):
            train(config, tmp_path / "stopped", progress=False)
        assert not (tmp_path / "stopped" / "model").exists()
    train(config, tmp_path / "stopped", progress=False)
    assert done == list(range(config.steps or 8))  # no step twice
    assert _result(tmp_path / "stopped") == _result(tmp_path / "whole")
    assert not (tmp_path / "stopped" / "states").exists()


def test_a_run_that_ended_without_warning_goes_on_from_its_last_state(
    tiny_run: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(tiny_run, ema=0.9, keep=Keeping(state_seconds=0, models_every=1, best=True))
    train(config, tmp_path / "whole", progress=False)
    lost = {2, 6}

    def lose(run: Any, step: int, *_: Any) -> None:
        if step in lost:
            lost.remove(step)
            raise MemoryError

    _before(monkeypatch, "_step", lose)
    for _ in range(2):
        with pytest.raises(MemoryLimitError):
            train(config, tmp_path / "lost", progress=False)
    train(config, tmp_path / "lost", progress=False)
    assert _result(tmp_path / "lost") == _result(tmp_path / "whole")
    names = [sorted(path.name for path in (tmp_path / run).rglob("*")) for run in ("lost", "whole")]
    assert names[0] == names[1]


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_run_that_is_stopped_while_it_is_tested_tests_again(
    tiny_run: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ema: float
) -> None:
    config = replace(tiny_run, ema=ema)  # an average must not be saved for the weights
    train(config, tmp_path / "whole", progress=False)
    asked: list[None] = []

    def interrupt(*_: Any) -> None:
        asked.append(None)
        if len(asked) in (1, 3):
            os.kill(os.getpid(), signal.SIGINT)

    _before(monkeypatch, "look", interrupt)
    for step in (4, 8):
        with pytest.raises(KeyboardInterrupt, match=f"step {step} of 8"):
            train(config, tmp_path / "stopped", progress=False)
    train(config, tmp_path / "stopped", progress=False)
    assert len(asked) == 4
    assert _result(tmp_path / "stopped") == _result(tmp_path / "whole")


def test_an_epoch_that_was_written_and_not_saved_is_not_written_twice(
    tiny_run: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tiny_run, tmp_path / "whole", progress=False)
    config = replace(tiny_run, keep=Keeping(state_seconds=0))
    lost = [None]

    def lose(*_: Any) -> None:
        if json.loads((tmp_path / "lost" / "metrics.jsonl").read_text() or "{}") and lost:
            lost.pop()
            raise MemoryError

    _before(monkeypatch, "write_place", lose)
    with pytest.raises(MemoryLimitError):
        train(config, tmp_path / "lost", progress=False)
    assert len((tmp_path / "lost" / "metrics.jsonl").read_text().splitlines()) == 1
    train(config, tmp_path / "lost", progress=False)
    assert _result(tmp_path / "lost") == _result(tmp_path / "whole")


@pytest.fixture
def stopped(tiny_run: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was stopped after five of eight steps."""
    with monkeypatch.context() as context:

        def stop(run: Any, step: int, *_: Any) -> None:
            if step == 4:
                os.kill(os.getpid(), signal.SIGTERM)

        _before(context, "_step", stop)
        with pytest.raises(Terminated):
            train(tiny_run, tmp_path / "run", progress=False)
    return tmp_path / "run"


def test_another_config_or_other_data_is_refused_with_what_differs(
    tiny_run: TrainConfig, stopped: Path, photos: Path
) -> None:
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    with pytest.raises(
        CheckpointError, match=r"seed 0 -> 1; optimizer.learning_rate|optimizer.learning_rate 0.02 -> 0.5"
    ):
        train(replace(tiny_run, seed=1, optimizer=Optim(learning_rate=0.5, warmup=2)), stopped, progress=False)
    (photos / "train" / "red" / "0.png").unlink()
    with pytest.raises(CheckpointError, match="another run") as caught:
        train(tiny_run, stopped, progress=False)
    assert caught.value.exit_code == 5 and "train had 14 images, has 13 (red 7 -> 6)" in str(caught.value)
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before


def test_what_goes_on_says_from_where_and_what_changed(
    tiny_run: TrainConfig, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(replace(tiny_run, accumulate=2, workers=1, keep=Keeping(state_seconds=5)), stopped)
    said = " ".join(capsys.readouterr().err.split())
    assert "goes on after step 5 of 8" in said
    assert "not to the same bits" in said and "accumulate 1 -> 2" in said and "workers" not in said
    assert "dropout and drop path draw other numbers" in said


def test_a_run_that_went_on_with_other_threads_is_found_finished(
    tiny_run: TrainConfig, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = replace(tiny_run, threads=2)
    train(other, stopped)
    assert "threads 1 -> 2" in capsys.readouterr().err
    assert train(other, stopped, progress=False).was_there


def test_states_that_are_there_need_no_more_room(
    tiny_run: TrainConfig, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(places, "check_room", lambda folder, needed: asked.append(needed))
    there = sum(path.stat().st_size for path in (stopped / "states").iterdir())
    train(tiny_run, stopped, progress=False)
    train(tiny_run, stopped.with_name("anew"), progress=False)
    assert asked[1] - asked[0] == there > 0


def test_a_run_that_is_stopped_while_a_window_is_fetched_does_not_fetch_the_rest(
    tiny_run: TrainConfig, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted((photos / "train").rglob("*.png"))
    stops, fetched = {0, 30}, [0]

    def read(shard: int, left_out: int) -> Iterator[tuple[Encoded, int]]:
        for number in range(left_out, 36):
            if number in stops:
                stops.remove(number)
                os.kill(os.getpid(), signal.SIGTERM)
            fetched[0] += 1
            yield Encoded(files[number % len(files)].read_bytes(), ""), number % 2

    stream = LabelledStream("stream", "train", ("blue", "red"), 1, 12, read)
    monkeypatch.setattr(preparing, "open_stream", lambda *_: stream)
    opened = preparing.open_dataset
    monkeypatch.setattr(preparing, "open_dataset", lambda name, part, **_: opened(str(photos), part))
    config = replace(tiny_run, data="hf-stream:any", steps=20)
    for step, read_until_then in ((0, 1), (6, 31)):
        fetched[0] = 0
        with pytest.raises(Terminated, match=f"stopped after step {step} of 20, saved"):
            train(config, tmp_path / "stopped", progress=False)
        assert fetched[0] == read_until_then
    train(config, tmp_path / "stopped", progress=False)
    train(config, tmp_path / "whole", progress=False)
    assert _result(tmp_path / "stopped") == _result(tmp_path / "whole")


def test_a_damaged_state_is_named_and_an_earlier_one_taken(
    tiny_run: TrainConfig, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (stopped / "states" / "step-000000005.safetensors").write_bytes(b"cut")
    train(tiny_run, stopped)
    said = "".join(capsys.readouterr().err.split())
    assert "step-000000005.safetensors" in said and "goesonafterstep4of8" in said
    train(tiny_run, tmp_path / "whole", progress=False)
    assert _result(stopped) == _result(tmp_path / "whole")


def _spoil(photos: Path, names: list[str]) -> None:
    for name in names:
        (photos / name).write_bytes(b"no image")


def test_an_image_that_cannot_be_read_stops_the_run_with_its_name(
    tiny_run: TrainConfig, photos: Path, tmp_path: Path
) -> None:
    _spoil(photos, ["test/red/1.png"])
    with pytest.raises(InputError, match=r"red/1\.png[\s\S]*unreadable to skip"):
        train(tiny_run, tmp_path / "test", progress=False)
    _spoil(photos, ["train/blue/3.png"])
    with pytest.raises(InputError, match=r"blue/3\.png[\s\S]*unreadable to skip"):
        train(tiny_run, tmp_path / "train", progress=False)


@pytest.mark.parametrize("mixed", [False, True])
def test_images_that_cannot_be_read_are_left_out_and_listed(
    tiny_run: TrainConfig, photos: Path, tmp_path: Path, mixed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    _spoil(photos, ["train/blue/3.png", "test/red/1.png"])
    config = replace(tiny_run, unreadable="skip", augmentation=Augmentation(mixup=0.2 * mixed))
    result = train(config, tmp_path / "run")
    assert "2 images could not be read" in " ".join(capsys.readouterr().err.split())
    assert result.evaluation is not None and result.evaluation.images == 5
    head, *rows = (tmp_path / "run" / "skipped.tsv").read_text().splitlines()
    assert head == "part\timage\tcause"
    assert [row.split("\t")[:2] for row in rows] == [["test", "red/1.png"], ["train", "blue/3.png"]]
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert 0 < line["train_loss_nats"] < 2


def test_a_data_set_of_which_more_than_a_tenth_is_broken_is_refused(
    tiny_run: TrainConfig, photos: Path, tmp_path: Path
) -> None:
    _spoil(photos, ["train/blue/3.png", "train/red/1.png", "test/red/1.png"])
    with pytest.raises(InputError, match=r"3 of 20 images could not be read[\s\S]*skipped\.tsv"):
        train(replace(tiny_run, unreadable="skip"), tmp_path / "run", progress=False)
    assert len((tmp_path / "run" / "skipped.tsv").read_text().splitlines()) == 4


def test_a_run_of_an_earlier_version_goes_on(
    tiny_run: TrainConfig, stopped: Path, tmp_path: Path, photos: Path
) -> None:
    path = stopped / "states" / "step-000000005.safetensors"
    state = read_state(path)
    for part, census in state.meta["run"]["data"].items():
        state.meta["run"]["data"][part] = census["fingerprint"]  # all that was kept
    write_state(stopped / "states", state.step, state.tensors, state.meta)
    with (photos / "train" / "red" / "0.png").open("ab") as file:
        file.write(b"more")
    with pytest.raises(CheckpointError, match="another run: train is another one than then"):
        train(tiny_run, stopped, progress=False)
    content = (photos / "train" / "red" / "0.png").read_bytes()
    (photos / "train" / "red" / "0.png").write_bytes(content.removesuffix(b"more"))
    train(tiny_run, stopped, progress=False)
    train(tiny_run, tmp_path / "whole", progress=False)
    assert _result(stopped) == _result(tmp_path / "whole")
