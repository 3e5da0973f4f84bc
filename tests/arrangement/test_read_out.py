from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vitreous.arrangement.read_out import ReadOut
from vitreous.errors import ConfigError, NumericError, ShapeError


def maps(images: int, rows: int, columns: int, width: int) -> Tensor:
    """Noise with a little of the position in it, at odd scales and far from 0."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(images, rows, columns, width, generator=generator)
    place = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), dim=-1).float()
    mixed = noise + place @ torch.randn(2, width, generator=generator) * 0.3  # (images, rows, columns, width)
    return mixed * torch.logspace(-2, 2, width) + 7


def held_out(images: int) -> Tensor:
    return torch.arange(images) % 3 == 1


def read(features: Tensor, held: Tensor, batch_size: int = 1000) -> float:
    read_out = ReadOut((features.shape[1], features.shape[2]))
    for start in range(0, len(features), batch_size):
        read_out.add(features[start : start + batch_size], held[start : start + batch_size])
    return read_out.r_squared()


def slow(features: Tensor, held: Tensor) -> float:
    """numpy's least squares on all tokens one below the other, and R^2 as it is defined."""
    _, rows, columns, _ = features.shape
    tokens, targets, is_held = [], [], []
    for image, chosen in zip(features.double().numpy(), held.tolist(), strict=True):
        for row in range(rows):
            for column in range(columns):
                tokens.append(np.append(image[row, column], 1.0))
                targets.append([(row + 0.5) / rows, (column + 0.5) / columns])
                is_held.append(chosen)
    x, y, chosen = np.array(tokens), np.array(targets), np.array(is_held)
    weights = np.linalg.lstsq(x[~chosen], y[~chosen], rcond=None)[0]
    wrong = ((x[chosen] @ weights - y[chosen]) ** 2).sum(axis=0)
    varied = ((y[chosen] - y[chosen].mean(axis=0)) ** 2).sum(axis=0)
    return float(np.mean([1 - wrong[axis] / varied[axis] for axis in (0, 1) if (rows, columns)[axis] > 1]))


@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (1, 6), (2, 1)])
def test_r_squared_is_that_of_numpys_least_squares_on_all_tokens(grid: tuple[int, int]) -> None:
    features = maps(30, *grid, 6)
    assert read(features, held_out(30)) == pytest.approx(slow(features, held_out(30)), abs=1e-9)


def test_r_squared_is_that_of_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, held = maps(20, 3, 4, 5).double(), held_out(20)
    place = torch.cartesian_prod((torch.arange(3.0) + 0.5) / 3, (torch.arange(4.0) + 0.5) / 4)
    fitted, told = (features[chosen].flatten(0, 2).numpy() for chosen in (~held, held))
    model = linear_model.LinearRegression().fit(fitted, place.repeat(int((~held).sum()), 1).numpy())
    expected = model.score(told, place.repeat(int(held.sum()), 1).numpy())  # the mean of both targets' R^2
    assert read(features, held) == pytest.approx(expected, abs=1e-7)


def test_batches_change_nothing() -> None:
    features = maps(30, 3, 5, 6)
    assert read(features, held_out(30), 1) == pytest.approx(read(features, held_out(30), 30), abs=1e-12)
    assert read(features, held_out(30), 7) == pytest.approx(read(features, held_out(30), 30), abs=1e-12)


def test_features_that_are_the_position_tell_it_exactly() -> None:
    place = torch.stack(torch.meshgrid(torch.arange(4.0), torch.arange(5.0), indexing="ij"), dim=-1)
    assert read(place.expand(6, 4, 5, 2) * 100 - 3, held_out(6)) == pytest.approx(1, abs=1e-12)


def test_features_that_tell_rows_alone_have_half() -> None:
    rows = torch.arange(4.0)[:, None, None].expand(6, 4, 5, 1)
    assert read(rows, held_out(6)) == pytest.approx(0.5, abs=1e-12)


def test_noise_tells_nothing_and_little_noise_misleads() -> None:
    generator = torch.Generator().manual_seed(0)
    assert abs(read(torch.randn(300, 4, 4, 3, generator=generator), held_out(300))) < 0.01
    assert read(torch.randn(4, 4, 4, 16, generator=generator), held_out(4)) < -0.1


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_features_that_never_vary_tell_nothing(value: float) -> None:
    assert read(torch.full((9, 3, 3, 4), value), held_out(9), 2) == 0
    features = torch.cat([maps(9, 3, 3, 2), torch.full((9, 3, 3, 2), value)], dim=-1)
    assert read(features, held_out(9)) == pytest.approx(slow(features[..., :2], held_out(9)), abs=1e-9)


def test_what_varies_by_less_than_float32_can_tell_counts_as_constant() -> None:
    place = torch.arange(3.0, dtype=torch.float64)[:, None, None].expand(9, 3, 3, 1)
    assert read(1 + 1e-9 * place, held_out(9)) == 0
    assert read(1 + 1e-5 * place, held_out(9)) == pytest.approx(0.5, abs=1e-6)


def test_a_feature_twice_tells_no_more_than_once() -> None:
    features = maps(12, 3, 4, 4)
    twice = torch.cat([features, features * 64], dim=-1)  # exactly: a power of 2
    assert read(twice, held_out(12)) == pytest.approx(slow(features, held_out(12)), abs=1e-9)


def test_more_features_than_tokens_give_the_smallest_weights() -> None:
    features = torch.randn(3, 2, 2, 40, generator=torch.Generator().manual_seed(1))
    fitted = features[~held_out(3)].flatten(0, 2)
    equal = features / (fitted - fitted.mean(0)).square().sum(0).sqrt()  # "smallest" is after features are scaled
    centred = equal - equal[~held_out(3)].mean((0, 1, 2))
    assert read(features, held_out(3)) == pytest.approx(slow(centred, held_out(3)), abs=1e-3)


def test_memory_does_not_grow_with_images() -> None:
    read_out = ReadOut((3, 3))
    for _ in range(3):
        read_out.add(maps(6, 3, 3, 4), held_out(6))
        sums = (read_out._fitted, read_out._held_out)
        assert [tuple(value.shape) for one in sums for value in (one.by_position, one.products)] == [(9, 4), (4, 4)] * 2


def test_one_image_or_none_held_out_is_refused() -> None:
    for images, held in ((1, [True]), (1, [False]), (3, [False] * 3), (2, [True] * 2)):
        with pytest.raises(ConfigError, match="take 2 images or more"):
            read(maps(images, 2, 2, 3), torch.tensor(held))
    with pytest.raises(ConfigError, match="fitted to 0 images and held-out images are 0"):
        read(maps(0, 2, 2, 3), torch.zeros(0, dtype=torch.bool))


def test_what_is_no_map_is_refused() -> None:
    with pytest.raises(ConfigError, match="grid is 1 x 1"):
        ReadOut((1, 1))
    with pytest.raises(ShapeError, match=r"must be \(batch, 2, 3, width\)"):
        ReadOut((2, 3)).add(torch.zeros(1, 3, 2, 4), torch.tensor([True]))
    broken = maps(4, 2, 2, 3)
    broken[0, 0, 0, 0] = float("nan")
    with pytest.raises(NumericError, match="NaN or infinite"):
        read(broken, held_out(4))
