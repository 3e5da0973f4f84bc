from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from vitreous.data.datasets import open_dataset
from vitreous.data.preprocess import Preprocess
from vitreous.errors import InputError


def test_a_synthetic_set_has_the_images_classes_and_pixels_of_its_name() -> None:
    train, test = (open_dataset("synthetic:100x7x24", split) for split in ("train", "test"))
    assert (len(train), len(test), len(train.class_names)) == (100, 25, 7)
    assert torch.tensor(train.labels).bincount().tolist() == [15, 15, 14, 14, 14, 14, 14]
    assert train.read(99).size == (24, 24)
    assert len(open_dataset("synthetic:8x8x4", "test")) == 8
    assert len(open_dataset("synthetic", "train")) == 640


def test_a_synthetic_image_is_always_the_same_and_no_two_are_alike() -> None:
    train = open_dataset("synthetic:40x4x16", "train")
    again = pickle.loads(pickle.dumps(train))
    pictures = [np.asarray(train.read(n)).tobytes() for n in range(40)]
    assert [np.asarray(again.read(n)).tobytes() for n in reversed(range(40))] == pictures[::-1]
    assert len(set(pictures)) == 40
    test = open_dataset("synthetic:40x4x16", "test")
    assert not {np.asarray(test.read(n)).tobytes() for n in range(10)} & set(pictures)
    assert train.fingerprint != test.fingerprint


def test_a_synthetic_class_is_a_colour_and_a_shape() -> None:
    images = open_dataset("synthetic:12x6x64", "train")
    colours = [(255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255)]
    for n in range(12):
        pixels = np.asarray(images.read(n)).astype(int)
        inside = (pixels == colours[n % 6]).all(-1)
        rows, columns = (np.ptp(np.flatnonzero(inside.any(axis))) + 1 for axis in (1, 0))
        share = inside.sum() / (rows * columns)  # of the square around it
        assert abs(rows - columns) <= 1
        assert share == pytest.approx(np.pi / 4 if n % 2 else 1, abs=0.03)
        assert (pixels[~inside] < 128).all() and np.ptp(pixels[~inside], axis=-1).max() == 0  # grey noise


def test_a_straight_line_of_pixels_tells_synthetic_classes_apart() -> None:
    preprocess = Preprocess((16, 16), "squash", 1.0)
    features, labels = [], []
    for split in ("train", "test"):
        images = open_dataset("synthetic:400x4x16", split)
        pixels = torch.stack([images.pixels(n, preprocess) for n in range(len(images))]).float().div(255)
        features.append(torch.cat([pixels.mean((2, 3)), torch.ones(len(images), 1)], dim=1).double())
        labels.append(torch.tensor(images.labels))
    weights = torch.linalg.lstsq(features[0], torch.nn.functional.one_hot(labels[0], 4).double()).solution
    right = (features[1] @ weights).argmax(1) == labels[1]
    assert right.double().mean() > 0.9


WRONG = ["", "10", "3x4x32", "9x3x3", "9x3x2000", "0x0x0", "9x3x32x1", "-9x3x32"]


@pytest.mark.parametrize("form", WRONG)
def test_another_form_of_name_is_refused(form: str) -> None:
    with pytest.raises(InputError, match="no such data set; expected synthetic:IMAGESxCLASSESxHEIGHT"):
        open_dataset(f"synthetic:{form}")
