"""From a picture to the model's input and back."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitreous.data.images import as_rgb
from vitreous.data.preprocess import Preprocess
from vitreous.errors import ShapeError

_KERNELS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

_LONGEST = 50
"""A picture's sides may differ by this factor; longer ones are cut first: resizing could take gigabytes."""


def to_tensor(image: Image.Image, preprocess: Preprocess) -> Tensor:
    """The model's input for one picture: (3, image_height, image_width) float32.

    Source: bit for bit timm 1.0's evaluation transform, for its crop modes `center` and `squash`. One
    difference: only the middle of pictures more than 50 times as long as wide is resized, not the whole.
    """
    return normalise(to_pixels(image, preprocess), preprocess)


def to_pixels(image: Image.Image, preprocess: Preprocess) -> Tensor:
    """A picture resized and cropped, its colours untouched: (3, image_height, image_width) uint8."""
    image = as_rgb(image)
    resized = _squash(image, preprocess) if preprocess.resize == "squash" else _crop(image, preprocess)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)  # (image_height, image_width, 3) -> channels first


def normalise(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """Colours as the model wants them: (..., 3, image_height, image_width) -> the same shape, float32.

    Pixels are uint8, or float in [0, 1].

    Raises:
        ShapeError: if there are no 3 channels.
    """
    if pixels.dim() < 3 or pixels.shape[-3] != 3:
        raise ShapeError(f"pixels are {tuple(pixels.shape)}; expected (..., 3, image_height, image_width)")
    values = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
    mean, std = _statistics(preprocess, pixels.device)
    return (values - mean) / std


def undo(tensor: Tensor, preprocess: Preprocess) -> Tensor:
    """What a person would see: (..., 3, image_height, image_width) -> (..., image_height, image_width, 3).

    The inverse of `normalise` for anything that came from pixels, as uint8; other values are clipped.

    Raises:
        ShapeError: if there are no 3 channels.
    """
    if tensor.dim() < 3 or tensor.shape[-3] != 3:
        raise ShapeError(f"tensor is {tuple(tensor.shape)}; expected (..., 3, image_height, image_width)")
    mean, std = _statistics(preprocess, tensor.device)
    colours = (tensor.detach().float() * std + mean).clamp(0, 1)
    return (colours * 255).round().to(torch.uint8).movedim(-3, -1)


def _statistics(preprocess: Preprocess, device: torch.device) -> tuple[Tensor, Tensor]:
    mean = torch.tensor(preprocess.mean, device=device)[:, None, None]  # (3, 1, 1)
    std = torch.tensor(preprocess.std, device=device)[:, None, None]
    return mean, std


def _squash(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    height, width = preprocess.image_size
    return image.resize((width, height), _KERNELS[preprocess.interpolation])


def _crop(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    height, width = preprocess.image_size
    image = _without_far_ends(image, _LONGEST * max(height, width) // min(height, width))
    resized = image.resize(_covering_size(image.size, preprocess), _KERNELS[preprocess.interpolation])
    left = round((resized.width - width) / 2)
    top = round((resized.height - height) / 2)
    return resized.crop((left, top, left + width, top + height))


def _covering_size(size: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    """(image_width, image_height) after the resize: `size`'s proportions, covering the enlarged target."""
    width, height = size
    target_height, target_width = (math.floor(n / preprocess.crop_fraction) for n in preprocess.image_size)
    if target_height != target_width:
        ratio = min(height / target_height, width / target_width)
        return round(width / ratio), round(height / ratio)
    short, long = sorted(size)
    longer = int(target_height * long / short)  # cut, not rounded, as torchvision does
    return (target_width, longer) if width <= height else (longer, target_height)


def _without_far_ends(image: Image.Image, longest: int) -> Image.Image:
    width, height = image.size
    kept_width, kept_height = min(width, longest * height), min(height, longest * width)
    if (kept_width, kept_height) == image.size:
        return image
    left, top = (width - kept_width) // 2, (height - kept_height) // 2
    return image.crop((left, top, left + kept_width, top + kept_height))
