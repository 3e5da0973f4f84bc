from __future__ import annotations

import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image

from vitreous.data.in_memory import keep_pictures, keep_pixels
from vitreous.data.labelled import LabelledImages
from vitreous.data.preprocess import Preprocess
from vitreous.errors import InputError


@dataclass
class Drawn:
    """Reads pictures of several sizes; some cannot be read."""

    unreadable: tuple[int, ...] = ()
    asked: int = 0

    def __call__(self, index: int) -> Image.Image:
        self.asked += 1
        if index in self.unreadable:
            raise InputError(f"picture {index} is broken")
        generator = np.random.default_rng(index)
        size = (6 + index % 3, 5 + index % 4, 3)
        return Image.fromarray(generator.integers(0, 256, size, dtype=np.uint8))


def data(read: Drawn, images: int = 20) -> LabelledImages:
    names = tuple(f"image {index}" for index in range(images))
    return LabelledImages("drawn", "train", ("a", "b"), (0, 1) * (images // 2), names, read)


@pytest.mark.parametrize("workers", [0, 3])
def test_kept_pixels_are_those_of_each_picture(workers: int) -> None:
    images, preprocess = data(Drawn()), Preprocess((4, 6))
    kept = keep_pixels(images, preprocess, workers=workers)
    assert kept is not None
    pixels, causes = kept
    assert torch.equal(pixels, torch.stack([images.pixels(index, preprocess) for index in range(20)]))
    assert causes == {}


def test_kept_pixels_are_float_where_the_preprocessing_does_not_round() -> None:
    kept = keep_pixels(data(Drawn()), Preprocess((4, 6), "squash", 1.0, "bilinear", resampler="torch-float"))
    assert kept is not None and kept[0].dtype == torch.float32


def test_kept_pictures_are_read_from_memory() -> None:
    read = Drawn()
    kept = pickle.loads(pickle.dumps(keep_pictures(data(read))))
    asked = read.asked
    for index in range(20):
        assert kept.read(index).tobytes() == Drawn()(index).tobytes()
        assert kept.read(index).size == Drawn()(index).size
    assert read.asked == asked
    assert kept.labels == data(read).labels


def test_a_picture_that_cannot_be_read_is_told_apart() -> None:
    kept = keep_pixels(data(Drawn((3, 7))), Preprocess((4, 4)))
    assert kept is not None and kept[1] == {3: "picture 3 is broken", 7: "picture 7 is broken"}
    assert not kept[0][3].any() and kept[0][4].any()
    pictures = keep_pictures(data(Drawn((3, 7))))
    with pytest.raises(InputError, match="picture 7 is broken"):
        pictures.read(7)
    assert pictures.read(8).tobytes() == Drawn()(8).tobytes()


def test_nothing_is_read_where_only_broken_pictures_are() -> None:
    pictures = keep_pictures(data(Drawn(tuple(range(20)))))
    with pytest.raises(InputError, match="picture 0 is broken"):
        pictures.read(0)


def test_what_takes_more_than_the_limit_is_left_where_it_is() -> None:
    read = Drawn()
    assert keep_pixels(data(read), Preprocess((4, 6)), limit=20 * 3 * 24 - 1) is None
    assert read.asked == 0
    assert keep_pixels(data(read), Preprocess((4, 6)), limit=20 * 3 * 24) is not None
    images = data(Drawn(), 200)
    assert keep_pictures(images, limit=1000) is images
    assert images.read.asked < 20  # a few tell that all would not fit


def test_pictures_that_turn_out_larger_than_those_sampled_are_left_where_they_are() -> None:
    def read(index: int) -> Image.Image:
        return Image.new("RGB", (1, 1) if index % 6 == 0 else (10, 10))  # 100 pictures: every 6th is sampled

    names = tuple(map(str, range(100)))
    images = LabelledImages("uneven", "train", ("a", "b"), (0, 1) * 50, names, read)
    assert keep_pictures(images, limit=2000) is images
    assert keep_pictures(images, limit=83 * 300 + 17 * 3) is not images
