from __future__ import annotations

import pytest
import torch

from vitreous.checkpoints.containers.contract import DTYPES, shown_name, why_not_a_name


def test_types_have_the_names_of_pytorch() -> None:
    assert all(str(dtype) == f"torch.{name}" for name, dtype in DTYPES.items()) and DTYPES["bfloat16"] is torch.bfloat16


@pytest.mark.parametrize("name", ["blocks.0.w", "opt/target/cls", "a b", "größe", "a..b", "x" * 512])
def test_names_of_models_are_good(name: str) -> None:
    assert why_not_a_name(name) is None


@pytest.mark.parametrize(
    "name", ["", "x" * 513, "a\0", "a\n", "\x1b[1m", "\u202e", "..", "../a", "a/../b", "/a", "a\\b"]
)
def test_names_that_attack_are_not(name: str) -> None:
    assert why_not_a_name(name)


def test_a_name_is_shown_on_one_line_of_80_characters() -> None:
    assert shown_name("a\x1b[1m\n") == "a\\x1b[1m\\n"
    assert shown_name("x" * 100) == "x" * 80 + "..."
