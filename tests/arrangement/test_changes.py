from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from torch import Tensor

from vitreous.arrangement.changes import (
    centre_order,
    hide_patches,
    random_order,
    roll_each,
    roll_offsets,
    shift,
    shift_directions,
    shuffle_grid,
    tile_orders,
    usable_grids,
)
from vitreous.errors import ConfigError, ShapeError

MANY = torch.arange(6000)


def pictures(batch: int, height: int, width: int, channels: int = 2) -> Tensor:
    """Images in which no two pixels are alike."""
    return torch.arange(1.0, batch * channels * height * width + 1).view(batch, channels, height, width)


def is_even(counts: Counter[tuple[int, ...]], kinds: int) -> bool:
    """Whether all kinds come equally often, by Pearson's statistic at 5 standard deviations."""
    expected = sum(counts.values()) / kinds
    statistic = sum((count - expected) ** 2 for count in counts.values()) / expected
    statistic += (kinds - len(counts)) * expected  # those that never came
    return statistic < kinds - 1 + 5 * math.sqrt(2 * (kinds - 1))


def tuples(rows: Tensor) -> Counter[tuple[int, ...]]:
    return Counter(tuple(row) for row in rows.tolist())


@pytest.mark.parametrize(
    ("wanted", "size", "grids", "replaced"),
    [
        ((1, 2, 4, 8), (32, 32), (1, 2, 4, 8), 0),
        ((8, 2, 2), (224, 224), (1, 2, 8), 0),
        ((1, 2, 4, 8), (30, 30), (1, 2, 3, 6), 2),  # 8 is as near to 10 as to 6, 4 to 5 as to 3
        ((7, 1000, 3), (28, 14), (1, 2, 7, 14), 2),  # 3 is nearer to 2 than to 7; sides that differ
        ((2, 4), (6, 9), (1, 3), 2),
        ((5, 6), (10, 15), (1, 5), 1),  # two that become one
    ],
)
def test_the_nearest_grid_that_divides_is_used_and_said(
    wanted: tuple[int, ...], size: tuple[int, int], grids: tuple[int, ...], replaced: int
) -> None:
    found, notes = usable_grids(wanted, size)
    assert found == grids
    assert all(size[0] % k == 0 and size[1] % k == 0 for k in found)
    assert len(notes) == replaced


def test_every_grid_is_the_nearest_divisor_of_a_slow_search() -> None:
    for height, width in ((12, 18), (35, 35), (96, 64)):
        for wanted in range(2, 40):
            both = [k for k in range(1, 100) if height % k == 0 and width % k == 0]
            nearest = sorted(both, key=lambda k: (abs(k - wanted), k))[0]
            grids, notes = usable_grids((wanted, both[-1]), (height, width))
            assert grids == tuple(sorted({1, nearest, both[-1]}))
            assert len(notes) == (nearest != wanted)


def test_a_note_names_what_was_asked_for_and_what_is_used() -> None:
    _, notes = usable_grids((2, 4), (6, 9))
    assert notes == (
        "Images of 6 x 9 pixels do not divide into 2 x 2 tiles; this grid was left out.",
        "Images of 6 x 9 pixels do not divide into 4 x 4 tiles; 3 x 3 is the nearest that does.",
    )


@pytest.mark.parametrize(
    ("wanted", "size", "said"),
    [
        ((2, 4), (31, 37), "take images of 32 x 36 pixels"),
        ((2,), (31, 62), "ask for 31"),
        ((1,), (32, 32), "ask for 2, 4, 8, 16, 32"),
        ((), (4, 4), "ask for 2, 4"),
        ((2, 0), (32, 32), "a grid is 0"),
        ((-1,), (32, 32), "a grid is -1"),
        ((2.5,), (32, 32), "a grid is 2.5"),
    ],
)
def test_grids_that_leave_nothing_to_shuffle_are_refused(
    wanted: tuple[int, ...], size: tuple[int, int], said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        usable_grids(wanted, size)
    assert str(caught.value).count("\n") <= 2


def test_orders_of_tiles_are_permutations_all_equally_likely() -> None:
    orders = tile_orders(0, MANY, 2)
    assert set(tuples(orders)) == set(permutations(range(4)))
    assert is_even(tuples(orders), 24)
    large = tile_orders(0, torch.arange(50), 8)
    assert torch.equal(large.sort(dim=1).values, torch.arange(64).expand(50, 64))


def test_orders_of_patches_are_permutations_all_equally_likely() -> None:
    orders = random_order(3, MANY, 3)
    assert is_even(tuples(orders), 6)
    large = random_order(3, torch.arange(20), 196)
    assert torch.equal(large.sort(dim=1).values, torch.arange(196).expand(20, 196))


def test_offsets_are_all_equally_likely() -> None:
    offsets = roll_offsets(0, MANY, (3, 5))
    assert is_even(tuples(offsets), 15)
    assert offsets.amin(0).tolist() == [0, 0]
    assert offsets.amax(0).tolist() == [2, 4]


def test_directions_are_all_equally_likely() -> None:
    found = tuples(shift_directions(0, MANY))
    assert set(found) == {(0, 1), (0, -1), (1, 0), (-1, 0)}
    assert is_even(found, 4)


@pytest.mark.parametrize(
    "draw",
    [
        lambda seed, samples: tile_orders(seed, samples, 4),
        lambda seed, samples: random_order(seed, samples, 49),
        lambda seed, samples: roll_offsets(seed, samples, (2**20, 2**20)),
        lambda seed, samples: shift_directions(seed, samples),
    ],
)
def test_what_is_drawn_belongs_to_seed_and_sample_whatever_the_batch(draw: Callable[[int, Tensor], Tensor]) -> None:
    samples = torch.tensor([7, 2, 90001, 2, 4, 5, 6, 8, 9, 11])
    together = draw(5, samples)
    alone = torch.cat([draw(5, sample[None]) for sample in samples])
    assert together.dtype == torch.int64
    assert torch.equal(together, alone)
    assert torch.equal(together[1], together[3])
    assert not torch.equal(together, draw(6, samples))
    assert not torch.equal(together, draw(5, samples + 20))


def test_orders_for_different_purposes_have_nothing_in_common() -> None:
    tiles, patches = tile_orders(0, MANY, 2), random_order(0, MANY, 4)
    alike = (tiles == patches).double().mean().item()  # 1/4 by chance
    assert alike == pytest.approx(0.25, abs=5 * 0.5 / math.sqrt(4 * len(MANY)))
    finer = tile_orders(0, MANY, 3)[:, 0] % 4  # 0 comes 3 times of 9
    assert (tiles[:, 0] == finer).double().mean().item() == pytest.approx(0.25, abs=5 * 0.5 / math.sqrt(len(MANY)))


@pytest.mark.parametrize(("height", "width", "k"), [(4, 6, 2), (6, 12, 3), (8, 8, 8), (5, 7, 1)])
def test_tiles_lie_where_a_slow_loop_puts_them(height: int, width: int, k: int) -> None:
    images = pictures(3, height, width)
    orders = tile_orders(1, torch.arange(3), k)
    moved = shuffle_grid(images, orders, k)
    tile_height, tile_width = height // k, width // k
    expected = torch.zeros_like(images)
    for image in range(3):
        for place in range(k * k):
            down, across = place // k * tile_height, place % k * tile_width
            tile = int(orders[image, place])
            top, left = tile // k * tile_height, tile % k * tile_width
            expected[image, :, down : down + tile_height, across : across + tile_width] = images[
                image, :, top : top + tile_height, left : left + tile_width
            ]
    assert torch.equal(moved, expected)


def test_shuffling_back_gives_the_image() -> None:
    images = pictures(4, 12, 12)
    orders = tile_orders(0, torch.arange(4), 4)
    assert torch.equal(shuffle_grid(shuffle_grid(images, orders, 4), orders.argsort(dim=1), 4), images)
    assert torch.equal(shuffle_grid(images, torch.arange(16).expand(4, 16), 4), images)


def test_rolled_images_are_torchs() -> None:
    images = pictures(5, 4, 7)
    offsets = torch.tensor([[0, 0], [1, 0], [0, 3], [3, 6], [-1, 9]])
    expected = [image.roll(tuple(offset), (1, 2)) for image, offset in zip(images, offsets.tolist(), strict=True)]
    assert torch.equal(roll_each(images, offsets), torch.stack(expected))


def test_shifted_images_are_cut_from_ones_whose_edge_is_repeated() -> None:
    images = pictures(6, 4, 5)
    offsets = torch.tensor([[0, 0], [1, 0], [-2, 0], [0, 2], [3, -1], [-9, 9]])
    framed = torch.nn.functional.pad(images, (9, 9, 9, 9), mode="replicate")
    expected = [
        image[:, 9 - down : 13 - down, 9 - right : 14 - right]
        for image, (down, right) in zip(framed, offsets.tolist(), strict=True)
    ]
    assert torch.equal(shift(images, offsets), torch.stack(expected))


def test_patches_nearest_to_the_centre_come_first() -> None:
    assert centre_order(3, 3).tolist() == [4, 1, 3, 5, 7, 0, 2, 6, 8]
    assert centre_order(2, 2).tolist() == [0, 1, 2, 3]
    assert centre_order(1, 4).tolist() == [1, 2, 0, 3]
    for rows, columns in ((4, 7), (14, 14)):
        order = centre_order(rows, columns)
        centre = torch.tensor([(rows - 1) / 2, (columns - 1) / 2], dtype=torch.float64)
        places = torch.stack([order // columns, order % columns], dim=1)
        distances = (places - centre).norm(dim=1)
        assert distances.diff().min() > -1e-12
        ties = distances.diff().abs() < 1e-12
        assert (order.diff()[ties] > 0).all()
        assert order.sort().values.tolist() == list(range(rows * columns))


def test_hidden_patches_are_of_the_mean_colour_and_all_others_as_they_were() -> None:
    images = pictures(3, 6, 8)
    order = random_order(0, torch.arange(3), 12)
    for count in (0, 1, 5, 12):
        expected = images.clone()
        for image in range(3):
            for patch in order[image, :count].tolist():
                row, column = patch // 4, patch % 4
                expected[image, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 0
        assert torch.equal(hide_patches(images, order, count, (3, 4)), expected)


def test_patches_that_do_not_divide_an_image_differ_by_a_pixel_and_cover_it() -> None:
    images = torch.ones(1, 1, 7, 5)
    sizes = []
    for patch in range(6):
        order = torch.tensor([[patch, *(other for other in range(6) if other != patch)]])
        sizes.append(int((hide_patches(images, order, 1, (3, 2)) == 0).sum()))
    assert sum(sizes) == 35
    assert sorted(sizes) == [4, 4, 6, 6, 6, 9]  # rows of 3, 2, 2 pixels, columns of 3 and 2


def test_no_change_writes_into_the_images_and_their_type_stays() -> None:
    samples = torch.arange(2)
    for dtype in (torch.float64, torch.bfloat16):
        images = pictures(2, 4, 4).to(dtype)
        before = images.clone()
        changed = [
            shuffle_grid(images, tile_orders(0, samples, 2), 2),
            roll_each(images, roll_offsets(0, samples, (4, 4)) + 1),
            shift(images, shift_directions(0, samples)),
            hide_patches(images, random_order(0, samples, 4), 2, (2, 2)),
        ]
        assert torch.equal(images, before)
        assert all(one.dtype == dtype and one.shape == images.shape for one in changed)


def test_not_even_nan_shines_through_a_hidden_patch() -> None:
    images = torch.full((1, 3, 4, 4), torch.nan)
    assert torch.equal(hide_patches(images, torch.arange(4)[None], 4, (2, 2)), torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda images: shuffle_grid(images, torch.zeros(2, 9, dtype=torch.int64), 3), ShapeError, "do not divide"),
        (lambda images: shuffle_grid(images, torch.zeros(1, 4, dtype=torch.int64), 2), ShapeError, r"are \(2, 4\)"),
        (lambda images: shuffle_grid(images[0], torch.zeros(2, 4), 2), ShapeError, "image_height"),
        (lambda images: roll_each(images, torch.zeros(2)), ShapeError, r"are \(2, 2\)"),
        (lambda images: shift(images[:1], torch.zeros(2, 2)), ShapeError, r"are \(1, 2\)"),
        (lambda images: hide_patches(images, torch.arange(4)[None], 1, (2, 2)), ShapeError, r"is \(2, 4\)"),
        (lambda images: hide_patches(images, torch.zeros(2, 10).long(), 1, (5, 2)), ShapeError, "do not divide"),
        (lambda images: hide_patches(images, torch.zeros(2, 4).long(), 5, (2, 2)), ConfigError, "count is 5"),
        (lambda images: hide_patches(images, torch.zeros(2, 4).long(), -1, (2, 2)), ConfigError, "count is -1"),
    ],
)
def test_what_does_not_fit_is_refused(change: Callable[[Tensor], Tensor], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        change(pictures(2, 4, 4))
