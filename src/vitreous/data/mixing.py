"""Two images and their labels as one: MixUp and CutMix, over a whole batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vitreous.data.augmentation import Augmentation
from vitreous.data.order import Draws

SWITCH = 0.5
"""Share of batches that are cut rather than mixed, where both are asked for."""


def mixes(settings: Augmentation) -> bool:
    """Whether any batch may be mixed or cut, so that all targets are shares of classes."""
    return settings.mix_probability > 0 and (settings.mixup > 0 or settings.cutmix > 0)


def mix(
    images: Tensor, labels: Tensor, *, classes: int, settings: Augmentation, smoothing: float, draws: Draws
) -> tuple[Tensor, Tensor]:
    """A batch in which each image is joined with the one as far from the other end, all by the same share.

    Args:
        images: (batch, channels, image_height, image_width) float.
        labels: (batch,) int64.
        classes: how many there are.
        settings: `mixup`, `cutmix` and `mix_probability` are used.
        smoothing: share of a target that is spread evenly over all classes, in [0, 1).
        draws: of this batch.

    Returns:
        images: the same shape.
        targets: (batch, classes) float32; each row sums to 1.

    Source: Zhang et al. 2017, arXiv 1710.09412; Yun et al. 2019, arXiv 1905.04899; bit for bit timm's `Mixup` in mode
    "batch" for the same draws.
    """
    kept, cut = _share_and_kind(settings, draws)
    if kept < 1 and cut:
        top, bottom, left, right = _box((images.shape[2], images.shape[3]), kept, draws)
        images = images.clone()
        images[..., top:bottom, left:right] = images.flip(0)[..., top:bottom, left:right]
        kept = 1 - (bottom - top) * (right - left) / (images.shape[2] * images.shape[3])  # the borders cut the box
    elif kept < 1:
        images = images * kept + images.flip(0) * (1 - kept)
    targets = soft_targets(labels, classes, smoothing)
    return images, targets * kept + targets.flip(0) * (1 - kept)


def soft_targets(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Labels as shares of classes: (batch,) int64 -> (batch, classes) float32; the label's own is the largest."""
    targets = torch.full((len(labels), classes), smoothing / classes)
    return targets.scatter_(1, labels[:, None], 1 - smoothing + smoothing / classes)


def _share_and_kind(settings: Augmentation, draws: Draws) -> tuple[float, bool]:
    """How much of each image is kept, and whether the rest is cut out rather than mixed in."""
    if draws.uniform() >= settings.mix_probability:
        return 1.0, False
    cut = settings.cutmix > 0
    if settings.mixup > 0 and cut:
        cut = draws.uniform() < SWITCH
    return draws.beta(settings.cutmix if cut else settings.mixup), cut


def _box(size: tuple[int, int], kept: float, draws: Draws) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of a box of the image's proportions, cut off at its borders."""
    height, width = size
    rows, columns = int(height * math.sqrt(1 - kept)), int(width * math.sqrt(1 - kept))
    middle, centre = draws.integer(height), draws.integer(width)
    top, bottom = max(middle - rows // 2, 0), min(middle + (rows + 1) // 2, height)
    left, right = max(centre - columns // 2, 0), min(centre + (columns + 1) // 2, width)
    return top, bottom, left, right
