"""Which sample comes when, and every random number that belongs to it.

Nothing here has a state: a number depends on (seed, epoch, sample, draw) alone, so the same bits come in any
order, for any number of workers, and after any interruption.

The generator is SplitMix64's output function over a counter, written out so that no library can change it.
Source: Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators", with the constants of
java.util.SplittableRandom.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


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
    numbers = _mix(keys[:, None] + _STEP * np.arange(1, draws + 1, dtype=np.uint64))  # (samples, draws)
    # the upper 24 bits are what a float32 in [0, 1) holds exactly
    return torch.from_numpy((numbers >> np.uint64(40)).astype(np.float32) * np.float32(2**-24))


def keyed_seed(seed: int, *key: int) -> int:
    """A seed for one purpose, such as a step's dropout: 63 bits that depend on all of the arguments."""
    state = _mix(np.array([seed % 2**64], dtype=np.uint64))
    for part in key:
        state = _mix(state + _STEP * np.array([part + 1], dtype=np.uint64))
    return int(state[0] >> np.uint64(1))


def _keys(seed: int, epoch: int, samples: NDArray[np.int64]) -> NDArray[np.uint64]:
    start = np.uint64(keyed_seed(seed, epoch))
    return _mix(start + _STEP * (samples.astype(np.uint64) + np.uint64(1)))


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's output function: every bit of the result depends on every bit of the state."""
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    mixed: NDArray[np.uint64] = state ^ (state >> np.uint64(31))
    return mixed
