"""Which sample comes when, and every random number that belongs to it.

Nothing here has a state: a number depends on (seed, epoch, sample, draw) alone, so the same bits come in any
order, for any number of workers, and after any interruption.

The generator is SplitMix64's output function over a counter, written out so that no library can change it.
Source: Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators", with the constants of
java.util.SplittableRandom.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_STEP, _FIRST, _SECOND, _ALL = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 2**64 - 1


def epoch_order(samples: int, *, seed: int, epoch: int) -> Tensor:
    """Every sample once, in this epoch's order: (samples,) int64."""
    keys = _keys(seed, epoch, np.arange(samples))
    return torch.from_numpy(np.argsort(keys, kind="stable"))


def uniform(samples: Tensor, draws: int, *, seed: int, epoch: int) -> Tensor:
    """Random numbers that belong to samples: (samples, draws) float32, in [0, 1).

    Args:
        samples: (samples,) int64; indices into the data set.
        draws: how many numbers each sample needs; the first ones stay the same when more are asked for.
        seed: of the run.
        epoch: from 0.
    """
    keys = _keys(seed, epoch, samples.numpy())
    numbers = _mix(keys[:, None] + np.uint64(_STEP) * np.arange(1, draws + 1, dtype=np.uint64))  # (samples, draws)
    # the upper 24 bits are what a float32 in [0, 1) holds exactly
    return torch.from_numpy((numbers >> np.uint64(40)).astype(np.float32) * np.float32(2**-24))


def keyed_seed(seed: int, *key: int) -> int:
    """A seed for one purpose, such as a step's dropout: 63 bits that depend on all of the arguments."""
    state = _mixed(seed)
    for part in key:
        state = _mixed(state + _STEP * (part + 1))
    return state >> 1


class Draws:
    """Random numbers that belong to a key, such as (seed, epoch, sample, repeat), one after the other.

    The n-th of them depends on the key and on n alone. Plain Python: a few numbers for one image cost less so than
    in an array.
    """

    def __init__(self, seed: int, *key: int) -> None:
        """Begins with the first number of this key."""
        self._state = keyed_seed(seed, *key)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """In [low, high), evenly spread; 53 bits of it are random."""
        return low + (high - low) * (self._next() >> 11) * 2.0**-53

    def integer(self, choices: int) -> int:
        """One of 0 to `choices` - 1; none is favoured by more than `choices` / 2^64."""
        return self._next() * choices >> 64

    def normal(self) -> float:
        """Of mean 0 and standard deviation 1. Source: Box & Muller 1958."""
        length = math.sqrt(-2 * math.log(1 - self.uniform()))  # 1 - uniform is never 0
        return length * math.cos(2 * math.pi * self.uniform())

    def normals(self, count: int) -> NDArray[np.float32]:
        """So many numbers of mean 0 and standard deviation 1 at once: (count,)."""
        pairs = -(-count // 2)
        counter = np.uint64(self._state) + np.uint64(_STEP) * np.arange(1, 2 * pairs + 1, dtype=np.uint64)
        self._state = self._state + _STEP * 2 * pairs & _ALL
        numbers = (_mix(counter) >> np.uint64(11)) * 2.0**-53  # (2 pairs,) in [0, 1)
        lengths, angles = np.sqrt(-2 * np.log1p(-numbers[:pairs])), 2 * np.pi * numbers[pairs:]
        both = np.concatenate([lengths * np.cos(angles), lengths * np.sin(angles)])
        return both[:count].astype(np.float32)

    def beta(self, alpha: float) -> float:
        """Of the Beta distribution with both parameters `alpha`, above 0: small ones give numbers near 0 and 1."""
        # two gamma variables as logarithms, because those of a small alpha are below the smallest float
        difference = self._log_gamma(alpha) - self._log_gamma(alpha)
        return 1 / (1 + math.exp(-difference)) if difference > -700 else 0.0

    def _log_gamma(self, shape: float) -> float:
        """Logarithm of a Gamma(shape, 1) variable. Source: Marsaglia & Tsang 2000, ACM TOMS 26(3), section 6."""
        d = shape + 1 - 1 / 3  # of shape + 1; the last term takes it to shape
        c = 1 / math.sqrt(9 * d)
        while True:
            x = self.normal()
            v = (1 + c * x) ** 3
            if v > 0 and math.log(1 - self.uniform()) < 0.5 * x * x + d * (1 - v + math.log(v)):
                return math.log(d * v) + math.log(1 - self.uniform()) / shape

    def _next(self) -> int:
        self._state = self._state + _STEP & _ALL
        return _mixed(self._state)


def _keys(seed: int, epoch: int, samples: NDArray[np.int64]) -> NDArray[np.uint64]:
    start = np.uint64(keyed_seed(seed, epoch))
    return _mix(start + np.uint64(_STEP) * (samples.astype(np.uint64) + np.uint64(1)))


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's output function: every bit of the result depends on every bit of the state."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(_FIRST)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(_SECOND)
    mixed: NDArray[np.uint64] = state ^ (state >> np.uint64(31))
    return mixed


def _mixed(state: int) -> int:
    """The same for one number, in Python's integers."""
    state &= _ALL
    state = (state ^ (state >> 30)) * _FIRST & _ALL
    state = (state ^ (state >> 27)) * _SECOND & _ALL
    return state ^ (state >> 31)
