"""Honest files of torch.save and torch.jit.save, beside torch.load and torch.jit.load."""

from __future__ import annotations

import argparse
import warnings
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vitreous.checkpoints.containers.contract import DTYPES
from vitreous.checkpoints.containers.tensor_file import open_tensors
from vitreous.errors import CheckpointError

SAVINGS: dict[str, dict[str, Any]] = {
    "new": {},
    "protocol 4": {"pickle_protocol": 4},
    "legacy": {"_use_new_zipfile_serialization": False},
    "legacy, protocol 5": {"_use_new_zipfile_serialization": False, "pickle_protocol": 5},
}


def equal(first: Tensor, second: Tensor) -> bool:
    """Bit for bit: NaN equals NaN, and 0 is not -0."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    pair = (tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in (first, second))
    return torch.equal(*pair)


def read_all(path: Path) -> dict[str, Tensor]:
    with open_tensors(path) as file:
        return {name: file.read(name) for name in file.shapes}


def flattened(value: Any, name: str = "") -> dict[str, Tensor]:
    """The slow way: names with dots of what torch.load gives."""
    if isinstance(value, Tensor):
        return {name: value}
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    found: dict[str, Tensor] = {}
    for key, part in pairs:
        found |= flattened(part, f"{name}.{key}" if name else str(key))
    return found


def checkpoint() -> dict[str, Any]:
    torch.manual_seed(0)
    table = torch.randn(4, 6)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    return {
        "model": {
            "table": table,
            "transposed": table.t(),
            "part": table[1:3, 2:5],
            "every second": table[::2, ::3],
            "permuted": torch.randn(2, 3, 4).permute(2, 0, 1),
            "scalar": torch.tensor(3.5),
            "nothing": torch.empty(0, 3),
            "NaN": torch.tensor([float("nan"), -0.0, float("inf")]),
            "parameter": nn.Parameter(torch.randn(2)),
            "flags": torch.tensor([True, False, True]),
            "brain": torch.randn(3).bfloat16(),
        },
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "list": [torch.ones(2), torch.zeros(3)],
        "pair": (torch.ones(1), 2),
    }


@pytest.mark.parametrize("saving", SAVINGS)
def test_tensors_are_those_of_torch_load(saving: str, tmp_path: Path) -> None:
    torch.save(checkpoint(), tmp_path / "c.pth", **SAVINGS[saving])
    want = flattened(torch.load(tmp_path / "c.pth", weights_only="protocol" not in saving))
    have = read_all(tmp_path / "c.pth")
    assert list(have) == list(want) and len(want) == 33
    for name, tensor in want.items():
        assert equal(have[name], tensor), name


@pytest.mark.parametrize("saving", SAVINGS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_is_read(dtype: str, saving: str, tmp_path: Path) -> None:
    numbers = torch.arange(1, 17, dtype=torch.uint8).repeat(4)
    tensor = torch.tensor([True, False]) if dtype == "bool" else numbers.view(DTYPES[dtype])
    torch.save({"a": tensor, "b": tensor[1:]}, tmp_path / "c.pth", **SAVINGS[saving])
    with open_tensors(tmp_path / "c.pth") as file:
        assert file.dtypes == {"a": dtype, "b": dtype}
        assert equal(file.read("a"), tensor) and equal(file.read("b"), tensor[1:])


def test_plain_values_stand_in_the_extras(tmp_path: Path) -> None:
    args = argparse.Namespace(lr=0.1, betas=[0.9, 0.95], model="vit_base", output=Path("a") / "b", nested={"x": None})
    content = {
        "w": torch.ones(1),
        "epoch": 3,
        "best": np.float64(81.8),
        "count": np.int64(7),
        "args": args,
        "device": torch.device("cuda:1"),
        "size": torch.Size((3, 224, 224)),
        "milestones": Counter({30: 1}),
        "ordered": OrderedDict(a=1),
        "set": {5},
        "bytes": b"dropped",
        "long": "x" * 2000,
        "many": list(range(100)),
    }
    torch.save(content, tmp_path / "c.pth")
    with open_tensors(tmp_path / "c.pth") as file:
        assert file.container == "torch" and file.shapes == {"w": (1,)}
        extras = {name: value for name, value in file.extras.items() if not name.startswith("many.")}
    assert extras == {
        "epoch": 3,
        "best": 81.8,
        "count": 7,
        "args.lr": 0.1,
        "args.betas": [0.9, 0.95],
        "args.model": "vit_base",
        "args.output": "a/b",
        "args.nested.x": None,
        "device": "cuda:1",
        "size": [3, 224, 224],
        "milestones.30": 1,
        "ordered.a": 1,
        "set": [5],
    }


def test_tensors_need_the_file_no_more_and_share_no_memory(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    torch.save({"a": shared, "b": shared, "c": shared[2:4]}, tmp_path / "c.pth")
    have = read_all(tmp_path / "c.pth")
    have["a"].zero_()
    assert have["b"].tolist() == [0, 1, 2, 3, 4, 5] and have["c"].tolist() == [2, 3]
    assert have["c"].untyped_storage().nbytes() == 8


@pytest.mark.parametrize("how", ["script", "trace"])
def test_a_torchscript_archive_is_read_without_its_code(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = (
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Sequential(nn.GELU(), nn.Conv2d(2, 1, 1))).eval().half()
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        made = torch.jit.script(model) if how == "script" else torch.jit.trace(model.float(), torch.ones(1, 1, 4, 4))
        made.save(str(tmp_path / "s.pt"))
        want = torch.jit.load(str(tmp_path / "s.pt")).state_dict()
    monkeypatch.delattr(torch.jit, "load")
    monkeypatch.delattr(torch, "load")
    with open_tensors(tmp_path / "s.pt") as file:
        assert file.container == "torchscript" and set(file.shapes) == set(want)
        assert all(equal(file.read(name), tensor) for name, tensor in want.items())


def test_a_damaged_storage_is_found_when_it_is_read(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(64), "b": torch.ones(64)[:3]}, tmp_path / "c.pth")
    content = bytearray((tmp_path / "c.pth").read_bytes())
    place = content.index(torch.ones(64).numpy().tobytes())
    content[place + 200] ^= 1  # of b, but behind its three numbers
    (tmp_path / "c.pth").write_bytes(content)
    with open_tensors(tmp_path / "c.pth") as file:
        assert not file.read("a").any()
        with pytest.raises(CheckpointError, match="data/1 is damaged: its checksum"):
            file.read("b")


def test_a_model_saved_whole_is_refused_with_its_class_and_the_way_out(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pth")
    with pytest.raises(CheckpointError) as refusal, open_tensors(tmp_path / "whole.pth"):
        pass
    lines = str(refusal.value).splitlines()
    assert lines[0].endswith("whole.pth: its pickle asks for torch.nn.modules.linear.Linear, which can run code")
    assert "save_file(model.state_dict()" in lines[1]


def test_an_archive_of_a_big_endian_machine_is_refused(bad: dict[str, Any], tmp_path: Path) -> None:
    archive, member, pickled = bad["archive"], bad["member"], bad["program"](b"}")
    (tmp_path / "big.pth").write_bytes(archive(member("a/data.pkl", pickled), member("a/byteorder", b"big")))
    with pytest.raises(CheckpointError, match="not little-endian"), open_tensors(tmp_path / "big.pth"):
        pass
