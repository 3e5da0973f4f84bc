"""Five small models for the faces task, of about equal size: what differs is what each can know of places.

    CNN                     convolutions of 3 and 4 pixels; the zeros around each map tell how near the border is
    CNN without padding     the same, but no window reaches beyond the image
    BagNet                  windows of 7 pixels, averaged: no feature sees two parts of a face
    ViT, 1-D positions      a learned vector for each patch's place
    ViT, no positions       the patches are a bag

Source: BagNet, Brendel & Bethge 2019, arXiv 1904.00760; there windows are at least 9 of 224 pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitreous.arrangement.face_places import SIDE
from vitreous.model.config import Positions, ViTConfig
from vitreous.model.vit import VisionTransformer

Layer = tuple[int, int, int]


class Convolutions(nn.Module):
    """A chain of convolutions, the mean over the last map, and one logit.

    Each convolution is followed by a batch norm and a ReLU, which in eval mode mix no two positions.

    Args:
        layers: (channels, side, stride) of each convolution, first to last.
        padding: whether zeros are put around each map, (side - 1) // 2 on each side.
        ground: pixels by which the image goes on at each side as its border is, before the first convolution. With
            plain ground no window tells then how near the border is.

    Attributes:
        sees: pixels a side that a feature of the last map depends on at most.
        stride: pixels between two positions of the last map.
    """

    def __init__(self, layers: tuple[Layer, ...], *, padding: bool = False, ground: int = 0) -> None:
        super().__init__()
        self.ground = ground
        self.stages = nn.Sequential()
        self.sees, self.stride = 1, 1
        channels = 3
        for outputs, side, stride in layers:
            conv = nn.Conv2d(channels, outputs, side, stride, (side - 1) // 2 if padding else 0, bias=False)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            self.stages.append(nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU()))
            self.sees += (side - 1) * self.stride
            self.stride *= stride
            channels = outputs
        self.head = nn.Linear(channels, 1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster by a third on a CPU

    def features(self, images: Tensor) -> Tensor:
        """(batch, 3, image_height, image_width) -> (batch, channels, rows, columns)."""
        if self.ground:
            images = F.pad(images, (self.ground,) * 4, mode="replicate")
        return self.stages(images.contiguous(memory_format=torch.channels_last))

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, image_height, image_width) -> (batch, 1), above 0 where the arrangement is taken to be right."""
        return self.head(self.features(images).mean((-2, -1)))


def make_model(name: str, seed: int) -> nn.Module:
    """A new model of that name, a key of `MODELS`, in training mode; its first weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MODELS[name]()


def pixels_seen(model: nn.Module) -> int:
    """Pixels a side that one of its features depends on at most; of a Transformer, and at most, the whole image."""
    return min(model.sees, SIDE) if isinstance(model, Convolutions) else SIDE


def _cnn() -> nn.Module:
    return Convolutions(_LAYERS, padding=True)


def _cnn_without_padding() -> nn.Module:
    return Convolutions(_LAYERS)


def _bagnet() -> nn.Module:
    return Convolutions(((224, 7, 3), (224, 1, 1)), ground=6)


def _vit() -> nn.Module:
    """Its positions start as large as the patches are, not 50 times smaller: so few steps would not make them grow."""
    model = VisionTransformer(_vit_config("learned"))
    assert isinstance(model.pos_embed, nn.Parameter)
    nn.init.normal_(model.pos_embed, std=_POSITION_STD)
    return model


def _vit_without_positions() -> nn.Module:
    return VisionTransformer(_vit_config("none"))


def _vit_config(positions: Positions) -> ViTConfig:
    return ViTConfig(
        image_size=(SIDE, SIDE), patch_size=(6, 6), width=64, depth=4, heads=4, mlp_ratio=2.0,
        class_token=False, pooling="mean", norm_after_pooling=False, positions=positions, classes=1,
    )  # fmt: skip


_POSITION_STD = 0.5
_LAYERS = ((32, 4, 2), (32, 3, 1), (48, 3, 2), (64, 3, 1), (64, 3, 1), (64, 3, 1), (64, 3, 1))

MODELS: Mapping[str, Callable[[], nn.Module]] = {
    "CNN": _cnn,
    "CNN without padding": _cnn_without_padding,
    "BagNet": _bagnet,
    "ViT, 1-D positions": _vit,
    "ViT, no positions": _vit_without_positions,
}

LEARNING_RATES: Mapping[str, float] = {name: 1e-3 if name.startswith("ViT") else 3e-3 for name in MODELS}
"""Highest of a run, by model."""
