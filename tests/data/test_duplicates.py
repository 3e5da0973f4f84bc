from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from vitreous.data.datasets import open_dataset
from vitreous.data.duplicates import duplicates, duplicates_are_quick
from vitreous.data.images import Encoded
from vitreous.data.labelled import LabelledImages


def photos(folder: Path) -> tuple[LabelledImages, LabelledImages]:
    """One image to test with is also one to train with; another has only its size, a third only its pixels."""
    for part, greys in (("train", {"a": 1, "b": 2, "c": 2}), ("test", {"x": 9, "y": 2, "z": 1})):
        (folder / part / "class").mkdir(parents=True)
        for name, grey in greys.items():
            Image.new("L", (4, 4), grey).save(folder / part / "class" / f"{name}.png")
    saved_again = folder / "test" / "class" / "z.png"
    saved_again.write_bytes(saved_again.read_bytes() + b"a note behind the end")
    return open_dataset(folder, "train"), open_dataset(folder)


def test_the_same_file_in_both_parts_is_found_and_nothing_else(tmp_path: Path) -> None:
    learned, tested = photos(tmp_path)
    assert learned.sizes[0] == tested.sizes[0]
    found = duplicates(learned, tested)
    assert found == (("class/b.png", "class/y.png"),)
    assert duplicates(replace(learned, sizes=()), tested) == found


def test_without_files_pixels_are_compared(tmp_path: Path) -> None:
    learned, tested = photos(tmp_path)
    wanted = (("class/b.png", "class/y.png"), ("class/a.png", "class/z.png"))
    assert duplicates(replace(learned, content=None), tested) == wanted


def test_files_of_other_sizes_are_not_read_and_unreadable_ones_are_left_out(tmp_path: Path) -> None:
    learned, tested = photos(tmp_path)
    asked: list[int] = []

    def content(index: int) -> Encoded:
        asked.append(index)
        assert tested.content is not None
        return tested.content(index)

    (tmp_path / "train" / "class" / "b.png").unlink()
    found = duplicates(learned, replace(tested, content=content))
    assert found == (("class/c.png", "class/y.png"),)
    assert asked == [0, 1]


def test_small_files_are_quick_and_what_must_be_decoded_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learned, tested = photos(tmp_path)
    assert duplicates_are_quick(learned, tested)
    assert not duplicates_are_quick(learned, replace(tested, content=None))
    assert not duplicates_are_quick(replace(learned, sizes=()), tested)
    monkeypatch.setattr("vitreous.data.duplicates.QUICK", sum(learned.sizes) + sum(tested.sizes) - 1)
    assert not duplicates_are_quick(learned, tested)


def test_the_parts_of_the_digits_share_what_pixels_say() -> None:
    pytest.importorskip("sklearn")
    assert duplicates(open_dataset("digits", "train"), open_dataset("digits")) == ()


def test_broken_files_that_are_alike_are_no_duplicates(tmp_path: Path) -> None:
    photos(tmp_path)
    for part in ("train", "test"):
        (tmp_path / part / "class" / "broken.png").write_bytes(b"no image")
    found = duplicates(open_dataset(tmp_path, "train"), open_dataset(tmp_path))
    assert found == (("class/b.png", "class/y.png"),)
