from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vitreous.checkpoints.formats import torchvision as format_torchvision
from vitreous.checkpoints.reading import Found, Reading
from vitreous.errors import CheckpointError
from vitreous.model.vit import VisionTransformer

models = pytest.importorskip("torchvision.models.vision_transformer")

Build = Callable[[Reading, Mapping[str, np.ndarray]], VisionTransformer]
Randomised = Callable[[nn.Module], dict[str, np.ndarray]]


def make(width: int = 128, representation: int | None = None) -> nn.Module:
    with torch.random.fork_rng():
        return models.VisionTransformer(
            image_size=32,
            patch_size=8,
            num_layers=2,
            num_heads=width // 64,
            hidden_dim=width,
            mlp_dim=3 * width,
            num_classes=5,
            representation_size=representation,
        )


def old_names(name: str) -> str:
    """What torchvision called the MLP's layers before 0.13."""
    return name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2.")


@pytest.mark.parametrize("rename", [str, old_names], ids=["names", "old names"])
@pytest.mark.parametrize("representation", [None, 128], ids=["plain", "hidden head"])
def test_logits_are_torchvisions(
    representation: int | None, rename: Callable[[str], str], build: Build, randomised: Randomised
) -> None:
    model = make(representation=representation)
    arrays = {rename(name): array for name, array in randomised(model).items()}
    found = Found({name: array.shape for name, array in arrays.items()}, "torch")
    assert format_torchvision.recognises(found)
    reading = format_torchvision.read(found)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert (build(reading, arrays)(images) - model(images)).abs().max() < 1e-5


def test_positions_move_as_torchvision_moves_them(build: Build, randomised: Randomised) -> None:
    model = make()
    arrays = randomised(model)
    state = {name: torch.from_numpy(array) for name, array in arrays.items()}
    moved = models.interpolate_embeddings(48, 8, dict(state))["encoder.pos_embedding"]
    model.load_state_dict(state)
    model.image_size = model.seq_length = 48
    model.encoder.pos_embedding = nn.Parameter(moved)
    images = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    reading = format_torchvision.read(Found({name: array.shape for name, array in arrays.items()}))
    with torch.no_grad():
        assert (build(reading, arrays)(images) - model(images)).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["ViT_B_16", "ViT_B_32", "ViT_L_16", "ViT_L_32", "ViT_H_14"])
def test_every_published_file_gets_its_own_preprocessing(name: str) -> None:
    for weights in getattr(models, f"{name}_Weights"):
        transform = weights.transforms()
        side, width = transform.crop_size[0], {"B": 768, "L": 1024, "H": 1280}[name[4]]
        swag = "SWAG" in weights.name
        reading = format_torchvision.read(Found(published(int(name[6:]), width, side), name="swag" if swag else "vit"))
        preprocess = reading.preprocess
        assert preprocess.image_size == (side, side)
        assert preprocess.enlarged_size == (transform.resize_size[0],) * 2
        assert preprocess.interpolation == transform.interpolation.value
        assert list(preprocess.mean) == transform.mean
        assert reading.config.heads == {768: 12, 1024: 16, 1280: 16}[width]


def test_a_hidden_layer_of_another_width_is_refused(randomised: Randomised) -> None:
    shapes = {name: array.shape for name, array in randomised(make(representation=64)).items()}
    with pytest.raises(CheckpointError, match="of the token's width alone, 128"):
        format_torchvision.read(Found(shapes))


def published(patch: int, width: int, side: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a published file, with one block."""
    block: dict[str, Any] = {
        "ln_1.weight": (width,), "self_attention.in_proj_weight": (3 * width, width),
        "self_attention.out_proj.weight": (width, width), "mlp.0.weight": (4 * width, width),
        "mlp.3.weight": (width, 4 * width),
    }  # fmt: skip
    return {
        "class_token": (1, 1, width),
        "conv_proj.weight": (width, 3, patch, patch),
        "encoder.pos_embedding": (1, 1 + (side // patch) ** 2, width),
        "heads.head.weight": (1000, width),
    } | {f"encoder.layers.encoder_layer_0.{name}": shape for name, shape in block.items()}
