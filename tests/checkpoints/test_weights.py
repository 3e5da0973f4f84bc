from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vitreous.checkpoints.weights import check_fit, hash_file, hash_weights, read_shapes, read_weights
from vitreous.errors import CheckpointError, InputError


def test_shapes_and_weights_are_read_as_they_were_saved(tmp_path: Path) -> None:
    weights = {"a": torch.randn(2, 3), "b": torch.randn(4).half()}
    save_file(weights, tmp_path / "w.safetensors")
    assert read_shapes(tmp_path / "w.safetensors") == {"a": (2, 3), "b": (4,)}
    read = read_weights(tmp_path / "w.safetensors")
    assert torch.equal(read["a"], weights["a"])
    assert torch.equal(read["b"], weights["b"].float())


def test_weights_stay_when_the_file_goes(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.ones(3)}, path)
    read = read_weights(path)
    path.write_bytes(b"")
    assert torch.equal(read["a"], torch.ones(3))


def test_a_file_that_is_not_there_empty_or_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone.safetensors does not exist"):
        read_shapes(tmp_path / "gone.safetensors")
    (tmp_path / "empty").touch()
    with pytest.raises(InputError, match="empty is empty"):
        read_shapes(tmp_path / "empty")
    with pytest.raises(InputError, match="not a regular file"):
        read_shapes(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        read_shapes(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        read_shapes(Path("/dev/zero"))


def header(described: dict[str, object]) -> bytes:
    text = json.dumps(described).encode()
    return struct.pack("<Q", len(text)) + text


def test_garbage_truncated_and_boasting_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.ones(100)}, path)
    whole = path.read_bytes()
    huge = {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}
    short = {"dtype": "F32", "shape": [10**6], "data_offsets": [0, 4]}
    for content in (
        b"garbage",
        whole[:-1],
        whole[:20],
        struct.pack("<Q", 2**60) + b"{}",
        header({"a": huge}),
        header({"a": short}) + b"1234",
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="not a whole safetensors file") as refusal:
            read_shapes(path)
        assert str(path) in str(refusal.value) and len(str(refusal.value).splitlines()) <= 3


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="can run code"):
        read_shapes(tmp_path / "w.safetensors")


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2, dtype=torch.int8)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="a holds I8"):
        read_shapes(tmp_path / "w.safetensors")


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


def test_the_hash_of_weights_sees_values_names_and_shapes() -> None:
    model = nn.Linear(2, 2).to(torch.bfloat16)
    first = hash_weights(model)
    assert hash_weights(model) == first and first.startswith("weights-sha256:")
    with torch.no_grad():
        model.weight[0, 0] += 1
    assert hash_weights(model) != first
