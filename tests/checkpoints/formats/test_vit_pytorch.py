from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vitreous.checkpoints.formats import vit_pytorch as format_vit_pytorch
from vitreous.checkpoints.reading import Found, Reading
from vitreous.errors import CheckpointError
from vitreous.model.vit import VisionTransformer

vit_pytorch = pytest.importorskip("vit_pytorch")

Build = Callable[[Reading, Mapping[str, np.ndarray]], VisionTransformer]
Randomised = Callable[[nn.Module], dict[str, np.ndarray]]
Arrays = dict[str, np.ndarray]

SMALL: dict[str, Any] = {
    "image_size": (32, 48), "patch_size": (8, 16), "dim": 48, "depth": 2, "heads": 2, "mlp_dim": 80, "num_classes": 5,
}  # fmt: skip
ASKED: dict[str, Any] = {"image_size": (32, 48), "patch_size": (8, 16)}


def make(kind: str, **changes: Any) -> nn.Module:
    with torch.random.fork_rng():
        return getattr(vit_pytorch, kind)(**SMALL | changes).eval()


def found_in(arrays: Arrays, **asked: Any) -> Found:
    return Found({name: array.shape for name, array in arrays.items()}, "torch", asked=asked)


def difference(model: nn.Module, ours: nn.Module, size: tuple[int, int] = (32, 48)) -> float:
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return float((ours(images) - model(images)).abs().max())


@pytest.mark.parametrize(
    ("kind", "changes", "asked"),
    [
        ("ViT", {}, {}),
        ("ViT", {"pool": "mean"}, {}),
        ("ViT", {"dim_head": 8, "heads": 3, "channels": 3}, {"heads": 3}),
        ("ViT", {"dim": 64, "heads": 1}, {}),
        ("SimpleViT", {}, {}),
    ],
    ids=["class token", "mean", "narrow heads", "one head", "SimpleViT"],
)
def test_logits_are_vit_pytorchs(
    kind: str, changes: dict[str, Any], asked: dict[str, Any], build: Build, randomised: Randomised
) -> None:
    model = make(kind, **changes)
    arrays = randomised(model)
    found = found_in(arrays, **ASKED, **asked)
    assert format_vit_pytorch.recognises(found)
    assert difference(model, build(format_vit_pytorch.read(found), arrays)) < 1e-5


def test_a_square_needs_nothing_said(build: Build, randomised: Randomised) -> None:
    model = make("ViT", image_size=32, patch_size=8)
    arrays = randomised(model)
    reading = format_vit_pytorch.read(found_in(arrays))
    assert difference(model, build(reading, arrays), (32, 32)) < 1e-5
    guessed = {decision.setting for decision in reading.decisions if decision.guessed}
    assert guessed == {"heads", "mean and std", "resize", "interpolation"}


def test_names_and_shapes_of_earlier_versions_are_read_alike(build: Build, randomised: Randomised) -> None:
    model = make("ViT")
    arrays = randomised(model)
    now = build(format_vit_pytorch.read(found_in(arrays, **ASKED)), arrays)
    with_batch = {name: array[None] if name == "pos_embedding" else array for name, array in arrays.items()}
    with_batch["cls_token"] = arrays["cls_token"][None]
    reading = format_vit_pytorch.read(found_in(with_batch, **ASKED))
    assert same_weights(build(reading, with_batch), now)
    assert {d.setting for d in reading.decisions if d.guessed} >= {"pooling"}
    oldest = {oldest_name(name): array for name, array in with_batch.items()}
    assert same_weights(build(format_vit_pytorch.read(found_in(oldest, **ASKED)), oldest), now)


def oldest_name(name: str) -> str:
    """Names while LayerNorms stood around a function; the last one was the head's, which makes no difference."""
    for new, old in (
        (".0.to_", ".0.fn.to_"), (".1.net.0.", ".1.norm."), (".1.net.1.", ".1.fn.net.0."),
        (".1.net.4.", ".1.fn.net.3."), ("mlp_head.", "mlp_head.1."), ("transformer.norm.", "mlp_head.0."),
    ):  # fmt: skip
        name = name.replace(new, old)
    return name


def same_weights(one: VisionTransformer, other: VisionTransformer) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_earliest_patches_have_no_norms(randomised: Randomised) -> None:
    arrays = randomised(make("ViT"))
    plain = {name: array for name, array in arrays.items() if not name.startswith("to_patch_embedding.")}
    plain["to_patch_embedding.1.weight"] = arrays["to_patch_embedding.2.weight"]
    plain["to_patch_embedding.1.bias"] = arrays["to_patch_embedding.2.bias"]
    config = format_vit_pytorch.read(found_in(plain, **ASKED)).config
    assert (config.patch_norms, config.patch_size, config.channels) == (False, (8, 16), 3)


@pytest.mark.parametrize(
    ("changes", "asked", "message"),
    [
        ({}, {}, "say patch_size="),
        ({}, {"patch_size": (8, 16)}, "no square grid"),
        ({}, {"patch_size": (8, 17)}, "not those of 8 x 17 pixels"),
        ({"transformer.layers.0.0.to_qkv.weight": (3 * 40, 48)}, ASKED, "say heads=N"),
        ({"cls_token": (1, 1, 48)}, ASKED | {"pooling": "mean"}, "counts the class token too"),
        ({"mlp_head.1.weight": (5, 48)}, ASKED, "a LayerNorm after the blocks and one before the head"),
        ({"register_tokens": (4, 48)}, ASKED, "no place for 'register_tokens'"),
        ({"to_patch_embedding.2.weight": (48,)}, ASKED, "to_patch_embedding.2.weight is"),
    ],
)
def test_other_models_and_open_questions_are_refused(
    changes: dict[str, Any], asked: dict[str, Any], message: str, randomised: Randomised
) -> None:
    shapes = {name: array.shape for name, array in randomised(make("ViT")).items()}
    with pytest.raises(CheckpointError, match=message):
        format_vit_pytorch.read(Found(shapes | changes, asked=asked))
