"""From a picture to the model's input and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vitreous.data.images import Encoded, as_rgb, decode_array, decode_image
from vitreous.data.preprocess import Preprocess
from vitreous.errors import InputError, ShapeError

_LONGEST = 50
"""A picture's sides may differ by this factor; longer ones are cut first: resizing could take gigabytes."""

_PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


def to_tensor(image: Image.Image, preprocess: Preprocess) -> Tensor:
    """The model's input for one picture: (3, image_height, image_width) float32.

    Source, chosen by `preprocess`: bit for bit timm 1.0's evaluation transform in its three crop modes, torchvision's
    presets, and the Pillow processors of transformers 5; to 1e-6 the default processors of transformers 5 (where the
    CPU has no AVX2 those round a little otherwise) and Google's evaluation code. One difference: where a crop follows,
    only the middle of pictures more than 50 times as long as wide is resized, not the whole.
    """
    return normalise(to_pixels(image, preprocess), preprocess)


def to_pixels(image: Image.Image, preprocess: Preprocess) -> Tensor:
    """A picture resized and cropped, its colours untouched.

    Returns:
        (3, image_height, image_width) uint8; float32 in [0, 1] where `preprocess` does not round (`has_bytes`).

    Raises:
        InputError: if the picture has another size, and `preprocess` does not resize.
    """
    image = as_rgb(image)
    _check_size((image.height, image.width), preprocess)
    top, left, height, width = _without_far_ends((image.height, image.width), preprocess)
    if (height, width) != (image.height, image.width):
        image = image.crop((left, top, left + width, top + height))
    size = _resized_size((height, width), preprocess)
    if preprocess.resampler == "pillow" and size != (height, width):
        image = image.resize((size[1], size[0]), _PILLOW[preprocess.interpolation])
    return _centre(_resized(np.array(image), size, preprocess), preprocess)


def decode_pixels(content: Encoded, preprocess: Preprocess) -> Tensor:
    """A file's picture resized and cropped: bit for bit `to_pixels` of `decode_image`, with fewer copies.

    Raises:
        InputError: if it cannot be decoded, or has another size, and `preprocess` does not resize.
    """
    if preprocess.resampler == "pillow":
        return to_pixels(decode_image(*content), preprocess)
    pixels = decode_array(*content)  # (image_height, image_width, 3)
    _check_size(pixels.shape[:2], preprocess)
    top, left, height, width = _without_far_ends(pixels.shape[:2], preprocess)
    pixels = pixels[top : top + height, left : left + width]
    return _centre(_resized(pixels, _resized_size((height, width), preprocess), preprocess), preprocess)


def pixels_of(
    read: Callable[[int], Image.Image], content: Callable[[int], Encoded] | None, index: int, preprocess: Preprocess
) -> Tensor:
    """One of several pictures resized and cropped: from its file where it is in one, which is sooner.

    Args:
        read: gives the picture, decoded.
        content: gives its file; None where there is none.
        index: which picture.
        preprocess: the resize and the crop.

    Raises:
        InputError: if it cannot be decoded.
    """
    return to_pixels(read(index), preprocess) if content is None else decode_pixels(content(index), preprocess)


def read_batch(
    read: Callable[[int], Image.Image],
    names: Sequence[str],
    batch: Iterable[int],
    preprocess: Preprocess,
    unread: dict[str, str] | None,
) -> tuple[list[int], Tensor]:
    """Some of several pictures as the model sees them: which, and (these, 3, image_height, image_width) float32.

    Args:
        read: gives a picture, decoded.
        names: of all pictures.
        batch: which to read.
        preprocess: of the model.
        unread: where pictures that cannot be read are left out, and why, by name; None lets the first of them end it.

    Raises:
        InputError: if one cannot be decoded, and `unread` is None.
    """
    kept: dict[int, Tensor] = {}
    for index in batch:
        try:
            kept[index] = to_tensor(read(index), preprocess)
        except InputError as error:
            if unread is None:
                raise
            unread[names[index]] = str(error)
    return list(kept), torch.stack([*kept.values()]) if kept else torch.empty(0, 3, *preprocess.image_size)


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


def _resized_size(size: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    """(image_height, image_width) after the resize of a picture of that size, before the centre is taken."""
    if preprocess.resize in ("cut", "none"):
        return size
    if preprocess.resize in ("squash", "squash-crop"):
        return preprocess.enlarged_size
    (height, width), target = size, preprocess.enlarged_size
    ratios = height / target[0], width / target[1]
    if preprocess.resize == "border":
        return max(1, round(height / max(ratios))), max(1, round(width / max(ratios)))
    if preprocess.rounding == "torchvision" and target[0] != target[1]:  # timm's alone: torchvision has squares only
        return round(height / min(ratios)), round(width / min(ratios))
    short, long = sorted(size)
    longer = int(target[0] * long / short)  # cut, not rounded
    return (longer, target[0]) if width <= height else (target[0], longer)


def _resized(picture: NDArray[np.uint8], size: tuple[int, int], preprocess: Preprocess) -> Tensor:
    """(3, *size) uint8, or float32 in [0, 1], by the arithmetic that `preprocess` names; Pillow's was done before."""
    interpolation, resampler = preprocess.interpolation, preprocess.resampler
    pixels = torch.from_numpy(picture).permute(2, 0, 1)  # channels first, but colours lie side by side
    if resampler == "torch" and size != tuple(pixels.shape[1:]):
        return _by_torch(pixels, size, interpolation)  # which is fastest so
    if resampler in ("pillow", "torch"):
        return pixels
    pixels = pixels.contiguous()
    if resampler == "torch-float" and not preprocess.has_bytes:
        pixels = pixels * (1 / 255)  # as transformers' `rescale`; a quotient would differ in the last bit
    if resampler == "torch-float" and size != tuple(pixels.shape[1:]):
        return _by_torch(pixels, size, interpolation)
    if resampler.startswith("tensorflow") and preprocess.resize not in ("cut", "none"):
        colours = _by_tensorflow(pixels, size)
        return colours.to(torch.uint8) if preprocess.has_bytes else colours / 255  # tf.cast cuts, it does not round
    return pixels


def _by_torch(pixels: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """Antialiased; (3, image_height, image_width) -> (3, *size), uint8 or float32 as it came."""
    if interpolation == "nearest":  # "nearest-exact" counts from the middle of pixels, "nearest" from their corner
        return F.interpolate(pixels[None], size, mode="nearest-exact")[0]
    return F.interpolate(pixels[None], size, mode=interpolation, align_corners=False, antialias=True)[0]


def _by_tensorflow(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, not antialiased: (3, image_height, image_width) uint8 -> (3, *size) float32 from 0 to 255.

    Source: tensorflow 2.21's kernel ResizeBilinear, its order of operations included: a colour that all neighbours
    share comes out whole, as `F.interpolate` does not promise, and may then be cut to a byte.
    """
    above, below, down = _neighbours(pixels.shape[1], size[0])
    left, right, across = _neighbours(pixels.shape[2], size[1])
    high, low = pixels[:, above].float(), pixels[:, below].float()  # (3, rows, image_width)
    high = high[..., left] + (high[..., right] - high[..., left]) * across  # (3, *size)
    low = low[..., left] + (low[..., right] - low[..., left]) * across
    return high + (low - high) * down[:, None]


def _neighbours(old: int, new: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of each of `new` places: the old pixel before it, the one after it, and how far it is from the first, in [0, 1).

    Places are counted from the middle of pixels. Each: (new,).
    """
    place = (torch.arange(new, dtype=torch.float32) + 0.5) * (torch.tensor(float(old)) / new) - 0.5
    before = place.floor()
    return before.clamp(min=0).long(), (before + 1).clamp(max=old - 1).long(), place - before


def _centre(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """The middle (3, image_height, image_width) of the pixels; where they do not reach it is black or `mean`."""
    height, width = preprocess.image_size
    down, below, rows = _overlap(pixels.shape[1], height, preprocess)
    right, beside, columns = _overlap(pixels.shape[2], width, preprocess)
    middle = pixels[:, down : down + rows, right : right + columns]
    if (rows, columns) == preprocess.image_size:
        return middle.contiguous()
    canvas = pixels.new_zeros(3, height, width)
    if preprocess.resize == "border":
        colour = torch.tensor(preprocess.mean).mul(255).round().clamp(0, 255)[:, None, None]  # (3, 1, 1)
        canvas += colour.to(pixels.dtype) if preprocess.has_bytes else colour / 255
    canvas[:, below : below + rows, beside : beside + columns] = middle
    return canvas


def _overlap(side: int, wanted: int, preprocess: Preprocess) -> tuple[int, int, int]:
    """Where the centre starts in the pixels, where it then starts in the result, and how long it is."""
    spare = side - wanted
    if spare >= 0:
        rounds = preprocess.rounding == "torchvision"
        return round(spare / 2) if rounds else spare // 2, 0, wanted
    ceils = preprocess.rounding == "transformers" and preprocess.resampler == "pillow"
    return 0, (1 - spare) // 2 if ceils else -spare // 2, side


def _check_size(size: tuple[int, ...], preprocess: Preprocess) -> None:
    if preprocess.resize == "none" and size != preprocess.image_size:
        height, width = preprocess.image_size
        raise InputError(
            f"the picture has {size[0]} x {size[1]} pixels, but {height} x {width} are expected, "
            "because the model's preprocessing does not resize; resize it first"
        )


def _without_far_ends(size: tuple[int, ...], preprocess: Preprocess) -> tuple[int, int, int, int]:
    """Top, left, height and width of what is resized of a picture: all, but for very long ones of which a part is."""
    height, width = size
    if preprocess.resize != "crop":
        return 0, 0, height, width
    longest = _LONGEST * max(preprocess.image_size) // min(preprocess.image_size)
    kept_height, kept_width = min(height, longest * width), min(width, longest * height)
    return (height - kept_height) // 2, (width - kept_width) // 2, kept_height, kept_width
