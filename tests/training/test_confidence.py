from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats

from vitreous.errors import ConfigError
from vitreous.training.confidence import estimate, student_quantile


@pytest.mark.parametrize("freedom", [*range(1, 30), 100, 1001])
def test_quantiles_are_scipys(freedom: int) -> None:
    for share in (0.01, 0.3, 0.5, 0.6, 0.9, 0.975, 0.995, 0.9995):
        expected = scipy.stats.t.ppf(share, freedom)
        assert student_quantile(share, freedom) == pytest.approx(expected, rel=1e-11, abs=1e-12)


def test_with_one_degree_it_is_cauchys_tangent() -> None:
    assert student_quantile(0.975, 1) == pytest.approx(math.tan(math.pi * 0.475), rel=1e-12)
    assert student_quantile(0.95, 2) == pytest.approx(0.9 / math.sqrt(2 * 0.95 * 0.05), rel=1e-12)


@pytest.mark.parametrize("values", [[0.61, 0.64], [0.612, 0.640, 0.633], [0.9, 0.91, 0.93, 0.905, 0.88]])
def test_the_interval_is_scipys(values: list[float]) -> None:
    found = estimate(values)
    low, high = scipy.stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=scipy.stats.sem(values))
    assert found.half_width is not None
    assert found.mean - found.half_width == pytest.approx(low, abs=1e-12)
    assert found.mean + found.half_width == pytest.approx(high, abs=1e-12)
    assert found.values == tuple(values)


def test_nineteen_of_twenty_intervals_hold_the_true_mean() -> None:
    draws = np.random.default_rng(0).normal(0.7, 0.02, (4000, 3))
    intervals = [estimate(list(row)) for row in draws]
    held = [abs(one.mean - 0.7) <= (one.half_width or 0) for one in intervals]
    assert np.mean(held) == pytest.approx(0.95, abs=0.011)  # 3 deviations of the share


def test_equal_runs_have_an_interval_of_nothing_and_a_single_one_has_none() -> None:
    assert estimate([0.5, 0.5, 0.5]).half_width == 0
    assert estimate([0.5]).half_width is None
    with pytest.raises(ConfigError, match="there is no run"):
        estimate([])


@pytest.mark.parametrize(("share", "freedom"), [(0.0, 3), (1.0, 3), (math.nan, 3), (0.9, 0)])
def test_what_has_no_quantile_is_refused(share: float, freedom: int) -> None:
    with pytest.raises(ConfigError, match=r"share is|freedom is"):
        student_quantile(share, freedom)


def test_neither_scipy_nor_torch_is_needed() -> None:
    code = (
        "import sys, vitreous.training.ablation, vitreous.training.confidence; "
        "sys.exit('scipy' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
