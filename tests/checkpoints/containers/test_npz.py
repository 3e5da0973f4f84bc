"""Honest npz files, beside numpy.load."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vitreous.checkpoints.containers.contract import DTYPES
from vitreous.checkpoints.containers.tensor_file import open_tensors
from vitreous.errors import CheckpointError

CODES = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1", "c8", "c16")


def arrays() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    numbers = draw.normal(size=(3, 4, 5)).astype("f4")
    return {
        "opt/target/embedding/kernel": numbers,
        "Fortran": np.asfortranarray(numbers),
        "vector": numbers[0, 0],
        "scalar": np.float32(2.5),
        "nothing": np.empty((0, 7), "f4"),
        "zeros": np.zeros((100, 100), "f4"),
        **{f"little {code}": (numbers * 50).astype("<" + code) for code in CODES},
        **{f"big {code}": (numbers * 50).astype(">" + code) for code in CODES},
        **{f"big Fortran {code}": np.asfortranarray((numbers * 50).astype(">" + code)) for code in ("f4", "c16")},
    }


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "deflated"])
def test_arrays_are_those_of_numpy_load(save: Any, tmp_path: Path) -> None:
    save(tmp_path / "a.npz", **arrays())
    with np.load(tmp_path / "a.npz") as want, open_tensors(tmp_path / "a.npz") as file:
        assert file.container == "npz" and list(file.shapes) == want.files and file.extras == {}
        for name in want.files:
            native = want[name].astype(want[name].dtype.newbyteorder("="))
            have = file.read(name)
            assert file.shapes[name] == native.shape and have.is_contiguous()
            assert file.dtypes[name] == str(native.dtype) and have.dtype == DTYPES[str(native.dtype)]
            assert have.numpy().tobytes() == native.tobytes(), name


def test_two_raw_bytes_are_a_bfloat16(tmp_path: Path) -> None:
    want = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    raw = want.view(torch.uint8).numpy().view("V2")
    np.savez(tmp_path / "a.npz", raw=raw, Fortran=np.asfortranarray(raw))
    with open_tensors(tmp_path / "a.npz") as file:
        assert file.shapes == {"raw": (3, 5), "Fortran": (3, 5)} and set(file.dtypes.values()) == {"bfloat16"}
        assert torch.equal(file.read("raw"), want) and torch.equal(file.read("Fortran"), want)


def test_a_file_of_python_2_is_read(bad: dict[str, Any], tmp_path: Path) -> None:
    array = bad["npy"](shape="(2L, 2L)", data=np.arange(4, dtype="<f4").tobytes())
    (tmp_path / "a.npz").write_bytes(bad["archive"](bad["member"]("a.npy", array)))
    with open_tensors(tmp_path / "a.npz") as file:
        assert file.read("a").tolist() == [[0, 1], [2, 3]]


def test_a_flag_that_is_neither_0_nor_1_is_true(bad: dict[str, Any], tmp_path: Path) -> None:
    array = bad["npy"]("'|b1'", "(3,)", b"\0\2\xff")
    (tmp_path / "a.npz").write_bytes(bad["archive"](bad["member"]("a.npy", array)))
    with open_tensors(tmp_path / "a.npz") as file:
        assert file.read("a").view(torch.uint8).tolist() == [0, 1, 1]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "deflated"])
def test_a_changed_byte_is_found(save: Any, tmp_path: Path) -> None:
    whole = io.BytesIO()
    save(whole, a=np.random.default_rng(0).normal(size=1000))
    content = bytearray(whole.getvalue())
    content[4000] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    with open_tensors(tmp_path / "a.npz") as file, pytest.raises(CheckpointError, match=r"a.npz: .* a.npy .*"):
        file.read("a")


def test_an_array_is_inflated_only_when_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", a=np.ones(3), b=np.zeros(4))
    taken: list[tuple[int, ...]] = []
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda shape, **rest: taken.append(tuple(shape)) or empty(shape, **rest))
    with open_tensors(tmp_path / "a.npz") as file:
        assert taken == []
        file.read("b")
    assert taken == [(4,)]
