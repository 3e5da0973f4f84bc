"""Data sets that need no files: scikit-learn's digits, and shapes that are drawn when asked for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vitreous.data.labelled import LabelledImages, Split
from vitreous.data.order import uniform
from vitreous.errors import InputError

DIGITS_SEED = 0
"""Of the fixed split into digits to train with and digits held out."""

DIGITS_HELD_OUT = 36
"""Of each of the ten digits: a fifth."""

SYNTHETIC_SEEDS: dict[Split, int] = {"train": 0, "test": 1}
"""Of the noise and the places; so the parts share no image."""

LARGEST_SYNTHETIC = 1024
"""Pixels a side: all of an image's numbers are drawn at once."""


def digits(split: Split) -> LabelledImages:
    """Scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, 36 of each held out.

    Raises:
        InputError: if scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise InputError("digits: needs scikit-learn; pip install scikit-learn") from None
    bunch = load_digits()
    labels = bunch.target.tolist()
    # grey levels 0 to 16, ink is bright -> (images, 8, 8) uint8
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    of_digit = [[n for n, label in enumerate(labels) if label == digit] for digit in range(10)]
    chosen = sorted(n for samples in of_digit for n in _digit_split(samples, split))

    return LabelledImages(
        name="digits",
        split=split,
        class_names=tuple("0123456789"),
        labels=tuple(labels[n] for n in chosen),
        image_names=tuple(f"digits/{n:04}" for n in chosen),
        read=partial(_read_grey, grey[chosen]),
    )


def synthetic(name: str, split: Split) -> LabelledImages:
    """A square or a disc of its class's colour, somewhere on noise: to see that a recipe starts, and learns.

    `synthetic:IMAGESxCLASSESxHEIGHT` has so many images to train with and a quarter of them, at least one of each
    class, to test with. `synthetic` alone has 10 classes of 64 images, 32 pixels a side. Classes take turns. An image
    depends on its part, its index and its size alone.

    Raises:
        InputError: if the name is of another form.
    """
    form = re.fullmatch(r"synthetic(?::([1-9]\d{0,8})x([1-9]\d{0,5})x([1-9]\d{0,3}))?", name)
    images, classes, height = (int(n) for n in form.groups("0")) if form else (0, 0, 0)
    if form and not images:
        images, classes, height = 640, 10, 32
    if not form or classes > images or not 4 <= height <= LARGEST_SYNTHETIC:
        raise InputError(
            f"{name}: no such data set; expected synthetic:IMAGESxCLASSESxHEIGHT, such as synthetic:640x10x32, with "
            f"an image for each class and 4 to {LARGEST_SYNTHETIC} pixels"
        )
    drawn = images if split == "train" else max(images // 4, classes)
    return LabelledImages(
        name=name,
        split=split,
        class_names=tuple(f"{'disc' if label % 2 else 'square'} {label}" for label in range(classes)),
        labels=tuple(n % classes for n in range(drawn)),
        image_names=tuple(f"synthetic/{split}/{n}" for n in range(drawn)),
        read=partial(_drawn, classes, height, SYNTHETIC_SEEDS[split]),
    )


BUILT_IN: dict[str, Callable[[Split], LabelledImages]] = {
    "digits": digits,
    "synthetic": partial(synthetic, "synthetic"),
}


def _digit_split(samples: list[int], split: Split) -> list[int]:
    """The part of one digit's samples; by hashes, so that it is the same in any library's version."""

    def rank(sample: int) -> bytes:
        return hashlib.sha256(f"digits {DIGITS_SEED} {sample}".encode()).digest()

    shuffled = sorted(samples, key=rank)
    return shuffled[:DIGITS_HELD_OUT] if split == "test" else shuffled[DIGITS_HELD_OUT:]


def _read_grey(levels: NDArray[np.uint8], index: int) -> Image.Image:
    return Image.fromarray(levels[index]).convert("RGB")


def _drawn(classes: int, height: int, seed: int, index: int) -> Image.Image:
    draws = uniform(torch.tensor([index]), 3 + height * height, seed=seed, epoch=0)[0].numpy()
    label = index % classes
    middle = (0.3 + 0.4 * draws[:2]) * height  # row, column
    reach = (0.15 + 0.1 * draws[2]) * height
    far = np.abs(np.arange(height)[:, None] + 0.5 - middle)  # (height, 2): of each row, and of each column
    inside = np.hypot(*np.ix_(far[:, 0], far[:, 1])) < reach if label % 2 else np.maximum.outer(*far.T) < reach
    pixels = np.repeat((draws[3:].reshape(height, height, 1) * 128).astype(np.uint8), 3, axis=2)
    pixels[inside] = _colour(label, classes)
    return Image.fromarray(pixels)


def _colour(label: int, classes: int) -> tuple[int, int, int]:
    """Hues evenly around the circle, all bright."""
    place = 6 * label / classes
    red, green, blue = (min(max(abs((place + turn) % 6 - 3) - 1, 0), 1) for turn in (0, 4, 2))
    return round(255 * red), round(255 * green), round(255 * blue)
