from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vitreous.checkpoints.numbers import odd_numbers
from vitreous.errors import CheckpointError

FILE = Path("weights.pth")


def test_ordinary_weights_pass_without_a_word() -> None:
    weights = {"head.weight": torch.ones(2, 3), "head.bias": torch.zeros(2), "cls_token": torch.zeros(1, 1, 3)}
    assert odd_numbers(weights, FILE, strict=True) == ()


def test_numbers_that_are_not_finite_are_counted_by_tensor() -> None:
    weight = torch.ones(2, 3)
    weight[0, 0], weight[1, 2] = torch.nan, -torch.inf
    (note,) = odd_numbers({"a": torch.ones(1), "blocks.0.norm1.weight": weight}, FILE, strict=False)
    assert (note.setting, note.value, note.guessed) == ("not finite", "blocks.0.norm1.weight has 2 of 6", True)
    with pytest.raises(CheckpointError, match=r"weights.pth .*blocks.0.norm1.weight has 2 of 6"):
        odd_numbers({"blocks.0.norm1.weight": weight}, FILE, strict=True)


@pytest.mark.parametrize("number", [3e38, 1e-42])
def test_numbers_at_the_edge_of_float32_are_finite(number: float) -> None:
    assert odd_numbers({"head.weight": torch.full((4, 4), number)}, FILE, strict=True) == ()


def test_a_matrix_of_zeros_that_stops_the_model_is_named() -> None:
    weights = {f"blocks.{layer}.attn.qkv.weight": torch.zeros(3, 1) for layer in range(5)}
    (note,) = odd_numbers(weights, FILE, strict=True)
    assert note.setting == "all zero" and note.value.endswith("and 2 more")


def test_a_head_of_zeros_is_said_but_no_guess() -> None:
    (note,) = odd_numbers({"head.weight": torch.zeros(2, 3)}, FILE, strict=True)
    assert (note.setting, note.value, note.guessed) == ("head", "all zero", False)


def test_an_empty_tensor_is_nothing_odd() -> None:
    assert odd_numbers({"patch_embed.proj.weight": torch.zeros(0, 3)}, FILE, strict=True) == ()
