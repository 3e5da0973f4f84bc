from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import v2

from vitreous.data.crops import random_box, random_crop
from vitreous.data.order import Draws
from vitreous.data.preprocess import Preprocess

AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
SIZES = [(40, 60), (61, 33), (32, 32), (1, 1), (3, 400), (400, 3)]  # (image_height, image_width)


def photo(image_height: int, image_width: int) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (image_height, image_width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def inject(monkeypatch: pytest.MonkeyPatch, draws: Draws) -> None:
    """Has torchvision draw its numbers from ours."""

    def uniform(_: torch.Tensor, low: Any, high: Any) -> torch.Tensor:
        return torch.tensor([draws.uniform(float(low), float(high))], dtype=torch.float64)

    def randint(low: int, high: int, **_: Any) -> torch.Tensor:
        return torch.tensor([low + draws.integer(high - low)])

    monkeypatch.setattr(torch.Tensor, "uniform_", uniform)
    monkeypatch.setattr(torch, "randint", randint)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("area", "ratio"), [(AREA, RATIO), ((0.9, 1.0), (0.5, 3.0)), ((0.05, 0.2), (1.0, 1.0))])
def test_boxes_are_torchvisions_for_the_same_draws(
    size: tuple[int, int], area: Any, ratio: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = photo(*size)
    for seed in range(100):
        left, top, right, bottom = random_box(size, Draws(seed), area=area, ratio=ratio)
        with monkeypatch.context() as patched:
            inject(patched, Draws(seed))
            expected = transforms.RandomResizedCrop.get_params(image, list(area), list(ratio))
        assert (top, left, bottom - top, right - left) == tuple(map(int, expected))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("resampler", ["pillow", "torch"])
def test_pixels_are_torchvisions_for_the_same_draws(
    interpolation: Any, resampler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = photo(40, 60)
    preprocess = Preprocess((24, 20), "crop", 0.875, interpolation, resampler=resampler)
    theirs = v2.RandomResizedCrop((24, 20), interpolation=transforms.InterpolationMode(interpolation))
    for seed in range(20):
        ours = random_crop(image, preprocess, Draws(seed), area=AREA, ratio=RATIO)
        with monkeypatch.context() as patched:
            inject(patched, Draws(seed))
            expected = theirs(image if resampler == "pillow" else v2.functional.pil_to_tensor(image))
        assert torch.equal(ours, v2.functional.to_image(expected))


def test_areas_and_ratios_are_spread_as_asked_for() -> None:
    boxes = [random_box((500, 500), Draws(seed), area=(0.2, 0.6), ratio=(0.5, 2.0)) for seed in range(4000)]
    sides = np.array([(right - left, bottom - top) for left, top, right, bottom in boxes], dtype=float)
    shares, logarithms = sides.prod(1) / 500**2, np.log(sides[:, 0] / sides[:, 1])
    assert shares.min() > 0.195 and shares.max() < 0.605
    # all fit except the widest and the tallest, so that both are nearly uniform
    assert np.mean(shares) == pytest.approx(0.4, abs=0.02)
    assert np.abs(logarithms).max() < math.log(2) + 0.02
    assert np.std(logarithms) == pytest.approx(2 * math.log(2) / math.sqrt(12), rel=0.06)


def test_a_whole_picture_is_only_resized() -> None:
    image = photo(24, 24)
    whole = random_crop(image, Preprocess((24, 24), "squash", 1.0), Draws(0), area=(1.0, 1.0), ratio=(1.0, 1.0))
    assert torch.equal(whole, torch.from_numpy(np.array(image)).permute(2, 0, 1))


def test_grey_and_transparent_pictures_are_taken() -> None:
    for mode in ("L", "RGBA", "P"):
        cropped = random_crop(photo(30, 30).convert(mode), Preprocess((8, 8)), Draws(0), area=AREA, ratio=RATIO)
        assert cropped.shape == (3, 8, 8)
