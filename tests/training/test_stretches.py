from __future__ import annotations

import hashlib
import io
import json
import os
import random
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vitreous.data.datasets import open_dataset
from vitreous.data.order import epoch_order, keyed_seed
from vitreous.data.sources.streams import BEGINNING, LabelledStream, StreamPlace, open_stream
from vitreous.data.training_batches import TrainingImages
from vitreous.errors import ConfigError, InputError, MemoryLimitError
from vitreous.interrupts import Terminated
from vitreous.training import loop, preparing
from vitreous.training.config import Keeping, TrainConfig
from vitreous.training.loop import train
from vitreous.training.stretches import stretches

library = pytest.importorskip("datasets")

SHARDS = (range(10), range(10, 11), range(11, 18))
WINDOWS = {0: [4, 4, 2], 1: [1], 2: [4, 3]}  # of 4 images, by shard
VARYING = ("elapsed_seconds", "train_images_per_second", "mfu", "peak_memory_mib")


@pytest.fixture
def stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """18 noisy squares, red and blue, in shards of 10, 1 and 7, and 6 to test with; read in windows of 4."""
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(preparing, "open_stream", partial(open_stream, window=4))
    features = library.Features({"image": library.Image(), "label": library.ClassLabel(names=["blue", "red"])})
    (tmp_path / "set" / "data").mkdir(parents=True)
    parts = [(f"train-{n:05}-of-00003", shard) for n, shard in enumerate(SHARDS)]
    for name, numbers in (*parts, ("test-00000-of-00001", range(100, 106))):
        rows = {"image": [{"bytes": _png(n), "path": None} for n in numbers], "label": [n % 2 for n in numbers]}
        library.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "set/data" / f"{name}.parquet"))
    return f"hf-stream:{tmp_path}/set"


def _png(number: int) -> bytes:
    draw, content = random.Random(number), io.BytesIO()
    colours = bytes(
        draw.randrange(100) + 120 * (channel == 2 - 2 * (number % 2)) for _ in range(64) for channel in range(3)
    )
    Image.frombytes("RGB", (8, 8), colours).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def config(tiny_run: TrainConfig, stream: str) -> TrainConfig:
    """Two epochs of nine steps and a part of the third; no batch crosses the end of a window."""
    return replace(tiny_run, data=stream, steps=20, batch_size=3)


def _result(folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """The bits of the weights, and the metrics without what depends on the clock."""
    bits = hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return bits, [{name: value for name, value in line.items() if name not in VARYING} for line in lines]


def _steps_of_epochs(epochs: int, batch_size: int) -> list[int]:
    """Steps that are done after each window, over some epochs."""
    ends, done = [], 0
    for epoch in range(epochs):
        for shard in epoch_order(3, seed=0, epoch=epoch).tolist():
            for images in WINDOWS[shard]:
                done += -(-images // batch_size)
                ends.append(done)
    return ends


def test_a_data_set_is_one_stretch_and_a_stream_has_one_for_each_window(stream: str, photos: Path) -> None:
    images = TrainingImages(open_dataset(photos, "train"))
    (only,) = stretches(images, seed=0, epoch=3, start=BEGINNING)
    assert only.images is images and only.key == 3
    assert list(stretches(images, seed=0, epoch=3, start=only.following)) == []
    opened = open_stream(stream, "train", window=4)
    found = list(stretches(opened, seed=0, epoch=3, start=BEGINNING))
    windows = list(opened.windows(seed=0, epoch=3))
    assert [part.images.images.image_names for part in found] == [window.images.image_names for window in windows]
    assert [part.key for part in found] == [keyed_seed(3, *window.place) for window in windows]
    assert len({part.key for epoch in (3, 4) for part in stretches(opened, seed=0, epoch=epoch, start=BEGINNING)}) == 12
    for number, part in enumerate(found):
        rest = list(stretches(opened, seed=0, epoch=3, start=part.following))
        assert [other.key for other in rest] == [other.key for other in found[number + 1 :]]


def test_a_stream_of_nothing_is_refused() -> None:
    nothing = LabelledStream("hf-stream:none", "train", ("a", "b"), 2, 4, lambda shard, left_out: iter(()))
    with pytest.raises(InputError, match="no rows in its part train"):
        list(stretches(nothing, seed=0, epoch=0, start=BEGINNING))
    assert list(stretches(nothing, seed=0, epoch=0, start=StreamPlace(1, 3))) == []


def test_each_epoch_sees_every_image_of_the_stream_once_a_window_at_a_time(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    keys: set[int] = set()
    inner = loop.training_batches

    def watched(images: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(sorted(int(name.partition("#")[2]) for name in images.images.image_names))
        keys.add(options["epoch"])
        return inner(images, *arguments, **options)

    monkeypatch.setattr(loop, "training_batches", watched)
    ends = _steps_of_epochs(2, 3)
    train(replace(config, steps=ends[-1]), tmp_path / "run", progress=False)
    wanted = []
    for epoch in range(2):
        for shard in epoch_order(3, seed=0, epoch=epoch).tolist():
            lengths = WINDOWS[shard]
            wanted += [list(range(sum(lengths[:n]), sum(lengths[: n + 1]))) for n in range(len(lengths))]
    assert seen == wanted and len(keys) == len(wanted)  # else windows of one length would have one order
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, ends[5]), (2, ends[11])]
    assert lines[-1]["train_loss_nats"] < lines[0]["train_loss_nats"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_that_was_stopped_at_any_step_goes_on_with_the_same_bits(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """In the middle of windows, at their ends, at the ends of epochs, and with the last step done."""
    train(config, tmp_path / "whole", progress=False)
    stops = set(range(config.steps or 0)) if not workers else {1, 9}
    done: list[int] = []
    inner = loop._step

    def stop(run: Any, step: int, *arguments: Any) -> Any:
        done.append(step)
        if step in stops:
            os.kill(os.getpid(), signal.SIGTERM)
        return inner(run, step, *arguments)

    monkeypatch.setattr(loop, "_step", stop)
    for step in sorted(stops):
        with pytest.raises(Terminated, match=f"stopped after step {step + 1} of 20, saved"):
            train(replace(config, workers=workers), tmp_path / "stopped", progress=False)
    train(replace(config, workers=workers), tmp_path / "stopped", progress=False)
    assert done == list(range(20))  # no step twice
    assert _result(tmp_path / "stopped") == _result(tmp_path / "whole")


def test_a_stream_that_ended_without_warning_goes_on_from_its_last_state(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, task="masked-patches", keep=Keeping(state_seconds=0))
    train(config, tmp_path / "whole", progress=False)
    lost = {2, 3, 8, 19}
    inner = loop._step

    def lose(run: Any, step: int, *arguments: Any) -> Any:
        if step in lost:
            lost.remove(step)
            raise MemoryError
        return inner(run, step, *arguments)

    monkeypatch.setattr(loop, "_step", lose)
    for _ in range(4):
        with pytest.raises(MemoryLimitError):
            train(config, tmp_path / "lost", progress=False)
    train(config, tmp_path / "lost", progress=False)
    assert _result(tmp_path / "lost") == _result(tmp_path / "whole")


def test_images_of_a_stream_that_cannot_be_read_are_listed_by_name(config: TrainConfig, tmp_path: Path) -> None:
    file = tmp_path / "set" / "data" / "train-00001-of-00003.parquet"
    features = library.Features({"image": library.Image(), "label": library.ClassLabel(names=["blue", "red"])})
    rows = {"image": [{"bytes": b"no image", "path": None}], "label": [0]}
    library.Dataset.from_dict(rows, features=features).to_parquet(str(file))
    train(replace(config, unreadable="skip"), tmp_path / "run", progress=False)
    _, row = (tmp_path / "run" / "skipped.tsv").read_text().splitlines()
    assert row.split("\t")[:2] == ["train", "train/1#0"]


def test_a_stream_needs_a_number_of_steps_and_more_than_one_class(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="how many images a stream has is not known; set steps"):
        train(replace(config, steps=None), tmp_path / "run", progress=False)
    features = library.Features({"image": library.Image(), "label": library.ClassLabel(names=["blue"])})
    for file in (tmp_path / "set" / "data").iterdir():
        rows = {"image": [{"bytes": _png(0), "path": None}], "label": [0]}
        library.Dataset.from_dict(rows, features=features).to_parquet(str(file))
    with pytest.raises(InputError, match="are of one class, blue"):
        train(config, tmp_path / "run", progress=False)
