from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vitreous.checkpoints.formats import mae
from vitreous.checkpoints.reading import Found, Reading
from vitreous.model.vit import VisionTransformer

timm = pytest.importorskip("timm")

Build = Callable[[Reading, Mapping[str, np.ndarray]], VisionTransformer]
Randomised = Callable[[nn.Module], dict[str, np.ndarray]]

SMALL: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 2, "num_heads": 2}
DECODER = {
    "mask_token": (1, 1, 32),
    "decoder_embed.weight": (32, 128),
    "decoder_pos_embed": (1, 17, 32),
    "decoder_blocks.0.norm1.weight": (32,),
    "decoder_pred.weight": (192, 32),
}


@pytest.mark.parametrize(
    ("arguments", "more", "name"),
    [
        ({"num_classes": 0}, DECODER, "checkpoint"),
        ({"num_classes": 5, "global_pool": "avg"}, {}, "mae_finetuned_vit_base"),
        ({"num_classes": 5}, {}, "mae_linear"),
    ],
    ids=["pre-trained", "fine-tuned", "linear"],
)
def test_the_encoder_gives_timms_numbers(
    arguments: dict[str, Any], more: dict[str, Any], name: str, build: Build, randomised: Randomised
) -> None:
    with torch.random.fork_rng():
        model = timm.create_model("vit_base_patch16_224", **SMALL, **arguments)
    arrays = randomised(model)
    found = Found({key: array.shape for key, array in arrays.items()} | more, "torch", name=name)
    assert mae.recognises(found)
    reading = mae.read(found)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert (build(reading, arrays)(images) - model(images)).abs().max() < 1e-5
    assert set(reading.ignored) == set(more)
    assert reading.config.resampling == "mae"
    assert not any(decision.guessed for decision in reading.decisions)


def test_above_224_pixels_the_shorter_side_is_kept_whole(randomised: Randomised) -> None:
    shapes = {"patch_embed.proj.weight": (128, 3, 32, 32), "pos_embed": (1, 197, 128), "cls_token": (1, 1, 128)}
    block = {
        "norm1.weight": (128,), "attn.qkv.weight": (384, 128), "attn.proj.weight": (128, 128),
        "mlp.fc1.weight": (512, 128), "mlp.fc2.weight": (128, 512),
    }  # fmt: skip
    found = Found(shapes | {f"blocks.0.{name}": shape for name, shape in block.items()}, name="mae_visualize")
    assert mae.read(found).preprocess.enlarged_size == (448, 448)
