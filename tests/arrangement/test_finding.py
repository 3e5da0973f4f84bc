from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from vitreous.arrangement.layers import SpatialLayers


def hooked(model: nn.Module, modules: list[nn.Module], batch: Tensor) -> list[Tensor]:
    """What a hand-written hook on each module sees, copied at once."""
    found: list[Tensor] = []
    handles = [module.register_forward_hook(lambda _, __, value: found.append(value.clone())) for module in modules]
    with torch.no_grad():
        model(batch)
    for handle in handles:
        handle.remove()
    return found


def torchvision_resnet() -> tuple[nn.Module, list[nn.Module]]:
    from torchvision.models import resnet18

    model = resnet18(num_classes=3)
    return model, [block for stage in (model.layer1, model.layer2, model.layer3, model.layer4) for block in stage]


def torchvision_mobilenet() -> tuple[nn.Module, list[nn.Module]]:
    """Its blocks end with a sequence of units, and most of them add their input in place."""
    from torchvision.models import mobilenet_v3_small

    model = mobilenet_v3_small(num_classes=3)
    return model, list(model.features)


def torchvision_densenet() -> tuple[nn.Module, list[nn.Module]]:
    from torchvision.models import DenseNet

    model = DenseNet(4, (2, 2), 8, num_classes=3)
    return model, [model.features.denseblock1, model.features.transition1, model.features.denseblock2]


def timm_resnet() -> tuple[nn.Module, list[nn.Module]]:
    from timm.models.resnet import Bottleneck, ResNet

    model = ResNet(Bottleneck, [1, 1, 1, 1], channels=(8, 8, 8, 8), stem_width=8, stem_type="deep", avg_down=True)
    return model, [block for stage in (model.layer1, model.layer2, model.layer3, model.layer4) for block in stage]


def timm_convnext() -> tuple[nn.Module, list[nn.Module]]:
    from timm.models.convnext import ConvNeXt

    model = ConvNeXt(depths=(1, 2, 1, 1), dims=(8, 8, 8, 8))
    return model, [block for stage in model.stages for block in stage.blocks]


def timm_mobilenet() -> tuple[nn.Module, list[nn.Module]]:
    from timm import create_model

    model = create_model("mobilenetv3_small_050", num_classes=3)
    return model, [block for stage in model.blocks for block in stage]


def timm_regnet() -> tuple[nn.Module, list[nn.Module]]:
    """Its stages are no lists, but run their units one after another."""
    from timm import create_model

    model = create_model("regnetx_002", num_classes=3)
    return model, [unit for stage in (model.s1, model.s2, model.s3, model.s4) for unit in stage.children()]


def transformers_resnet() -> tuple[nn.Module, list[nn.Module]]:
    from transformers import ResNetConfig, ResNetForImageClassification

    model = ResNetForImageClassification(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[2, 2]))
    return model, [unit for stage in model.resnet.encoder.stages for unit in stage.layers]


class Branches(nn.Module):
    """GoogLeNet's unit: two lists that see the same map, put together."""

    def __init__(self) -> None:
        super().__init__()
        self.near = nn.Sequential(nn.Sequential(nn.Conv2d(4, 2, 1), nn.ReLU()))
        self.far = nn.Sequential(*(nn.Sequential(nn.Conv2d(n, 2, 3, padding=1), nn.ReLU()) for n in (4, 2)))

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([self.near(features), self.far(features)], dim=1)


class Googlenet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.root, self.first, self.second = nn.Conv2d(3, 4, 4, stride=4), Branches(), Branches()

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.first(self.root(images))).mean((2, 3))


def googlenet() -> tuple[nn.Module, list[nn.Module]]:
    model = Googlenet()
    return model, [model.first, model.second]


def vgg() -> tuple[nn.Module, list[nn.Module]]:
    """One flat list of convolutions, each followed by a ReLU that works in place."""
    convolutions = [nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)]
    after = [nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    read_out = [nn.Flatten(), nn.Linear(6 * 16 * 16, 3)]
    return nn.Sequential(convolutions[0], *after, convolutions[1], *after, *read_out), convolutions


def wrapped() -> tuple[nn.Module, list[nn.Module]]:
    model, blocks = transformers_resnet()
    return nn.Sequential(nn.Identity(), model), blocks


CNNS = [
    (torchvision_resnet, (32, 32)), (torchvision_mobilenet, (32, 32)), (torchvision_densenet, (8, 8)),
    (timm_resnet, (32, 32)), (timm_convnext, (32, 32)), (timm_mobilenet, (32, 32)), (timm_regnet, (32, 32)),
    (transformers_resnet, (8, 8)), (vgg, (2, 2)), (googlenet, (4, 4)), (wrapped, (8, 8)),
]  # fmt: skip


@pytest.mark.parametrize(("build", "patch_size"), CNNS, ids=[build.__name__ for build, _ in CNNS])
def test_layers_of_a_cnn_are_its_units(
    build: Callable[[], tuple[nn.Module, list[nn.Module]]], patch_size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    model, modules = build()
    batch = torch.randn(1, 3, 64, 64)
    layers = SpatialLayers(model.eval(), batch)
    _, features = layers.read(batch)
    expected = hooked(model, modules, batch)
    assert layers.names == tuple(f"unit {number}" for number in range(len(modules)))
    for value, found in zip(features.values(), expected, strict=True):
        torch.testing.assert_close(value, found.permute(0, 2, 3, 1), rtol=0, atol=0)
    assert layers.kind == "CNN" and layers.patch_size == patch_size
