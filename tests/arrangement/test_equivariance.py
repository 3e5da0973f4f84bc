from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from vitreous.arrangement.equivariance import Equivariance
from vitreous.errors import ShapeError


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def error_of(still: Tensor, moved: Tensor, offsets: Tensor, stride: tuple[float, float]) -> float | None:
    equivariance = Equivariance(stride)
    equivariance.add(still, moved, offsets)
    return equivariance.error()


def slow(still: Tensor, moved: Tensor, offsets: Tensor, stride: tuple[float, float]) -> float:
    """Position by position, with all vectors kept."""
    batch, rows, columns, _ = still.shape
    pairs = []
    for image in range(batch):
        for row in range(rows):
            for column in range(columns):
                y = row - float(offsets[image, 0]) / stride[0]
                x = column - float(offsets[image, 1]) / stride[1]
                if not (0 <= y <= rows - 1 and 0 <= x <= columns - 1):
                    continue
                expected = torch.zeros(still.shape[-1], dtype=torch.float64)
                for near_y in {math.floor(y), math.ceil(y)}:
                    for near_x in {math.floor(x), math.ceil(x)}:
                        share = (1 - abs(y - near_y)) * (1 - abs(x - near_x))
                        expected += share * still[image, near_y, near_x].double()
                pairs.append((moved[image, row, column].double(), expected))
    seen, expected = torch.stack([one for one, _ in pairs]), torch.stack([other for _, other in pairs])
    mean = torch.cat([seen, expected]).mean(dim=0)
    varied = (seen - mean).square().sum() + (expected - mean).square().sum()
    return float((seen - expected).square().sum() / varied)


OFFSETS = torch.tensor([[0, 1], [0, -1], [1, 0], [-1, 0]])


@pytest.mark.parametrize(
    ("pixels", "stride"), [(1, (1, 1)), (4, (4, 4)), (1, (4, 4)), (2, (4, 2)), (5, (4, 3)), (3, (4, 4))]
)
def test_the_error_is_that_of_the_slow_loop(pixels: int, stride: tuple[int, int]) -> None:
    still, other = noise(8, 5, 6, 3) + 2, noise(8, 5, 6, 3, seed=1)
    moved = 0.5 * still.roll(1, dims=2) + 0.5 * other
    offsets = OFFSETS.repeat(2, 1) * pixels
    assert error_of(still, moved, offsets, stride) == pytest.approx(slow(still, moved, offsets, stride), rel=1e-10)


def test_moves_along_both_axes_by_fractions_are_those_of_the_slow_loop() -> None:
    still, moved = noise(3, 5, 6, 2), noise(3, 5, 6, 2, seed=1) + 0.3
    offsets = torch.tensor([[3, -5], [-2, 2], [0, 7]])
    assert error_of(still, moved, offsets, (2, 3)) == pytest.approx(slow(still, moved, offsets, (2, 3)), rel=1e-10)


def test_batches_change_nothing() -> None:
    still, moved, offsets = noise(8, 5, 6, 3) + 100, noise(8, 5, 6, 3, seed=1) + 100, OFFSETS.repeat(2, 1)
    equivariance = Equivariance((2, 2))
    for part in (slice(0, 1), slice(1, 6), slice(6, 8)):
        equivariance.add(still[part], moved[part], offsets[part])
    assert equivariance.error() == pytest.approx(error_of(still, moved, offsets, (2, 2)), rel=1e-10)


@pytest.mark.parametrize("pixels", [2, 4])
def test_a_network_of_1x1_convolutions_and_whole_strides_has_error_0(pixels: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 2, stride=2), nn.ReLU(), nn.Conv2d(8, 4, 1))
    images = noise(4, 3, 12, 16)
    offsets = OFFSETS * pixels
    with torch.no_grad():
        moved = torch.stack(
            [image.roll(tuple(by), dims=(1, 2)) for image, by in zip(images, offsets.tolist(), strict=True)]
        )
        maps = [network(batch).permute(0, 2, 3, 1) for batch in (images, moved)]
    error = error_of(maps[0], maps[1], offsets, (2, 2))
    assert error is not None and error < 1e-12
    wrong_way = error_of(maps[0], maps[1], -offsets, (2, 2))
    assert wrong_way is not None and wrong_way > 0.5


def test_a_ramp_is_moved_exactly_by_fractions() -> None:
    ramp = torch.arange(6.0)[:, None] * 2 + torch.arange(5.0)  # (rows, columns)
    still = ramp[None, :, :, None]
    moved = still - 2 * 0.25 - 1 * -0.5  # by a quarter down, and by half to the left
    assert error_of(still, moved, torch.tensor([[1, -2]]), (4, 4)) == pytest.approx(0, abs=1e-12)


def test_unrelated_noise_has_error_1_and_the_opposite_2() -> None:
    still = noise(40, 8, 8, 4)
    assert error_of(still, noise(40, 8, 8, 4, seed=1), OFFSETS.repeat(10, 1), (1, 1)) == pytest.approx(1, abs=0.03)
    assert error_of(still, -still, torch.zeros(40, 2, dtype=torch.int64), (1, 1)) == pytest.approx(2, abs=0.01)


def test_nothing_to_compare_has_no_error() -> None:
    assert Equivariance((1, 1)).error() is None
    still = noise(2, 4, 4, 3)
    assert error_of(still, still, torch.tensor([[4, 0], [0, -9]]), (1, 1)) is None
    assert error_of(noise(2, 1, 1, 3), noise(2, 1, 1, 3), torch.tensor([[1, 0], [0, 1]]), (4, 4)) is None
    assert error_of(noise(0, 4, 4, 3), noise(0, 4, 4, 3), torch.zeros(0, 2), (4, 4)) is None


@pytest.mark.parametrize("value", [0.0, 0.1, 1e8])
def test_features_that_never_vary_have_no_error(value: float) -> None:
    still = torch.full((4, 4, 4, 3), value)
    assert error_of(still, still, OFFSETS, (3, 3)) is None


def test_maps_of_different_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match="cannot be compared"):
        Equivariance((1, 1)).add(noise(2, 4, 4, 3), noise(2, 4, 5, 3), OFFSETS[:2])
    with pytest.raises(ShapeError, match="with 4 offsets"):
        Equivariance((1, 1)).add(noise(2, 4, 4, 3), noise(2, 4, 4, 3), OFFSETS)
