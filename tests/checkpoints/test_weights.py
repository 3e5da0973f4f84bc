from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import nn

from vitreous.checkpoints.weights import check_fit, hash_file, hash_of_hashes, hash_weights
from vitreous.errors import CheckpointError


def test_differences_are_listed_up_to_ten() -> None:
    model = nn.Linear(3, 2)
    check_fit(model, {"weight": (2, 3), "bias": (2,)}, Path("f"))
    with pytest.raises(CheckpointError) as refusal:
        check_fit(model, {"weight": (3, 3), "other": (1,)}, Path("f"))
    lines = str(refusal.value).splitlines()
    assert lines[1] == "bias is missing, want (2,); other (1,) is unexpected; weight has (3, 3), want (2, 3)"
    with pytest.raises(CheckpointError, match="and 5 more") as refusal:
        check_fit(model, {"weight": (2, 3), "bias": (2,)} | {f"x{i}": (1,) for i in range(15)}, Path("f"))
    assert len(str(refusal.value).splitlines()) == 3


def test_the_hash_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc" * 10**6)
    assert hash_file(tmp_path / "f") == "sha256:" + hashlib.sha256(b"abc" * 10**6).hexdigest()


def test_the_hash_of_several_files_is_that_of_their_hashes_in_order() -> None:
    expected = "sha256:" + hashlib.sha256(b"sha256:a sha256:b").hexdigest()
    assert hash_of_hashes(["sha256:a", "sha256:b"]) == expected
    assert hash_of_hashes(["sha256:b", "sha256:a"]) != expected


def test_the_hash_of_weights_sees_values_names_and_shapes() -> None:
    model = nn.Linear(2, 2).to(torch.bfloat16)
    first = hash_weights(model)
    assert hash_weights(model) == first and first.startswith("weights-sha256:")
    with torch.no_grad():
        model.weight[0, 0] += 1
    assert hash_weights(model) != first
