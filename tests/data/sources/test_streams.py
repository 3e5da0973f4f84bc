from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vitreous.data.datasets import open_dataset
from vitreous.data.order import epoch_order
from vitreous.data.sources import streams
from vitreous.data.sources.streams import LabelledStream, StreamPlace, open_stream
from vitreous.errors import InputError, MemoryLimitError

library = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def png(grey: int) -> bytes:
    content = io.BytesIO()
    Image.new("L", (3, 2), grey).save(content, "PNG")
    return content.getvalue()


def greys(images: Any) -> list[int]:
    return [images.read(n).getpixel((0, 0))[0] for n in range(len(images))]


SHARDS = (range(10), range(10, 11), range(11, 25), range(25, 31))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """31 images in shards of 10, 1, 14 and 6, and 3 to test with."""
    features = library.Features({"image": library.Image(), "label": library.ClassLabel(names=["even", "odd"])})
    (tmp_path / "set" / "data").mkdir(parents=True)
    parts = [(f"train-{n:05}-of-00004", shard) for n, shard in enumerate(SHARDS)]
    for name, numbers in (*parts, ("test-00000-of-00001", range(100, 103))):
        rows = {"image": [{"bytes": png(n), "path": None} for n in numbers], "label": [n % 2 for n in numbers]}
        file = tmp_path / "set" / "data" / f"{name}.parquet"
        library.Dataset.from_dict(rows, features=features).to_parquet(str(file))
    return tmp_path / "set"


@pytest.fixture
def stream(folder: Path) -> LabelledStream:
    return open_stream(f"hf-stream:{folder}", "train", window=4)


def test_an_epoch_has_every_sample_once_shard_by_shard(stream: LabelledStream) -> None:
    assert (stream.shards, stream.class_names) == (4, ("even", "odd"))
    order = epoch_order(4, seed=3, epoch=2).tolist()
    windows = list(stream.windows(seed=3, epoch=2))
    assert [n for window in windows for n in greys(window.images)] == [n for shard in order for n in SHARDS[shard]]
    lengths = [len(window.images) for window in windows]
    wanted = {0: [4, 4, 2], 1: [1], 2: [4, 4, 4, 2], 3: [4, 2]}
    assert lengths == [length for shard in order for length in wanted[shard]]
    for window in windows:
        assert list(window.images.labels) == [n % 2 for n in greys(window.images)]
    names = [name for window in windows for name in window.images.image_names]
    assert len(set(names)) == 31


def test_shards_come_in_the_order_in_which_datasets_gives_them(stream: LabelledStream, folder: Path) -> None:
    theirs = library.load_dataset(str(folder), split="train", streaming=True)
    theirs = theirs.cast_column("image", library.Image(decode=False))
    ours = stream.gathered()
    assert [row["image"]["bytes"] for row in theirs] == [ours.content(n).data for n in range(31)]
    assert [row["label"] for row in theirs] == list(ours.labels)


def test_an_epoch_goes_on_at_any_window_with_the_same_samples(stream: LabelledStream) -> None:
    whole = list(stream.windows(seed=0, epoch=1))
    for position, window in enumerate(whole):
        rest = list(stream.windows(seed=0, epoch=1, start=window.place))
        assert [(w.place, w.following, w.images.image_names) for w in rest] == [
            (w.place, w.following, w.images.image_names) for w in whole[position:]
        ]
        after = list(stream.windows(seed=0, epoch=1, start=window.following))
        assert [greys(w.images) for w in after] == [greys(w.images) for w in whole[position + 1 :]]
    assert list(stream.windows(seed=0, epoch=1, start=StreamPlace(4))) == []


def test_epochs_and_seeds_have_orders_of_their_own(stream: LabelledStream) -> None:
    orders = {
        tuple(window.images.image_names[0] for window in stream.windows(seed=seed, epoch=epoch))
        for seed in range(2)
        for epoch in range(4)
    }
    assert len(orders) > 4


def test_what_was_read_of_a_window_is_dropped_when_it_is_over(stream: LabelledStream) -> None:
    asked: list[int] = []

    def is_over() -> bool:
        asked.append(1)
        return len(asked) > 7

    whole = list(stream.windows(seed=0, epoch=1))
    assert [window.place for window in stream.windows(seed=0, epoch=1, is_over=is_over)] == [whole[0].place]
    assert len(asked) <= 10


def test_no_shard_is_opened_when_it_is_over(stream: LabelledStream) -> None:
    opened: list[int] = []

    def read(shard: int, left_out: int) -> Any:
        opened.append(shard)
        return stream.read(shard, left_out)

    counted = replace(stream, read=read)
    assert list(counted.windows(seed=0, epoch=1, is_over=lambda: len(opened) == 2))
    assert len(opened) == 2


def test_only_a_window_is_read_ahead(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    rows = streams._rows

    def counted(*arguments: Any) -> Any:
        for sample in rows(*arguments):
            taken.append(1)
            yield sample

    monkeypatch.setattr(streams, "_rows", counted)
    windows = open_stream(f"hf-stream:{folder}", "train", window=4).windows(seed=0, epoch=0)
    next(windows)
    assert len(taken) <= 4


def test_a_stream_opened_as_a_data_set_is_gathered_within_a_limit(
    folder: Path, stream: LabelledStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = open_dataset(f"hf-stream:{folder}")
    assert (greys(images), images.image_names[0]) == ([100, 101, 102], "test#0")
    assert greys(stream.gathered(12)) == list(range(12))
    monkeypatch.setattr(streams, "MEMORY_LIMIT", 3 * len(png(0)))
    with pytest.raises(MemoryLimitError, match=r"its first \d images take the"):
        stream.gathered()


def test_labels_without_names_cannot_be_streamed(tmp_path: Path) -> None:
    features = library.Features({"image": library.Image(), "label": library.Value("int64")})
    rows = {"image": [{"bytes": png(0), "path": None}], "label": [0]}
    (tmp_path / "plain").mkdir()
    library.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "plain" / "test.parquet"))
    with pytest.raises(InputError, match="column label is no ClassLabel, so its classes are not known"):
        open_dataset(f"hf-stream:{tmp_path}/plain")


def test_a_shard_that_breaks_is_named(folder: Path, stream: LabelledStream) -> None:
    for number in range(4):
        file = folder / "data" / f"train-{number:05}-of-00004.parquet"
        file.write_bytes(b"PAR1" + file.read_bytes()[4:-9] + b"broken")
    with pytest.raises(InputError, match="datasets cannot read it") as caught:
        list(stream.windows(seed=0, epoch=0))
    assert "\n" not in str(caught.value)
