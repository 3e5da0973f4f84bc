from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vitreous.arrangement.bootstrap import Means, Resampled, Weights, combined
from vitreous.arrangement.result import Interval
from vitreous.errors import ConfigError, ShapeError


def means_of(values: torch.Tensor, weights: Weights, batch: int = 64) -> Means:
    means = Means()
    for samples in torch.arange(len(values)).split(batch):
        means.add(values[samples], weights.of(samples))
    return means


def test_counts_have_the_shares_of_a_poisson_number_of_mean_1() -> None:
    counts = Weights(0).of(torch.arange(400)).flatten()
    for count in range(5):
        expected = math.exp(-1) / math.factorial(count)
        share = (counts == count).double().mean().item()
        assert share == pytest.approx(expected, abs=4 * math.sqrt(expected / len(counts)))
    assert counts.var().item() == pytest.approx(1, abs=0.02)


def test_counts_belong_to_a_seed_and_a_sample_alone() -> None:
    whole = Weights(3, 50).of(torch.arange(20))
    assert torch.equal(Weights(3, 50).of(torch.tensor([17, 4])), whole[[17, 4]])
    assert not torch.equal(Weights(4, 50).of(torch.arange(20)), whole)
    assert torch.equal(Weights(3, 20).of(torch.arange(20)), whole[:, :20])


def test_batches_change_nothing() -> None:
    values = torch.randn(100, 2, generator=torch.Generator().manual_seed(0)).double()
    one, other = (means_of(values, Weights(0, 200), batch) for batch in (100, 7))
    torch.testing.assert_close(one.measure(1).replicates, other.measure(1).replicates, atol=1e-13, rtol=0)
    assert one.measure(0).value == pytest.approx(values[:, 0].mean().item(), abs=1e-14)


def test_a_replicate_is_the_mean_of_images_each_taken_so_often() -> None:
    values = torch.tensor([[3.0], [5.0], [10.0]])
    weights = torch.tensor([[1.0, 0.0], [2.0, 1.0], [0.0, 3.0]]).double()
    means = Means()
    means.add(values, weights)
    assert means.measure(0).replicates.tolist() == pytest.approx([13 / 3, 35 / 4])
    assert means.measure(0).value == 6


def test_the_interval_is_that_of_an_ordinary_bootstrap() -> None:
    generator = np.random.default_rng(0)
    values = generator.exponential(2.0, 150)
    drawn = [values[generator.integers(0, 150, 150)].mean() for _ in range(20_000)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    ours = means_of(torch.from_numpy(values)[:, None], Weights(0, 8000)).measure(0).interval()
    spread = values.std() / math.sqrt(150)
    assert ours.low == pytest.approx(low, abs=0.1 * spread)  # 3 deviations of such a percentile
    assert ours.high == pytest.approx(high, abs=0.1 * spread)


def test_its_half_width_is_2_standard_errors() -> None:
    values = torch.randn(2000, 1, generator=torch.Generator().manual_seed(0)).double()
    found = means_of(values, Weights(0)).measure(0).interval()
    assert found.low is not None and found.high is not None
    expected = 2 * 1.96 * values.std().item() / math.sqrt(2000)
    assert found.high - found.low == pytest.approx(expected, rel=0.07)


def test_nineteen_of_twenty_intervals_hold_the_true_share() -> None:
    generator = np.random.default_rng(1)
    held = 0
    weights = Weights(0, 300).of(torch.arange(120))
    for _ in range(600):
        means = Means()
        means.add(torch.from_numpy(generator.random((120, 1)) < 0.4), weights)
        found = means.measure(0).interval()
        assert found.low is not None and found.high is not None
        held += found.low <= 0.4 <= found.high
    assert held / 600 == pytest.approx(0.95, abs=0.04)


def test_differences_are_those_of_pairs() -> None:
    base = 100 * torch.rand(300, 1, generator=torch.Generator().manual_seed(0)).double()
    moved = base + 1 + 0.01 * torch.randn(300, 1, generator=torch.Generator().manual_seed(1)).double()
    before, after = (means_of(values, Weights(0)).measure(0) for values in (base, moved))
    difference = combined([(1, after), (-1, before)]).interval()
    assert difference.low is not None and difference.high is not None
    assert difference.value == pytest.approx(1, abs=0.005) and difference.high - difference.low < 0.005
    assert (before.interval().high or 0) - (before.interval().low or 0) > 5


def test_combinations_are_linear() -> None:
    one = Resampled(2.0, torch.tensor([1.0, 2.0, 3.0]).double())
    other = Resampled(5.0, torch.tensor([7.0, 5.0, 4.0]).double())
    found = combined([(10, one), (-1, other)], added=0.5)
    assert found.value == 15.5 and found.replicates.tolist() == [3.5, 15.5, 26.5]


def test_one_image_has_no_interval() -> None:
    assert means_of(torch.tensor([[3.0]]), Weights(0)).measure(0).interval() == Interval(3.0)


def test_resamples_without_images_are_left_out() -> None:
    means = means_of(torch.tensor([[1.0], [2.0]]), Weights(0))
    assert means.measure(0).replicates.isnan().any()  # one in exp(2)
    assert means.measure(0).interval() == Interval(1.5, 1.0, 2.0)


def test_what_cannot_be_told_stays_so() -> None:
    found = means_of(torch.full((4, 1), torch.nan), Weights(0)).measure(0).interval()
    assert found.value != found.value and found.low is None


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="resamples is 0"):
        Weights(0, 0)
    with pytest.raises(ShapeError, match="no mean of no image"):
        Means().measure(0)
    with pytest.raises(ShapeError, match=r"values are \(2, 1\), weights \(3, 5\)"):
        Means().add(torch.zeros(2, 1), torch.zeros(3, 5))


def test_equal_changes_differ_by_0_and_not_by_a_rounding_error() -> None:
    shares = [Resampled(share, torch.full((4,), share, dtype=torch.float64)) for share in (81 / 96, 80 / 96, 18 / 96)]
    terms = [(100, shares[0]), (-100, shares[1]), (100, shares[2]), (-100, Resampled(19 / 96, shares[2].replicates))]
    assert combined(terms).value != 0
    assert combined(terms).interval().value == 0
