from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer

MakeModel = Callable[..., VisionTransformer]


@pytest.fixture
def make_model() -> MakeModel:
    """A tiny model with every weight random and not small."""

    def make(**changes: object) -> VisionTransformer:
        sizes: dict[str, object] = {"image_size": [16, 16], "patch_size": [4, 4], "width": 24, "depth": 2}
        config = ViTConfig.from_dict(sizes | {"heads": 3, "classes": 5} | changes)
        model = VisionTransformer(config).eval()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.2, generator=generator)
        return model

    return make


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
