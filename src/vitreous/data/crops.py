"""A random part of a picture, at the model's size."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

from PIL import Image
from torch import Tensor

from vitreous.data.images import as_rgb
from vitreous.data.order import Draws
from vitreous.data.preprocess import Preprocess
from vitreous.data.transforms import to_pixels

ATTEMPTS = 10
"""At a part that lies inside the picture, before its centre is taken."""

Range = tuple[float, float]


def random_crop(image: Image.Image, preprocess: Preprocess, draws: Draws, *, area: Range, ratio: Range) -> Tensor:
    """A random part of a picture, resized to the model's size with no regard to its proportions.

    Args:
        image: of any mode and size.
        preprocess: its size, interpolation and resampler are used; its resize and crop are not.
        draws: of this image.
        area: (least, most) share of the picture's area.
        ratio: (least, most) width of the part divided by its height.

    Returns:
        (3, image_height, image_width), uint8 or float32 in [0, 1] as `to_pixels`.

    Source: Szegedy et al. 2015, arXiv 1409.4842, section 6, as torchvision's RandomResizedCrop.
    """
    image = as_rgb(image)
    part = image.crop(random_box((image.height, image.width), draws, area=area, ratio=ratio))
    return to_pixels(part, _squashing(preprocess))


def random_box(size: tuple[int, int], draws: Draws, *, area: Range, ratio: Range) -> tuple[int, int, int, int]:
    """Where a random part lies: (left, top, right, bottom) pixels.

    The centre of the picture, as much of it as the ratio allows, if ten parts drawn do not fit into it.

    Args:
        size: (image_height, image_width) of the picture.
        draws: of this image; at most 22 numbers.
        area: (least, most) share of the picture's area.
        ratio: (least, most) width of the part divided by its height; evenly spread as logarithms.
    """
    image_height, image_width = size
    lowest, highest = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(ATTEMPTS):
        pixels = image_height * image_width * draws.uniform(*area)
        proportion = math.exp(draws.uniform(lowest, highest))
        width, height = round(math.sqrt(pixels * proportion)), round(math.sqrt(pixels / proportion))
        if 0 < width <= image_width and 0 < height <= image_height:
            top = draws.integer(image_height - height + 1)
            left = draws.integer(image_width - width + 1)
            return left, top, left + width, top + height
    return _central_box(size, ratio)


@lru_cache
def _squashing(preprocess: Preprocess) -> Preprocess:
    """The same arithmetic, to exactly the model's size; kept, because checking settings costs as much as the resize."""
    return replace(preprocess, resize="squash", crop_fraction=1.0)


def _central_box(size: tuple[int, int], ratio: Range) -> tuple[int, int, int, int]:
    height, width = size
    if width < height * ratio[0]:
        height = max(1, round(width / ratio[0]))
    elif width > height * ratio[1]:
        width = max(1, round(height * ratio[1]))
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return left, top, left + width, top + height
