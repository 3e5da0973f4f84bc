"""What workers do ahead of the model; `tests/inspecting/test_streaming.py` has the same with pictures."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from vitreous.data import loading
from vitreous.data.loading import made_ahead
from vitreous.errors import WorkerError


def slow_first(key: int) -> tuple[int, int]:
    """The first takes longest, so that workers end in another order."""
    time.sleep(0.2 if key == 7 else 0)
    return key, os.getpid()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_things_come_in_the_order_of_their_keys(workers: int) -> None:
    keys = [7, 3, 3, 11, 0]
    with made_ahead(slow_first, keys, workers) as made:
        things = list(made)
    assert [key for key, _ in things] == keys
    assert (os.getpid() in {process for _, process in things}) == (workers == 0)


def test_without_keys_nothing_comes() -> None:
    with made_ahead(slow_first, [], 1) as made:
        assert list(made) == []


def test_torchs_own_random_numbers_do_not_move_on() -> None:
    before = torch.get_rng_state()
    for workers in (0, 1):
        with made_ahead(slow_first, [1, 2], workers) as made:
            list(made)
    assert torch.equal(torch.get_rng_state(), before)


class LosesItsConnection:
    """A loader whose worker dies while it hands over a tensor."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __iter__(self) -> Iterator[int]:
        yield 1
        raise ConnectionResetError("connection reset by peer")


def test_a_connection_lost_with_its_worker_is_a_lost_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = []

    def news(seconds: float) -> None:
        waited.append(seconds)
        raise RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. ")  # as torch's handler does

    monkeypatch.setattr(loading, "DataLoader", LosesItsConnection)
    monkeypatch.setattr(time, "sleep", news)
    with (
        pytest.raises(WorkerError, match=r"was lost: DataLoader worker \(pid 12\) is killed by signal: Killed\.\n"),
        made_ahead(slow_first, [1, 2], 1) as made,
    ):
        list(made)
    assert waited == [loading._NEWS]


def test_a_connection_lost_without_a_lost_worker_stays_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "DataLoader", LosesItsConnection)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with pytest.raises(ConnectionResetError), made_ahead(slow_first, [1, 2], 1) as made:
        list(made)


def test_an_error_of_the_model_is_left_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="shapes"), made_ahead(slow_first, [1, 2], 0) as made:
        next(made)
        raise RuntimeError("shapes do not fit")


def dies_at_3(key: int) -> int:
    loading.reading(key)
    if key == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return key


def test_a_worker_that_dies_names_the_picture_that_it_was_at() -> None:
    names = ["0.png", "1.png", "2.png", "\x1b[31m3.png", "4.png"]
    told = pytest.raises(WorkerError, match=r"worker \(pid.*; it was at \\x1b\[31m3\.png\.\nif memory ran out")
    with told, made_ahead(dies_at_3, [0, 1, 2, 3, 4], 2, names) as made:
        list(made)
    with made_ahead(dies_at_3, [0, 1], 0, names) as made:
        assert list(made) == [0, 1]
