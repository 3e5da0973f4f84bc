from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from vitreous.data.preprocess import HALF_MEAN, HALF_STD, Preprocess
from vitreous.data.transforms import normalise, to_pixels, to_tensor, undo
from vitreous.errors import ShapeError


def _photo(image_width: int, image_height: int) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (image_height, image_width, 3), dtype=np.uint8)
    return Image.fromarray(values)


SIZES = [(50, 37), (37, 50), (61, 61), (24, 24), (25, 24), (31, 100), (300, 24), (7, 5), (1, 1), (1, 40)]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("image_size", "fraction", "resize"),
    [
        ((24, 24), 0.875, "crop"),
        ((24, 24), 1.0, "crop"),
        ((23, 23), 0.9, "crop"),
        ((24, 32), 0.95, "crop"),
        ((32, 17), 0.875, "crop"),
        ((24, 24), 1.0, "squash"),
        ((20, 31), 1.0, "squash"),
    ],
)
def test_tensors_are_timms_bit_for_bit(
    image_size: tuple[int, int], fraction: float, resize: str, interpolation: str
) -> None:
    timm_data = pytest.importorskip("timm.data")
    preprocess = Preprocess(image_size, resize, fraction, interpolation)
    theirs = timm_data.create_transform(
        input_size=(3, *image_size),
        interpolation=interpolation,
        mean=preprocess.mean,
        std=preprocess.std,
        crop_pct=fraction,
        crop_mode="squash" if resize == "squash" else "center",
    )
    for size in SIZES:
        image = _photo(*size)
        tensor = to_tensor(image, preprocess)
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, theirs(image)), size


def test_an_image_of_the_right_size_is_left_as_it_is() -> None:
    image = _photo(20, 12)
    for resize in ("crop", "squash"):
        pixels = to_pixels(image, Preprocess((12, 20), resize, 1.0))
        np.testing.assert_array_equal(pixels.permute(1, 2, 0).numpy(), np.asarray(image))


def test_undo_gives_back_every_colour() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).expand(3, 16, 16)
    for preprocess in (Preprocess(), Preprocess(mean=HALF_MEAN, std=HALF_STD)):
        assert torch.equal(undo(normalise(levels, preprocess), preprocess), levels.permute(1, 2, 0))


def test_undo_takes_any_leading_axes_and_clips_what_is_no_colour() -> None:
    preprocess = Preprocess(mean=HALF_MEAN, std=HALF_STD)
    tensor = torch.full((2, 5, 3, 4, 6), 9.0)
    tensor[0] = -9.0
    undone = undo(tensor, preprocess)
    assert undone.shape == (2, 5, 4, 6, 3)
    assert undone.dtype == torch.uint8
    assert undone[0].eq(0).all() and undone[1].eq(255).all()


def test_bytes_and_shares_of_one_are_the_same_pixels() -> None:
    pixels = torch.arange(48, dtype=torch.uint8).reshape(3, 4, 4)
    assert torch.equal(normalise(pixels, Preprocess()), normalise(pixels.float() / 255, Preprocess()))


def test_grey_and_16_bit_pictures_are_converted_first() -> None:
    preprocess = Preprocess((4, 4), "squash", 1.0, mean=(0, 0, 0), std=(1, 1, 1))
    deep = Image.fromarray(np.full((4, 4), 65535, dtype=np.uint16))
    assert to_tensor(deep, preprocess).eq(1).all()
    assert to_tensor(Image.new("L", (9, 9), 51), preprocess).sub(0.2).abs().max() < 1e-7


@pytest.mark.parametrize("size", [(1, 31237), (31237, 1), (3, 1000)])
def test_a_very_long_picture_takes_no_more_memory_than_others(size: tuple[int, int]) -> None:
    assert to_tensor(Image.new("RGB", size), Preprocess((224, 224))).shape == (3, 224, 224)


def test_a_tensor_without_three_channels_is_refused() -> None:
    with pytest.raises(ShapeError, match="3, image_height"):
        undo(torch.zeros(4, 4, 3), Preprocess())
    with pytest.raises(ShapeError, match="3, image_height"):
        normalise(torch.zeros(1, 4, 4), Preprocess())
