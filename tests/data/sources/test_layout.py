from __future__ import annotations

from pathlib import Path

import pytest

from vitreous.data.sources.layout import part_of
from vitreous.errors import InputError


def made(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.touch()
    return folder


def names(folder: Path, split: str) -> list[str]:
    return [str(path.relative_to(folder)) for path in part_of(folder, split)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("files", "train", "test"),
    [
        (["train/a/", "test/a/"], ["train"], ["test"]),
        (["train/a/", "val/a/"], ["train"], ["val"]),
        (["train/a/", "val/a/", "test/a/"], ["train"], ["test"]),
        (["train.parquet", "test.parquet"], ["train.parquet"], ["test.parquet"]),
        (["train/b.tar", "train/a.tar", "validation/a.tar"], ["train/a.tar", "train/b.tar"], ["validation/a.tar"]),
        (["in1k-train-01.tar", "in1k-train-00.tar", "in1k-validation-00.tar"],
         ["in1k-train-00.tar", "in1k-train-01.tar"], ["in1k-validation-00.tar"]),
        (["data/train-00000-of-00001.parquet", "data/valid-00000-of-00001.parquet"],
         ["data/train-00000-of-00001.parquet"], ["data/valid-00000-of-00001.parquet"]),
        (["train.tar", "test.tar", "trains.tar", ".train.tar"], ["train.tar"], ["test.tar"]),
    ],
)  # fmt: skip
def test_parts_are_found_by_their_names(tmp_path: Path, files: list[str], train: list[str], test: list[str]) -> None:
    made(tmp_path, *files)
    assert (names(tmp_path, "train"), names(tmp_path, "test")) == (train, test)


def test_what_has_no_parts_is_all_for_testing(tmp_path: Path) -> None:
    made(tmp_path / "classes", "a/", "b/")
    assert names(tmp_path / "classes", "test") == ["."]
    made(tmp_path / "files", "0.tar", "1.tar")
    assert names(tmp_path / "files", "test") == ["0.tar", "1.tar"]
    for folder in ("classes", "files"):
        with pytest.raises(InputError, match="no part to train with"):
            part_of(tmp_path / folder, "train")


def test_a_class_may_be_called_train_but_a_lone_train_is_a_part(tmp_path: Path) -> None:
    made(tmp_path / "vehicles", "train/", "truck/")
    assert names(tmp_path / "vehicles", "test") == ["."]
    for name, file in (("a", "train/x/"), ("b", "train-00000-of-00001.parquet"), ("c", "x-train-0.tar")):
        with pytest.raises(InputError, match="has a part train, but none to test with"):
            part_of(made(tmp_path / name, file), "test")
