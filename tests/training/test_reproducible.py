from __future__ import annotations

import pytest
import torch

from vitreous.training.reproducible import reproducible


def _state() -> tuple[int, bool, bool, list[int]]:
    return (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.get_rng_state().tolist(),
    )


def test_inside_threads_are_fixed_and_varying_operations_refused() -> None:
    with reproducible(2):
        assert torch.get_num_threads() == 2
        assert torch.are_deterministic_algorithms_enabled()


def test_afterwards_torch_is_as_before_even_after_an_error() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        before = _state()
        with pytest.raises(KeyboardInterrupt), reproducible(3):
            torch.manual_seed(7)
            torch.rand(3)
            raise KeyboardInterrupt
        assert _state() == before
    finally:
        torch.use_deterministic_algorithms(False)
