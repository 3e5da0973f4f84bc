from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from vitreous.checkpoints.containers.tensor_file import open_tensors
from vitreous.errors import CheckpointError


def test_the_pieces_of_the_bad_files_make_a_good_one(bad: dict[str, Any], tmp_path: Path) -> None:
    """So that each bad file is refused for what is bad in it."""
    whole = bad["legacy"](bad["mapping"](bad["text"]("a") + bad["legacy_view"]()))
    (tmp_path / "old.pth").write_bytes(whole)
    assert torch.load(tmp_path / "old.pth", weights_only=True)["a"].tolist() == [[0, 0], [0, 0]]
    with open_tensors(tmp_path / "old.pth") as file:
        assert file.read("a").tolist() == [[0, 0], [0, 0]]


def test_storages_are_found_in_the_order_of_the_file(tmp_path: Path) -> None:
    weights = {f"{size}": torch.full((size,), float(size)) for size in range(12)}
    torch.save(weights, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with open_tensors(tmp_path / "old.pth") as file:
        assert all(torch.equal(file.read(name), tensor) for name, tensor in weights.items())


def test_part_of_a_storage_as_before_2018_is_refused(bad: dict[str, Any], tmp_path: Path) -> None:
    text, whole, several = bad["text"], bad["whole"], bad["several"]
    parts = (text("storage"), bad["name"]("torch.FloatStorage"), text("0"), text("cpu"), whole(4))
    storage = several(*parts, several(text("1"), whole(0), whole(2))) + b"Q"
    old = bad["legacy"](bad["mapping"](text("a") + bad["view"](made_of=storage)))
    (tmp_path / "old.pth").write_bytes(old)
    with pytest.raises(CheckpointError, match="no storage"), open_tensors(tmp_path / "old.pth"):
        pass


def test_a_pickle_with_numbers_of_another_machine_is_refused(bad: dict[str, Any], tmp_path: Path) -> None:
    whole, program, mapping = bad["whole"], bad["program"], bad["mapping"]
    system = mapping(bad["text"]("little_endian") + b"\x89")
    content = b"".join(map(program, (whole(bad["MAGIC"]), whole(1001), system, mapping(), b"]")))
    (tmp_path / "old.pth").write_bytes(content + struct.pack("<q", 0))
    with pytest.raises(CheckpointError, match="not little-endian"), open_tensors(tmp_path / "old.pth"):
        pass


def test_a_storage_that_says_how_long_it_is_must_fit_the_file(bad: dict[str, Any], tmp_path: Path) -> None:
    good = bad["mapping"](bad["text"]("a") + bad["legacy_view"]())
    for numel in (-4, 5, 2**62):
        (tmp_path / "old.pth").write_bytes(bad["legacy"](good, tail=struct.pack("<q", numel) + bytes(16)))
        with (
            pytest.raises(CheckpointError, match=f"said to have {numel:,} numbers, more"),
            open_tensors(tmp_path / "old.pth"),
        ):
            pass
