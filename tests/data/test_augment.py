from __future__ import annotations

import math

import pytest
import torch

from vitreous.data.augment import DRAWS, augment, warp


def _images(image_height: int = 9, image_width: int = 12) -> torch.Tensor:
    return torch.rand(4, 3, image_height, image_width, generator=torch.Generator().manual_seed(0))


def _warp(images: torch.Tensor, **changes: torch.Tensor) -> torch.Tensor:
    batch = len(images)
    still = {"shifts": torch.zeros(batch, 2), "angles": torch.zeros(batch), "scales": torch.ones(batch)}
    return warp(images, **(still | changes))


def test_no_change_is_no_change() -> None:
    torch.testing.assert_close(_warp(_images()), _images(), atol=1e-5, rtol=0)
    torch.testing.assert_close(augment(_images(), torch.rand(4, DRAWS)), _images(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("down", "right"), [(2, 0), (0, 3), (-1, -4), (2, -3)])
def test_a_whole_shift_moves_the_pixels_and_brings_in_black(down: int, right: int) -> None:
    images = _images()
    height, width = images.shape[-2:]
    expected = torch.zeros_like(images)
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                expected[..., row, column] = images[..., row - down, column - right]
    shifts = torch.tensor([[down, right]]).expand(4, 2).float()
    torch.testing.assert_close(_warp(images, shifts=shifts), expected, atol=1e-5, rtol=0)


def test_a_quarter_turn_is_clockwise() -> None:
    images = _images(8, 8)
    turned = _warp(images, angles=torch.full((4,), math.pi / 2))
    torch.testing.assert_close(turned, images.rot90(-1, (-2, -1)), atol=1e-5, rtol=0)


def test_a_half_turn_of_a_wide_image_is_a_double_flip() -> None:
    turned = _warp(_images(), angles=torch.full((4,), math.pi))
    torch.testing.assert_close(turned, _images().flip(-1, -2), atol=1e-5, rtol=0)


def test_a_turn_keeps_distances_in_an_image_that_is_not_square() -> None:
    image = torch.zeros(1, 1, 41, 61)
    image[..., 20, 45] = 1  # 15 pixels right of the centre
    turned = _warp(image, angles=torch.tensor([math.pi / 6]))[0, 0]
    ys, xs = torch.meshgrid(torch.arange(41.0) - 20, torch.arange(61.0) - 30, indexing="ij")
    y, x = (turned * ys).sum() / turned.sum(), (turned * xs).sum() / turned.sum()
    assert (y.item(), x.item()) == pytest.approx((7.5, 13.0), abs=0.1)


def test_twice_as_large_shows_the_middle() -> None:
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    larger = _warp(ramp, scales=torch.tensor([2.0]))
    torch.testing.assert_close(larger[0, 0, 5, 4:12], 7.5 + (torch.arange(4.0, 12) - 7.5) / 2)


def test_the_shift_comes_after_the_turn() -> None:
    images = _images(8, 8)
    both = _warp(images, angles=torch.full((4,), math.pi / 2), shifts=torch.tensor([[0.0, 2.0]]).expand(4, 2))
    turned = images.rot90(-1, (-2, -1))
    torch.testing.assert_close(both[..., 2:], turned[..., :-2], atol=1e-5, rtol=0)


def test_draws_of_one_half_change_nothing_and_the_last_draw_mirrors() -> None:
    images = _images()
    draws = torch.full((4, DRAWS), 0.5)
    draws[1, 4] = 0.49
    changed = augment(images, draws, shift=3, rotation=20, scale=0.2, flip=True)
    expected = images.clone()
    expected[1] = images[1].flip(-1)
    torch.testing.assert_close(changed, expected, atol=1e-5, rtol=0)


def test_the_largest_draw_shifts_by_the_setting() -> None:
    draws = torch.full((4, DRAWS), 0.5)
    draws[:, 0] = 1.0
    moved = augment(_images(), draws, shift=2)
    torch.testing.assert_close(moved[..., 2:, :], _images()[..., :-2, :], atol=1e-5, rtol=0)


def test_an_image_is_changed_alike_alone_and_in_a_batch() -> None:
    images, draws = _images(), torch.rand(4, DRAWS, generator=torch.Generator().manual_seed(1))
    settings = {"shift": 2, "rotation": 10, "scale": 0.1, "flip": True}
    whole = augment(images, draws, **settings)
    alone = torch.cat([augment(images[n : n + 1], draws[n : n + 1], **settings) for n in range(4)])
    assert torch.equal(whole, alone)
