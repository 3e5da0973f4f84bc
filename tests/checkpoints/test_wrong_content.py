"""Files whose container is fine and whose content is not: each is refused in three lines, with what was found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vitreous.checkpoints.saving import save
from vitreous.checkpoints.sources import load
from vitreous.data.preprocess import Preprocess
from vitreous.errors import VitreousError
from vitreous.model.vit import VisionTransformer

MakeModel = Callable[..., VisionTransformer]
Weights = dict[str, Tensor]


@pytest.fixture
def folder(tmp_path: Path, make_model: MakeModel) -> Path:
    save(make_model(), tmp_path / "m", preprocess=Preprocess((16, 16)))
    return tmp_path / "m"


def without(*names: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: weight for name, weight in weights.items() if name not in names}


def but(**changes: Callable[[Tensor], Tensor]) -> Callable[[Weights], Weights]:
    """Some tensors changed, `__` for a dot."""

    def change(weights: Weights) -> Weights:
        changed = {name.replace("__", "."): make for name, make in changes.items()}
        return weights | {name: make(weights[name]).contiguous() for name, make in changed.items()}

    return change


def named(old: str, new: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name.replace(old, new): weight for name, weight in weights.items()}


WRONG: list[tuple[str, Callable[[Weights], Weights], str]] = [
    ("a tensor is missing", without("norm.bias"), "norm.bias is missing"),
    ("twelve tensors are missing", lambda w: {n: t for n, t in w.items() if "norm" not in n and "proj" not in n},
     "and .* more"),
    ("an unknown tensor", lambda w: w | {"blocks.0.adapter.weight": torch.ones(2)}, "adapter.weight .* is unexpected"),
    ("a transposed matrix", but(blocks__0__mlp__fc1__weight=lambda t: t.T), r"fc1.weight has \(24, 96\)"),
    ("another patch", but(patch_embed__proj__weight=lambda t: torch.ones(24, 3, 8, 8)), r"want \(24, 3, 4, 4\)"),
    ("one channel", but(patch_embed__proj__weight=lambda t: t[:, :1]), r"\(24, 1, 4, 4\)"),
    ("other positions", but(pos_embed=lambda t: t[:, :-1]), r"pos_embed has \(1, 16, 24\)"),
    ("other classes", but(head__weight=lambda t: t[:3]), r"head.weight has \(3, 24\), want \(5, 24\)"),
    ("a gap between blocks", named("blocks.1.", "blocks.2."), "blocks"),
    ("an enormous block", named("blocks.1.", "blocks.999999999."), "blocks"),
    ("no block", lambda w: {n: t for n, t in w.items() if not n.startswith("blocks")}, "0 blocks"),
    ("whole numbers", but(head__weight=lambda t: t.to(torch.int32)), "holds int32; weights are one of float64"),
    ("flags", but(head__bias=lambda t: t > 0), "holds bool"),
    ("complex numbers", but(head__bias=lambda t: t.to(torch.complex64)), "holds complex64"),
    ("a scalar", but(head__bias=lambda t: t.sum()), r"head.bias has \(\)"),
    ("nothing in it", but(head__bias=lambda t: t[:0]), r"head.bias has \(0,\)"),
    ("names of nobody", lambda w: {f"x{n}": t for n, t in enumerate(w.values())}, "0 blocks"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_tensors_that_are_not_the_models_are_refused(
    folder: Path, change: Callable[[Weights], Weights], message: str
) -> None:
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")
    with pytest.raises(VitreousError, match=message) as refusal:
        load(folder)
    assert refusal.value.exit_code == 5
    assert len(str(refusal.value).splitlines()) <= 3
    assert str(folder) in str(refusal.value)


def entry(**changes: Any) -> Callable[[dict[str, Any]], bytes]:
    """Our own config with other settings."""

    def change(described: dict[str, Any]) -> bytes:
        described["vitreous"]["config"] |= changes
        return json.dumps(described).encode()

    return change


SETTINGS: list[tuple[str, Callable[[dict[str, Any]], bytes], str]] = [
    ("cut", lambda d: json.dumps(d).encode()[:-9], "is not JSON at its character"),
    ("an array", lambda d: b"[1]", "is a JSON object"),
    ("a huge depth", entry(depth=10**9), "has 2 blocks"),
    ("a patch of 0", entry(patch_size=[0, 0]), "patch_size is"),
    ("a negative patch", entry(patch_size=[-8, -8]), "patch_size is"),
    ("a patch that does not fit", entry(image_size=[33, 33], patch_size=[8, 8]), "nearest are 32 and 40"),
    ("heads that do not divide", entry(heads=7), "not a multiple of heads 7"),
    ("NaN", entry(norm_eps=float("nan")), "has NaN, for which JSON has no word"),
    ("infinity", entry(mlp_ratio=float("inf")), "has Infinity, for which JSON has no word"),
    ("a misspelt key", entry(widht=24), "did you mean 'width'"),
    ("a key twice", lambda d: b'{"vitreous": {}, "vitreous": {}}', "has vitreous twice"),
    ("100,000 levels", lambda d: b'{"a":' * 100_000, "nested too deep"),
    ("UTF-16", lambda d: json.dumps(d).encode("utf-16"), "begins with"),
    ("not UTF-8", lambda d: b'{"a": "\xff"}', "not UTF-8 at its byte 7"),
    ("5,000 digits", lambda d: b'{"a": ' + b"9" * 5000 + b"}", "a number of 5,000 digits"),
    ("a flag for a count", entry(depth=True), "depth is True"),
    ("a word for a count", entry(width="24"), "width is '24'"),
    ("another class of model", entry(pooling="max"), "choose one of class, mean"),
    ("a stem of nothing", entry(stem=[0]), "stem is"),
    ("too wide", entry(width=3 * 10**9), "times the width 3000000000"),
]


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in SETTINGS], ids=[case[0] for case in SETTINGS])
def test_settings_that_cannot_be_are_refused(
    folder: Path, change: Callable[[dict[str, Any]], bytes], message: str
) -> None:
    path = folder / "config.json"
    path.write_bytes(change(json.loads(path.read_text())))
    with pytest.raises(VitreousError, match=message) as refusal:
        load(folder)
    assert refusal.value.exit_code in (2, 5)
    assert len(str(refusal.value).splitlines()) <= 3
    assert str(folder) in str(refusal.value)
