from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from vitreous.checkpoints.containers.tensor_file import open_sharded
from vitreous.errors import CheckpointError, InputError

WEIGHTS = {f"blocks.{block}.w": torch.full((2, block + 1), float(block)) for block in range(6)}


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Six tensors in three files."""
    places = {name: f"model-0000{number % 3}-of-00003.safetensors" for number, name in enumerate(WEIGHTS)}
    for place in set(places.values()):
        save_file(
            {name: WEIGHTS[name] for name in WEIGHTS if places[name] == place}, tmp_path / place, {"format": "pt"}
        )
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 168}, "weight_map": places}))
    return path


def test_several_files_are_read_as_one(index: Path) -> None:
    with open_sharded(index) as file:
        assert (file.path, file.container, file.extras) == (index, "safetensors", {"format": "pt"})
        assert file.shapes == {name: tuple(tensor.shape) for name, tensor in WEIGHTS.items()}
        assert set(file.dtypes.values()) == {"float32"}
        assert all(torch.equal(file.read(name), tensor) for name, tensor in WEIGHTS.items())


def test_files_may_be_links_as_in_a_cache(index: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for path in [*tmp_path.glob("*.safetensors"), index]:
        (snapshot / path.name).symlink_to(Path("..") / path.name)
    with open_sharded(snapshot / index.name) as file:
        assert len(file.shapes) == 6


def test_an_index_of_torch_files_is_read(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "one.bin")
    (tmp_path / "i.json").write_text('{"weight_map": {"a": "one.bin"}}')
    with open_sharded(tmp_path / "i.json") as file:
        assert file.container == "torch" and file.read("a").tolist() == [1, 1]


def test_a_missing_file_is_named(index: Path, tmp_path: Path) -> None:
    (tmp_path / "model-00001-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError) as refusal, open_sharded(index):
        pass
    assert "model-00001-of-00003.safetensors does not exist" in str(refusal.value)


def test_an_error_of_the_caller_goes_through(index: Path) -> None:
    with pytest.raises(InputError, match="mine"), open_sharded(index):
        raise InputError("mine")


def test_what_one_file_has_and_the_index_gives_to_another_is_refused(index: Path, tmp_path: Path) -> None:
    described: dict[str, Any] = json.loads(index.read_text())
    first, second = (f"model-0000{number}-of-00003.safetensors" for number in (0, 1))
    described["weight_map"]["blocks.0.w"] = second
    index.write_text(json.dumps(described))
    with (
        pytest.raises(CheckpointError, match=f"blocks.0.w is not in {second}, where the index has it"),
        open_sharded(index),
    ):
        pass
    save_file(WEIGHTS, tmp_path / second)
    with pytest.raises(CheckpointError, match=f"is in {first}, where the index does not have it"), open_sharded(index):
        pass
