"""Whatever shapes a file claims, and whatever its config.json says: read, or refused in our own words."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitreous.checkpoints.formats import timm, vit_pytorch
from vitreous.checkpoints.formats.known import FORMATS
from vitreous.checkpoints.reading import Found
from vitreous.checkpoints.wrappers import strip
from vitreous.errors import CheckpointError

ODD_SHAPES: tuple[tuple[int, ...], ...] = (
    (), (0,), (1,), (7,), (64,), (1, 64), (64, 64), (0, 64), (1, 17, 64), (1, 1, 64), (64, 3, 8, 8), (2**40, 2**40),
    (1,) * 9, (64, 3, 0, 8), (67, 1), (192, 64), (256, 64),
)  # fmt: skip
ODD_SETTINGS = (None, [], {}, 0, -1, 3, "", "x" * 500, True, 1e308, [1, 2, 3], {"a": 1}, "avg", "vit_tiny_patch16_224")


def stored_shapes() -> dict[str, dict[str, tuple[int, ...]]]:
    stored = np.load(Path(__file__).parents[2] / "references" / "torch_states.npz")
    index = json.loads(stored["index"].tobytes())
    return {case: {name: tuple(shape) for name, shape in entry["shapes"].items()} for case, entry in index.items()}


STATES = stored_shapes()


def spoilt(draw: random.Random) -> Found:
    """A real file's shapes with some lost, some changed, some of another file's, and settings of any kind."""
    shapes = dict(draw.choice(list(STATES.values())))
    for name in draw.sample(list(shapes), draw.randint(0, 4)):
        del shapes[name]
    for name in draw.sample(list(shapes), draw.randint(0, 3)):
        shapes[name] = draw.choice(ODD_SHAPES)
    others = dict(draw.choice(list(STATES.values())))
    for name in draw.sample(list(others), draw.randint(0, 3)):
        shapes.setdefault(name, others[name])
    described: dict[str, Any] = {}
    if draw.random() < 0.5:
        keys = ("global_pool", "model_args", "pretrained_cfg", "label_names", "model_cfg", "preprocess_cfg")
        described = {key: draw.choice(ODD_SETTINGS) for key in draw.sample(keys, 3)}
        words = ("num_heads", "img_size", "act_layer", "norm_layer", "init_values", "global_pool", "depth", "x")
        arguments = {key: draw.choice(ODD_SETTINGS) for key in draw.sample(words, 2)}
        described |= {"architecture": draw.choice((*ODD_SETTINGS, "vit_small_patch16_dinov3", "beit_base_patch16_224"))}
        described |= {"model_args": arguments} if draw.random() < 0.5 else {}
    name = draw.choice(("", "dino", "mae_x", "deit_x", "ViT-B-32", "vit_base_patch16_224", "../\x1b[31m"))
    return Found(shapes, draw.choice(("torch", "torchscript")), described, name=name)


@pytest.mark.parametrize("seed", range(4))
def test_strange_files_are_read_or_refused(seed: int) -> None:
    draw = random.Random(seed)
    refused = 0
    for _ in range(400):
        found = spoilt(draw)
        for form in FORMATS:
            if not form.recognises(found):
                continue
            try:
                form.read(found)
            except CheckpointError as refusal:
                refused += 1
                assert len(str(refusal).splitlines()) <= 3
                assert len(str(refusal)) < 1500
                assert "\x1b" not in str(refusal)
    assert refused > 200


def test_names_by_the_thousand_take_no_time() -> None:
    block = {"norm1.weight": (64,), "attn.qkv.weight": (192, 64)}
    shapes = {f"blocks.{layer}.{name}": shape for layer in range(4000) for name, shape in block.items()}
    shapes |= {"patch_embed.proj.weight": (64, 3, 8, 8), "cls_token": (1, 1, 64), "pos_embed": (1, 17, 64)}
    stripped = strip({f"state_dict.module.{name}": shape for name, shape in shapes.items()})
    with pytest.raises(CheckpointError):
        timm.read(Found(stripped.shapes))
    layers = {f"transformer.layers.{layer}.0.norm.weight": (64,) for layer in range(8000)}
    with pytest.raises(CheckpointError):
        vit_pytorch.read(Found(layers | {"to_patch_embedding.1.weight": (64, 192)}))
