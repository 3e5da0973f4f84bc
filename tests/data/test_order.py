from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from vitreous.data.order import Draws, epoch_order, keyed_seed, uniform

STEP, FIRST, SECOND, ALL = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 2**64 - 1


def _mix(state: int) -> int:
    """SplitMix64's output function in Python's own unbounded integers."""
    state = (state ^ (state >> 30)) * FIRST & ALL
    state = (state ^ (state >> 27)) * SECOND & ALL
    return state ^ (state >> 31)


def _slow_uniform(seed: int, epoch: int, sample: int, draw: int) -> float:
    start = _mix(_mix(seed) + STEP * (epoch + 1) & ALL) >> 1
    key = _mix(start + STEP * (sample + 1) & ALL)
    return (_mix(key + STEP * (draw + 1) & ALL) >> 40) / 2**24


def test_the_mixer_is_splitmix64() -> None:
    # first outputs of the published generator, whose state starts at 1234567 and grows by STEP
    outputs = [_mix(1234567 + STEP * n & ALL) for n in (1, 2, 3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (7, 3), (2**40, 10_000)])
def test_numbers_equal_a_slow_loop(seed: int, epoch: int) -> None:
    samples = torch.tensor([0, 5, 49_999])
    fast = uniform(samples, 4, seed=seed, epoch=epoch)
    slow = [[_slow_uniform(seed, epoch, int(n), draw) for draw in range(4)] for n in samples]
    assert fast.tolist() == slow


def test_a_samples_numbers_do_not_depend_on_its_neighbours() -> None:
    whole = uniform(torch.arange(100), 5, seed=1, epoch=2)
    chosen = torch.tensor([90, 3, 3, 41])
    assert torch.equal(uniform(chosen, 5, seed=1, epoch=2), whole[chosen])
    assert torch.equal(uniform(torch.arange(100), 2, seed=1, epoch=2), whole[:, :2])


def test_seed_epoch_sample_and_draw_each_change_the_numbers() -> None:
    samples = torch.arange(1000)
    first = uniform(samples, 2, seed=0, epoch=0)
    others = [uniform(samples, 2, seed=1, epoch=0), uniform(samples, 2, seed=0, epoch=1), first.flip(0, 1)]
    for other in others:
        correlation = np.corrcoef(first.flatten(), other.flatten())[0, 1]
        assert abs(correlation) < 0.1


def test_numbers_are_spread_evenly_over_0_to_1() -> None:
    numbers = uniform(torch.arange(20_000), 5, seed=0, epoch=0).double()
    assert numbers.min() >= 0 and numbers.max() < 1
    counts = torch.histc(numbers, 50, 0, 1)
    assert (
        (counts - 2000).square() / 2000
    ).sum() < 100  # chi-square with 49 degrees of freedom: 1 in 10,000 is above 94
    assert numbers.mean().item() == pytest.approx(0.5, abs=4 / np.sqrt(12 * 100_000))


def test_an_epoch_has_every_sample_once_in_its_own_order() -> None:
    orders = [epoch_order(1000, seed=seed, epoch=epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for order in orders:
        assert order.dtype == torch.int64
        assert order.sort().values.tolist() == list(range(1000))
    for other in orders[1:]:
        assert (orders[0] == other).sum() < 10  # one is expected by chance
    assert torch.equal(orders[0], epoch_order(1000, seed=0, epoch=0))


def test_no_samples_is_an_empty_order() -> None:
    assert epoch_order(0, seed=0, epoch=0).tolist() == []


def test_each_place_of_the_order_is_equally_likely() -> None:
    places = torch.stack([epoch_order(4, seed=0, epoch=epoch) for epoch in range(4000)])
    counts = torch.stack([(places == sample).sum(0) for sample in range(4)])  # (samples, places)
    assert (counts - 1000).abs().max() < 130  # 4.7 standard deviations


def test_keyed_seeds_differ_with_every_part_of_the_key() -> None:
    seeds = {keyed_seed(*key) for key in ((0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0), (0, 1, 0), (0, 0, 1))}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_no_global_random_number_is_drawn() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - to see that it is unused
    uniform(torch.arange(5), 3, seed=0, epoch=0)
    epoch_order(5, seed=0, epoch=0)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002


def test_seeds_are_those_of_the_first_release() -> None:
    # a finished run could not be made again if they changed
    assert keyed_seed(0) == _mix(0) >> 1
    assert keyed_seed(3, 1, 4) == _mix(_mix(_mix(3) + STEP * 2 & ALL) + STEP * 5 & ALL) >> 1
    assert keyed_seed(2**64 + 3, 1) == keyed_seed(3, 1)


def test_draws_equal_a_slow_loop() -> None:
    draws, start = Draws(7, 1, 2, 3), keyed_seed(7, 1, 2, 3)
    numbers = [_mix(start + STEP * n & ALL) for n in range(1, 9)]
    assert [draws.uniform() for _ in range(4)] == [(number >> 11) / 2**53 for number in numbers[:4]]
    assert [draws.integer(14) for _ in range(3)] == [number * 14 // 2**64 for number in numbers[4:7]]
    assert draws.uniform(-2, 6) == -2 + 8 * (numbers[7] >> 11) / 2**53


def test_draws_of_every_key_differ() -> None:
    keys = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 0, 0), (0, 0, 0, 2**32)]
    assert len({Draws(*key).uniform() for key in keys}) == len(keys)
    assert Draws(1, 2, 3).uniform() == Draws(1, 2, 3).uniform()


def test_integers_are_spread_evenly_over_their_range() -> None:
    draws = Draws(0)
    counts = np.bincount([draws.integer(14) for _ in range(14_000)], minlength=14)
    assert len(counts) == 14
    assert stats.chisquare(counts).pvalue > 1e-3
    assert {draws.integer(1) for _ in range(10)} == {0}


def test_normal_numbers_are_normal() -> None:
    one_by_one = Draws(0)
    for numbers in (Draws(1).normals(20_001), [one_by_one.normal() for _ in range(5000)]):
        assert stats.kstest(numbers, stats.norm.cdf).pvalue > 1e-3
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.05


def test_normal_numbers_at_once_equal_a_slow_loop() -> None:
    draws = Draws(5, 6)
    first = draws.normals(7)  # takes 8 numbers: 4 lengths, then 4 angles
    numbers = Draws(5, 6)
    lengths = [np.sqrt(-2 * np.log(1 - numbers.uniform())) for _ in range(4)]
    angles = [2 * np.pi * numbers.uniform() for _ in range(4)]
    slow = [length * np.cos(angle) for length, angle in zip(lengths, angles, strict=True)]
    slow += [length * np.sin(angle) for length, angle in zip(lengths, angles, strict=True)]
    np.testing.assert_allclose(first, slow[:7], rtol=1e-6)
    assert draws.uniform() == numbers.uniform()  # both go on with the ninth
    assert len(draws.normals(0)) == 0


@pytest.mark.parametrize("alpha", [0.1, 0.4, 0.8, 1.0, 2.5, 30.0])
def test_beta_numbers_are_those_of_scipys_distribution(alpha: float) -> None:
    draws = Draws(2)
    numbers = [draws.beta(alpha) for _ in range(4000)]
    assert stats.kstest(numbers, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


@pytest.mark.parametrize("shape", [0.2, 0.8, 3.0])
def test_gamma_numbers_are_those_of_scipys_distribution(shape: float) -> None:
    draws = Draws(4)
    numbers = np.exp([draws._log_gamma(shape) for _ in range(8000)])
    assert stats.kstest(numbers, stats.gamma(shape).cdf).pvalue > 1e-3


def test_beta_numbers_of_a_tiny_alpha_are_0_or_1() -> None:
    draws = Draws(0)
    numbers = np.array([draws.beta(1e-4) for _ in range(400)])
    assert ((numbers < 1e-6) | (numbers > 1 - 1e-6)).mean() > 0.98
    assert 0.4 < numbers.mean() < 0.6
