"""Honest safetensors files, beside the safetensors library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from vitreous.checkpoints.containers.contract import DTYPES
from vitreous.checkpoints.containers.safetensors import CODES, in_file_order, safetensors_pieces
from vitreous.checkpoints.containers.tensor_file import open_tensors
from vitreous.errors import CheckpointError


@pytest.mark.parametrize("dtype", CODES.values())
def test_tensors_are_those_of_the_library(dtype: str, tmp_path: Path) -> None:
    numbers = torch.arange(1, 97, dtype=torch.uint8)
    one = (numbers % 2).bool() if dtype == "bool" else numbers.view(DTYPES[dtype])
    weights = {"one": one, "two": one[2:].clone(), "scalar": one[0].clone(), "nothing": one[:0].clone()}
    weights["table"] = one.reshape(2, -1).clone()
    save_file(weights, tmp_path / "w.safetensors", metadata={"format": "pt"})
    want = load_file(tmp_path / "w.safetensors")
    with open_tensors(tmp_path / "w.safetensors") as file:
        assert (file.container, file.extras) == ("safetensors", {"format": "pt"})
        assert file.shapes == {name: tuple(tensor.shape) for name, tensor in want.items()}
        assert set(file.dtypes.values()) == {dtype}
        for name, tensor in want.items():
            have = file.read(name)
            assert have.dtype == tensor.dtype
            assert have.reshape(-1).view(torch.uint8).tolist() == tensor.reshape(-1).view(torch.uint8).tolist()


def test_what_the_library_takes_and_the_format_forbids_is_refused(bad: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    one = '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    for header in (f"{{{one},{one}}}", f" {{{one}}}"):
        path.write_bytes(bad["safetensors_bytes"](header.encode(), bytes(4)))
        try:
            load_file(path)
        except Exception as refusal:  # a later version of the library may refuse it too
            assert type(refusal).__name__ == "SafetensorError"
        with pytest.raises(CheckpointError, match="not a whole safetensors file"), open_tensors(path):
            pass


def test_a_refusal_names_the_entry_and_the_place(bad: dict[str, Any], tmp_path: Path) -> None:
    entry = bad["entry"]
    header = {"blocks.0.w": entry(), "blocks.1.w": entry(20, 36)}
    (tmp_path / "w.safetensors").write_bytes(bad["safetensors_bytes"](header, bytes(36)))
    with pytest.raises(CheckpointError) as refusal, open_tensors(tmp_path / "w.safetensors"):
        pass
    data_start = 8 + len(json.dumps(header))
    told = f"blocks.1.w starts at byte {data_start + 20}, not at {data_start + 16}: it leaves a gap before it"
    assert told in str(refusal.value)


def test_a_flag_that_is_neither_0_nor_1_is_true(bad: dict[str, Any], tmp_path: Path) -> None:
    header = {"a": bad["entry"](0, 3, "BOOL", [3])}
    (tmp_path / "w.safetensors").write_bytes(bad["safetensors_bytes"](header, b"\0\2\xff"))
    with open_tensors(tmp_path / "w.safetensors") as file:
        assert file.read("a").view(torch.uint8).tolist() == [0, 1, 1]


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_written_bytes_are_those_of_the_library(metadata: dict[str, str] | None) -> None:
    kinds = [dtype for dtype in CODES.values() if not dtype.startswith("float8")]
    tensors = {f"{seed}.{dtype}": torch.arange(seed, 6).to(DTYPES[dtype]) for seed in (1, 0) for dtype in kinds}
    tensors |= {"größe": torch.zeros(2, 3), "number": torch.tensor(1.5), "empty": torch.zeros(0, 3)}
    written = b"".join(safetensors_pieces(in_file_order(tensors), metadata))
    assert written == save(tensors, metadata)
