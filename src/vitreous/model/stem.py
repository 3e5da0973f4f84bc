"""A ResNet that reads the image before the Transformer does (hybrids, section 3.1), or without one: the paper's CNN.

    root     7x7 convolution at stride 2, GroupNorm, ReLU, 3x3 maximum at stride 2;
             for small images a 3x3 convolution at stride 1, GroupNorm, ReLU
    stage    units; the first of each stage but the first halves the map, every stage doubles its channels
    unit     relu(x + n3(c3(relu(n2(c2(relu(n1(c1(x)))))))),  c1 and c3 1x1, c2 3x3 with the unit's stride

It is BiT's ResNet (Kolesnikov et al. 2020, arXiv 1912.11370), but with norms after convolutions, as the paper's code
has it. Parameters have timm's names. Two things trained weights depend on: convolutions standardise their weights,
and maps are padded as TensorFlow's SAME does, an odd row or column of zeros at the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitreous.model.config import StemConstants, StemRoot

_GROUPS = 32
_EXPANSION = 4


@dataclass(frozen=True)
class Constants:
    """What keeps norms from dividing by zero.

    Google's and timm's differ: features of the root move by up to 4e-5 of their root mean square; with random weights,
    those of ResNet-50 by up to 6e-3.

    Attributes:
        group: added to the variance in every GroupNorm.
        deviation: added to a kernel's deviation.
        variance: added to a kernel's variance.
    """

    group: float
    deviation: float
    variance: float


GOOGLE = Constants(group=1e-6, deviation=1e-5, variance=0.0)
CONSTANTS = {"google": GOOGLE, "timm": Constants(group=1e-5, deviation=0.0, variance=1e-8)}
"""By the setting `stem_constants`. Source: `vit_jax/models_resnet.py`; timm's `vision_transformer_hybrid.py`."""


class ResNetStem(nn.Module):
    """The feature map of images; see the head of this file.

    Stage `i` counts from 0 and gives 4 * width * 2**i channels; the map is 4 * 2**i times smaller than the image,
    rounded up, with the small root 2**i times. Without stages it is the root's: `width` channels, 4 times smaller, or
    as large as the image. There is no head and no last norm: the mean over the map and a linear layer make it the
    classifier that the paper compares with.

    Args:
        blocks: units in each stage, such as (3, 4, 6, 3) for ResNet-50; () for the root alone.
        width: channels of the root, 64 in the paper. Norms have 32 groups, and so the paper's widths are multiples
            of 32; of another number of channels as many groups as divide both.
        channels: of the image.
        root: `imagenet` or `small`; see the head of this file.
        constants: whose small constants, a key of `CONSTANTS`.

    Source: google-research/vision_transformer, `vit_jax/models_resnet.py`.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        width: int = 64,
        channels: int = 3,
        root: StemRoot = "imagenet",
        constants: StemConstants = "google",
    ) -> None:
        super().__init__()
        chosen = CONSTANTS[constants]
        first = Root(width, channels, root, chosen)
        if blocks:
            self.stem = first
        else:  # timm's names for a root alone
            self.conv, self.norm = first.conv, first.norm
        self.stages = nn.ModuleList()
        inputs = width
        for stage, units in enumerate(blocks):
            self.stages.append(Stage(inputs, width * 2**stage, units, 2 if stage else 1, chosen))
            inputs = width * 2**stage * _EXPANSION

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, image_height, image_width) -> (batch, channels of the last stage, rows, columns)."""
        if not self.stages:
            return _root(images, self.conv, self.norm)
        features = self.stem(images)
        for stage in self.stages:
            features = stage(features)
        return features


class Root(nn.Module):
    """What comes before the stages: the image at a quarter of its size; at its own by the small root."""

    def __init__(self, width: int, channels: int, root: StemRoot, constants: Constants) -> None:
        super().__init__()
        side, stride = (7, 2) if root == "imagenet" else (3, 1)
        self.conv = StandardisedConv(channels, width, side, stride, constants)
        self.norm = _norm(width, constants)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, image_height, image_width) -> (batch, width, rows, columns)."""
        return _root(images, self.conv, self.norm)


class Stage(nn.Module):
    """Units of one width; the first may halve the map."""

    def __init__(self, inputs: int, middle: int, units: int, stride: int, constants: Constants) -> None:
        super().__init__()
        outputs = middle * _EXPANSION
        first = Unit(inputs, middle, stride, constants)
        self.blocks = nn.Sequential(first, *(Unit(outputs, middle, 1, constants) for _ in range(units - 1)))

    def forward(self, features: Tensor) -> Tensor:
        """(batch, inputs, rows, columns) -> (batch, outputs, rows / stride, columns / stride)."""
        return self.blocks(features)


class Unit(nn.Module):
    """A bottleneck: fewer channels, a 3x3 convolution among these, four times as many channels, added to the input."""

    def __init__(self, inputs: int, middle: int, stride: int, constants: Constants = GOOGLE) -> None:
        super().__init__()
        outputs = middle * _EXPANSION
        fits = inputs == outputs and stride == 1
        self.downsample = nn.Identity() if fits else Projection(inputs, outputs, stride, constants)
        self.conv1 = StandardisedConv(inputs, middle, 1, 1, constants)
        self.norm1 = _norm(middle, constants)
        self.conv2 = StandardisedConv(middle, middle, 3, stride, constants)
        self.norm2 = _norm(middle, constants)
        self.conv3 = StandardisedConv(middle, outputs, 1, 1, constants)
        self.norm3 = _norm(outputs, constants)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, inputs, rows, columns) -> (batch, outputs, rows / stride, columns / stride)."""
        branch = F.relu(self.norm1(self.conv1(features)))
        branch = F.relu(self.norm2(self.conv2(branch)))
        branch = self.norm3(self.conv3(branch))
        return F.relu(self.downsample(features) + branch)


class Projection(nn.Module):
    """Brings a unit's input to the shape of its output."""

    def __init__(self, inputs: int, outputs: int, stride: int, constants: Constants) -> None:
        super().__init__()
        self.conv = StandardisedConv(inputs, outputs, 1, stride, constants)
        self.norm = _norm(outputs, constants)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, inputs, rows, columns) -> (batch, outputs, rows / stride, columns / stride)."""
        return self.norm(self.conv(features))


class StandardisedConv(nn.Conv2d):
    """A convolution without bias whose kernels have mean 0 and deviation 1, whatever its weights are; SAME padding.

    Source: weight standardisation, Qiao et al. 2019, arXiv 1903.10520, equation 8.
    """

    def __init__(self, inputs: int, outputs: int, side: int, stride: int = 1, constants: Constants = GOOGLE) -> None:
        super().__init__(inputs, outputs, side, stride=stride, bias=False)
        self.constants = constants

    def forward(self, features: Tensor) -> Tensor:
        """(batch, inputs, rows, columns) -> (batch, outputs, rows / stride, columns / stride), rounded up."""
        kernels = self.weight.flatten(1).to(torch.promote_types(self.weight.dtype, torch.float32))  # rounded once
        centred = kernels - kernels.mean(dim=1, keepdim=True)  # (outputs, inputs * side * side)
        deviation = torch.linalg.vector_norm(centred, dim=1, keepdim=True) / math.sqrt(kernels.shape[1])
        if self.constants.variance:  # a root of 0 would have no slope
            deviation = torch.sqrt(deviation * deviation + self.constants.variance)
        weight = (centred / (deviation + self.constants.deviation)).to(self.weight.dtype).view_as(self.weight)
        return F.conv2d(_pad(features, self.kernel_size[0], self.stride[0]), weight, stride=self.stride)


def _root(images: Tensor, conv: StandardisedConv, norm: nn.Module) -> Tensor:
    features = F.relu(norm(conv(images)))
    if conv.stride[0] == 1:
        return features
    return F.max_pool2d(_pad(features, 3, 2), 3, stride=2)  # nothing is below the zeros of the border after a ReLU


def _norm(channels: int, constants: Constants) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(_GROUPS, channels), channels, eps=constants.group)


def _pad(features: Tensor, side: int, stride: int) -> Tensor:
    """Zeros around a map, so that windows of `side` at `stride` give ceil(length / stride) along each axis."""
    (top, bottom), (left, right) = (_border(length, side, stride) for length in features.shape[-2:])
    return F.pad(features, (left, right, top, bottom)) if top or bottom or left or right else features


def _border(length: int, side: int, stride: int) -> tuple[int, int]:
    """Zeros before and after; where they cannot be equal, one more after. PyTorch's own padding is always equal."""
    zeros = max((math.ceil(length / stride) - 1) * stride + side - length, 0)
    return zeros // 2, zeros - zeros // 2
