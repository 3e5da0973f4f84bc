"""Rectangles of images that become noise, so that no single part of an image is relied on."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vitreous.data.order import Draws

AREA = (0.02, 1 / 3)
"""(least, most) share of an image that is erased."""

RATIO = (0.3, 1 / 0.3)
"""(least, most) height of the rectangle divided by its width; evenly spread as logarithms."""

ATTEMPTS = 10
"""At a rectangle that fits into the image; after them it stays whole."""


def erase(image: Tensor, draws: Draws, *, share: float) -> Tensor:
    """An image in which, by chance, one rectangle is noise.

    Args:
        image: (channels, image_height, image_width) float; normalised, since the noise has mean 0 and deviation 1.
        draws: of this image.
        share: of images that are changed, in [0, 1].

    Returns:
        The shape of `image`.

    Source: Zhong et al. 2017, arXiv 1708.04896; the ranges and the noise are timm's, mode "pixel".
    """
    box = random_rectangle((image.shape[1], image.shape[2]), draws) if draws.uniform() < share else None
    if box is None:
        return image
    top, left, height, width = box
    noise = torch.from_numpy(draws.normals(image.shape[0] * height * width)).to(image)
    erased = image.clone()
    erased[:, top : top + height, left : left + width] = noise.view(image.shape[0], height, width)
    return erased


def random_rectangle(size: tuple[int, int], draws: Draws) -> tuple[int, int, int, int] | None:
    """(top, left, height, width) of a rectangle that is smaller than the image each way; None after ten attempts."""
    image_height, image_width = size
    lowest, highest = math.log(RATIO[0]), math.log(RATIO[1])
    for _ in range(ATTEMPTS):
        pixels = image_height * image_width * draws.uniform(*AREA)
        proportion = math.exp(draws.uniform(lowest, highest))
        height, width = round(math.sqrt(pixels * proportion)), round(math.sqrt(pixels / proportion))
        if height < image_height and width < image_width:
            top = draws.integer(image_height - height + 1)
            left = draws.integer(image_width - width + 1)
            return top, left, height, width
    return None
