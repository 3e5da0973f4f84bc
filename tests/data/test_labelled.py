from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from vitreous.data.datasets import open_dataset
from vitreous.data.labelled import LabelledImages, hash_list
from vitreous.data.preprocess import Preprocess
from vitreous.data.transforms import to_pixels
from vitreous.errors import InputError


def photos(folder: Path, suffix: str = "jpg") -> Path:
    for number, (name, colour) in enumerate((("cat", "red"), ("cat", "blue"), ("dog", "green"))):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.effect_noise((40 + number, 30), 90).convert("RGB").save(folder / name / f"{colour}.{suffix}")
    return folder


def test_another_place_is_the_same_data_and_any_other_change_is_not(tmp_path: Path) -> None:
    photos(tmp_path / "a")
    images = open_dataset(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    assert open_dataset(tmp_path / "b").fingerprint == images.fingerprint
    one_label = (*images.labels[:-1], 0)
    names = (*images.image_names[:-1], "dog/greener.jpg")
    sizes = (*images.sizes[:-1], 1)
    changed = [
        replace(images, split="train"),
        replace(images, class_names=("cat", "cow")),
        replace(images, labels=one_label),
        replace(images, image_names=names),
        replace(images, sizes=sizes),
    ]
    assert len({images.fingerprint, *(other.fingerprint for other in changed)}) == 6
    assert replace(images, name="elsewhere").fingerprint == images.fingerprint


def test_a_fingerprint_is_not_fooled_by_where_one_name_ends() -> None:
    assert hash_list(["ab", "c"]) != hash_list(["a", "bc"]) != hash_list(["abc"])
    assert hash_list([]) != hash_list([""])
    assert len(hash_list(["stray \udcff byte"])) == 32


def test_a_fingerprint_is_the_hash_of_these_bytes_and_no_others() -> None:
    images = LabelledImages("x", "train", ("a", "bc"), (0, 1), ("0", "1"), len, sizes=(3,))  # type: ignore[arg-type]
    one, two = b"\0\0\0\0\0\0\0\x01", b"\0\0\0\0\0\0\0\x02"  # lengths stand before texts
    columns = (one + b"a" + two + b"bc", one + b"0" + one + b"1", one + b"0" + one + b"1", one + b"3")
    hashed = b"".join(hashlib.sha256(column).digest() for column in columns)
    assert images.fingerprint == hashlib.sha256(b"train" + hashed).hexdigest()
    assert pickle.loads(pickle.dumps(images)).fingerprint == images.fingerprint


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("resampler", ["pillow", "torch", "torch-float", "tensorflow"])
def test_pixels_are_those_of_the_picture(tmp_path: Path, resampler: str, suffix: str) -> None:
    images = open_dataset(photos(tmp_path, suffix))
    preprocess = Preprocess((16, 16), "crop", interpolation="bilinear", resampler=resampler)
    for index in range(3):
        wanted = to_pixels(images.read(index), preprocess)
        assert torch.equal(images.pixels(index, preprocess), wanted)
        assert torch.equal(replace(images, content=None).pixels(index, preprocess), wanted)


def test_a_file_that_went_away_or_changed_since_it_was_listed_is_named(tmp_path: Path) -> None:
    images = open_dataset(photos(tmp_path))
    (tmp_path / "cat" / "blue.jpg").unlink()
    (tmp_path / "cat" / "red.jpg").write_bytes(b"")
    for read in (images.read, lambda index: images.pixels(index, Preprocess((8, 8)))):
        with pytest.raises(InputError, match=r"blue\.jpg: no such file"):
            read(0)
        with pytest.raises(InputError, match=r"red\.jpg: the file is empty"):
            read(1)


def test_a_census_counts_each_class_and_tells_which_one_changed(tmp_path: Path) -> None:
    images = open_dataset(photos(tmp_path))
    before = images.census
    assert before["fingerprint"] == images.fingerprint and before["images"] == {"cat": 2, "dog": 1}
    assert before == json.loads(json.dumps(before)) == replace(images, name="elsewhere").census
    (tmp_path / "dog" / "green.jpg").write_bytes(b"of another size")
    after = open_dataset(tmp_path).census
    assert after["hashes"]["cat"] == before["hashes"]["cat"] and after["hashes"]["dog"] != before["hashes"]["dog"]
    assert replace(images, sizes=(1,)).census["images"] == before["images"]  # sizes of larger parts are no image's
    assert replace(images, image_names=("stray \udcff byte", *images.image_names[1:])).census["hashes"]
