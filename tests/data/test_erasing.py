from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from timm.data import random_erasing as theirs

from vitreous.data.erasing import AREA, RATIO, erase, random_rectangle
from vitreous.data.order import Draws


class TimmsDraws:
    """Stands in for Python's `random` in timm."""

    def __init__(self, draws: Draws) -> None:
        self._draws = draws

    def random(self) -> float:
        return self._draws.uniform()

    def uniform(self, low: float, high: float) -> float:
        return self._draws.uniform(low, high)

    def randint(self, low: int, high: int) -> int:
        return low + self._draws.integer(high - low + 1)  # timm's includes the last


@pytest.mark.parametrize("size", [(3, 24, 24), (3, 40, 17), (1, 5, 60), (3, 2, 2)])
def test_erased_images_are_timms_for_the_same_draws(
    size: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = torch.rand(size, generator=torch.Generator().manual_seed(0))
    erased = 0
    for seed in range(100):
        draws = Draws(seed)

        def noise(_: Any, __: Any, size: tuple[int, ...], draws: Draws = draws, **___: Any) -> torch.Tensor:
            return torch.from_numpy(draws.normals(int(np.prod(size)))).view(size)

        monkeypatch.setattr(theirs, "random", TimmsDraws(draws))
        monkeypatch.setattr(theirs, "_get_pixels", noise)
        expected = theirs.RandomErasing(0.4, mode="pixel", device="cpu")(image.clone())
        assert torch.equal(erase(image, Draws(seed), share=0.4), expected)
        erased += not torch.equal(expected, image)
    assert size == (3, 2, 2) or 20 < erased < 60


def test_as_many_images_are_erased_as_asked_for() -> None:
    image = torch.full((3, 16, 16), 9.0)
    changed = [not torch.equal(erase(image, Draws(seed), share=0.25), image) for seed in range(2000)]
    assert np.mean(changed) == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 2000))
    assert all(torch.equal(erase(image, Draws(seed), share=0.0), image) for seed in range(50))


def test_the_noise_has_mean_0_and_deviation_1_and_fills_one_rectangle() -> None:
    image = torch.full((3, 64, 64), 9.0)
    noise = []
    for seed in range(100):
        changed = erase(image, Draws(seed), share=1.0)
        erased = (changed != 9).any(0)  # (rows, columns)
        rows, columns = erased.any(1).nonzero(), erased.any(0).nonzero()
        height, width = rows.max() - rows.min() + 1, columns.max() - columns.min() + 1
        assert erased.sum() == height * width
        noise.append(changed[changed != 9])
    together = torch.cat(noise)
    assert together.mean().item() == pytest.approx(0, abs=0.01)
    assert together.std().item() == pytest.approx(1, abs=0.01)


def test_areas_and_ratios_are_the_papers() -> None:
    boxes = [random_rectangle((300, 300), Draws(seed)) for seed in range(3000)]
    sides = np.array([(height, width) for _, _, height, width in filter(None, boxes)], dtype=float)
    shares, ratios = sides.prod(1) / 300**2, sides[:, 0] / sides[:, 1]
    assert AREA[0] * 0.95 < shares.min() and shares.max() < AREA[1] * 1.01
    assert RATIO[0] * 0.95 < ratios.min() and ratios.max() < RATIO[1] * 1.05
    assert np.mean(np.log(ratios)) == pytest.approx(0, abs=0.06)  # as often tall as wide


def test_an_image_of_one_pixel_stays_whole() -> None:
    image = torch.zeros(3, 1, 1)
    assert all(torch.equal(erase(image, Draws(seed), share=1.0), image) for seed in range(20))


def test_the_image_that_was_given_stays_as_it_was() -> None:
    image = torch.zeros(3, 8, 8)
    assert not torch.equal(erase(image, Draws(1), share=1.0), image)
    assert not image.any()
