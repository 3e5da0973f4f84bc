from __future__ import annotations

import io
import json
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vitreous.data.datasets import open_dataset
from vitreous.data.gather import gather_pictures
from vitreous.data.sources.parquet_files import noted_names, numbered
from vitreous.errors import InputError

pyarrow = pytest.importorskip("pyarrow")


def png(grey: int) -> bytes:
    content = io.BytesIO()
    Image.new("L", (3, 2), grey).save(content, "PNG")
    return content.getvalue()


def note(names: list[str], columns: tuple[str, str]) -> dict[bytes, bytes]:
    features = {columns[0]: {"_type": "Image"}, columns[1]: {"names": names, "_type": "ClassLabel"}}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def written(
    path: Path,
    greys: range,
    labels: list[Any] | None = None,
    names: list[str] | None = None,
    columns: tuple[str, str] = ("image", "label"),
    group: int = 4,
) -> Path:
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": png(grey), "path": None} for grey in greys]
    table = pyarrow.table({columns[0]: images, columns[1]: labels or [grey % 2 for grey in greys]})
    parquet.write_table(
        table.replace_schema_metadata(note(names, columns) if names else {}), path, row_group_size=group
    )
    return path


def grey(image: Image.Image) -> int:
    return image.getpixel((0, 0))[0]


def shards(folder: Path) -> Path:
    for number, greys in enumerate((range(10), range(10, 11), range(11, 25))):
        written(folder / "data" / f"train-{number:05}-of-00003.parquet", greys, names=["cat", "dog"])
    written(folder / "data" / "validation-00000-of-00001.parquet", range(100, 103), names=["cat", "dog"])
    return folder


def test_shards_are_one_data_set_in_any_order(tmp_path: Path) -> None:
    images = open_dataset(shards(tmp_path), "train")
    assert (len(images), images.class_names) == (25, ("cat", "dog"))
    assert images.labels == tuple(n % 2 for n in range(25))
    assert images.image_names[9:12] == (
        "train-00000-of-00003.parquet#9", "train-00001-of-00003.parquet#0", "train-00002-of-00003.parquet#0",
    )  # fmt: skip
    order = [*range(25), *random.Random(0).choices(range(25), k=50)]
    assert [grey(images.read(row)) for row in order] == order
    again = pickle.loads(pickle.dumps(images))
    assert [grey(again.read(row)) for row in (24, 3, 10)] == [24, 3, 10]
    assert images.content(10).name == images.image_names[10]
    assert [grey(open_dataset(tmp_path).read(row)) for row in range(3)] == [100, 101, 102]


def test_shards_are_read_as_datasets_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip("datasets")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    theirs = library.load_dataset(str(shards(tmp_path / "set")), split="train")
    theirs = theirs.cast_column("image", library.Image(decode=False))
    images = open_dataset(tmp_path / "set", "train")
    assert [row["image"]["bytes"] for row in theirs] == [images.content(row).data for row in range(25)]
    assert list(theirs["label"]) == list(images.labels)


def test_what_datasets_writes_is_read(tmp_path: Path) -> None:
    library = pytest.importorskip("datasets")
    features = library.Features({"img": library.Image(), "fine_label": library.ClassLabel(names=["b", "a"])})
    rows = {"img": [{"bytes": png(n), "path": None} for n in range(5)], "fine_label": [0, 1, 1, 0, 1]}
    library.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "test-00000-of-00001.parquet"))
    images = open_dataset(tmp_path)
    assert (images.class_names, images.labels) == (("b", "a"), (0, 1, 1, 0, 1))
    assert [grey(images.read(n)) for n in range(5)] == list(range(5))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    shards(tmp_path)
    (tmp_path / "data" / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(InputError, match="train: 2 of 3 shards are there, number 1 is not"):
        open_dataset(tmp_path, "train")


def test_shards_of_different_sets_are_refused(tmp_path: Path) -> None:
    shards(tmp_path)
    written(tmp_path / "data" / "train-00002-of-00003.parquet", range(3), names=["dog", "cat"])
    with pytest.raises(InputError, match=r"train-00002-of-00003\.parquet: has other class names"):
        open_dataset(tmp_path, "train")


def test_a_shard_that_went_away_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    images = open_dataset(shards(tmp_path), "train")
    (tmp_path / "data" / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(InputError, match=r"train-00001-of-00003\.parquet#0: cannot be read"):
        images.read(10)
    assert [grey(images.read(row)) for row in (9, 11, 24)] == [9, 11, 24]


@pytest.mark.parametrize("columns", [("img", "labels"), ("image", "fine_label"), ("jpg", "cls")])
def test_columns_may_have_other_names(tmp_path: Path, columns: tuple[str, str]) -> None:
    images = open_dataset(written(tmp_path / "a.parquet", range(3), names=["x", "y"], columns=columns))
    assert (images.class_names, images.labels, grey(images.read(2))) == (("x", "y"), (0, 1, 0), 2)


def test_a_column_of_plain_bytes_is_read(tmp_path: Path) -> None:
    from pyarrow import parquet

    table = pyarrow.table({"image": [png(n) for n in range(40)], "label": [0] * 40})
    parquet.write_table(table, tmp_path / "a.parquet")
    images = open_dataset(tmp_path / "a.parquet")
    assert [grey(images.read(n)) for n in (39, 0, 17)] == [39, 0, 17]


def test_labels_may_be_words(tmp_path: Path) -> None:
    images = open_dataset(written(tmp_path / "a.parquet", range(3), labels=["dog", "cat", "dog"]))
    assert (images.class_names, images.labels) == (("cat", "dog"), (1, 0, 1))
    with pytest.raises(InputError, match="label 'emu' is not among the 2 class names"):
        open_dataset(written(tmp_path / "a.parquet", range(3), labels=["dog", "cat", "emu"], names=["cat", "dog"]))


@pytest.mark.parametrize(
    ("labels", "cause"),
    [
        ([0, None, 1], r"expected whole numbers from 0 to 1, None came \(1 of 3 labels\)"),
        ([0, 0.5, 1], "a label is no class"),
        ([0, -1, 1], "-1 came"),
        ([0, 1, 2**40], "1,000,000 classes are allowed"),
        ([True, False, True], "a label is no class"),
    ],
)
def test_a_label_that_is_no_class_is_named(tmp_path: Path, labels: list[Any], cause: str) -> None:
    with pytest.raises(InputError, match=cause):
        open_dataset(written(tmp_path / "a.parquet", range(3), labels=labels))


def test_an_empty_word_is_a_label_that_is_no_class(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="label '' is not among the 2 class names"):
        numbered(["cat", ""], ("cat", "dog"), tmp_path)


def test_two_classes_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two classes are called 'cat'"):
        numbered([0, 1, 2], ("cat", "dog", "cat"), tmp_path)


@pytest.mark.parametrize("names", ['"abc"', "[" * 100_000 + "]" * 100_000, "7", "null"])
def test_a_note_without_a_list_of_names_is_no_note(names: str) -> None:
    told = '{"info": {"features": {"label": {"names": ' + names + "}}}}"
    assert noted_names({b"huggingface": told.encode()}, "label") is None


def test_other_columns_are_listed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"columns picture, label\); expected image and label"):
        open_dataset(written(tmp_path / "a.parquet", range(3), columns=("picture", "label")))


def test_the_fingerprint_changes_with_what_is_in_the_file(tmp_path: Path) -> None:
    first = open_dataset(written(tmp_path / "a.parquet", range(3))).fingerprint
    assert open_dataset(tmp_path / "a.parquet").fingerprint == first
    written(tmp_path / "a.parquet", range(3), group=2)
    assert open_dataset(tmp_path / "a.parquet").fingerprint != first


def test_pictures_of_shards_can_be_looked_at(tmp_path: Path) -> None:
    pictures = gather_pictures(shards(tmp_path))
    assert pictures.names[0] == "validation-00000-of-00001.parquet#0"
    assert pictures.size_of(0) == (2, 3)
