"""Operations on a picture's colours and geometry, chosen by chance: RandAugment, TrivialAugment and AutoAugment."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial

import torch
from PIL import Image, ImageEnhance, ImageOps

from vitreous.data.augmentation import Augmentation
from vitreous.data.order import Draws

Operation = Callable[[Image.Image, float], Image.Image]

BINS = 31
"""Magnitudes of RandAugment and TrivialAugment, from 0 to 30."""

AUTOAUGMENT_BINS = 10
"""Magnitudes of AutoAugment, from 0 to 9."""


def apply_policy(image: Image.Image, settings: Augmentation, draws: Draws) -> Image.Image:
    """A picture changed by the policy that the settings name; what comes in from outside is black.

    Args:
        image: RGB.
        settings: `policy` is used, and `policy_layers` and `policy_magnitude` for randaugment.
        draws: of this image.

    Returns:
        RGB of the same size; bit for bit torchvision's for the same draws.
    """
    if settings.policy == "randaugment":
        return randaugment(image, draws, layers=settings.policy_layers, magnitude=settings.policy_magnitude)
    if settings.policy == "trivialaugment":
        return trivialaugment(image, draws)
    if settings.policy == "autoaugment":
        return autoaugment(image, draws, IMAGENET_POLICY)
    if settings.policy == "autoaugment-cifar10":
        return autoaugment(image, draws, CIFAR10_POLICY)
    return image


def randaugment(image: Image.Image, draws: Draws, *, layers: int, magnitude: int) -> Image.Image:
    """So many operations one after the other, each of 14 as likely, all of one magnitude from 0 to 30.

    Source: Cubuk et al. 2019, arXiv 1909.13719, as torchvision's RandAugment. timm's differs: it has other operations
    and draws magnitudes.
    """
    for _ in range(layers):
        name = RANDAUGMENT[draws.integer(len(RANDAUGMENT))]
        strength = 0.0
        if name not in _WITHOUT_STRENGTH:
            strength = _magnitudes(name, BINS, image.height, image.width)[magnitude]
        if name in _SIGNED and draws.integer(2):
            strength = -strength
        image = OPERATIONS[name](image, strength)
    return image


def trivialaugment(image: Image.Image, draws: Draws) -> Image.Image:
    """One of 14 operations, each as likely, of any magnitude in a wider range than RandAugment's.

    Source: Müller & Hutter 2021, arXiv 2103.10158, the wide space, as torchvision's TrivialAugmentWide.
    """
    name = RANDAUGMENT[draws.integer(len(RANDAUGMENT))]
    strength = 0.0 if name in _WITHOUT_STRENGTH else _wide_magnitudes(name)[draws.integer(BINS)]
    if name in _SIGNED and draws.integer(2):
        strength = -strength
    return OPERATIONS[name](image, strength)


def autoaugment(image: Image.Image, draws: Draws, policy: tuple[SubPolicy, ...]) -> Image.Image:
    """One pair of operations out of 25 that were found by search, each of the two applied with its own probability.

    Source: Cubuk et al. 2018, arXiv 1805.09501, as torchvision's AutoAugment.
    """
    pair = policy[draws.integer(len(policy))]
    chances = draws.uniform(), draws.uniform()
    signs = draws.integer(2), draws.integer(2)
    for (name, probability, magnitude), chance, sign in zip(pair, chances, signs, strict=True):
        if chance > probability:
            continue
        strength = 0.0
        if magnitude is not None:
            strength = _magnitudes(name, AUTOAUGMENT_BINS, image.height, image.width)[magnitude]
        image = OPERATIONS[name](image, -strength if name in _SIGNED and not sign else strength)
    return image


def _shear_x(image: Image.Image, share: float) -> Image.Image:
    return _moved(image, (1, _slope(share), 0, 0, 1, 0))


def _shear_y(image: Image.Image, share: float) -> Image.Image:
    return _moved(image, (1, 0, 0, _slope(share), 1, 0))


def _translate_x(image: Image.Image, pixels: float) -> Image.Image:
    return _moved(image, (1, 0, -int(pixels), 0, 1, 0))


def _translate_y(image: Image.Image, pixels: float) -> Image.Image:
    return _moved(image, (1, 0, 0, 0, 1, -int(pixels)))


def _moved(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    """Each pixel of the result comes from the nearest to (a x + b y + c, d x + e y + f)."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)


def _slope(share: float) -> float:
    return math.tan(math.radians(math.degrees(math.atan(share))))  # as torchvision rounds it, by way of degrees


def _rotate(image: Image.Image, degrees: float) -> Image.Image:
    return image.rotate(degrees, Image.Resampling.NEAREST)


def _enhanced(
    enhancer: Callable[[Image.Image], ImageEnhance._Enhance], image: Image.Image, strength: float
) -> Image.Image:
    return enhancer(image).enhance(1 + strength)


def _posterize(image: Image.Image, bits: float) -> Image.Image:
    return ImageOps.posterize(image, int(bits))


def _solarize(image: Image.Image, threshold: float) -> Image.Image:
    return ImageOps.solarize(image, threshold)  # type: ignore[arg-type] # fractions are compared as they are


def _autocontrast(image: Image.Image, _: float) -> Image.Image:
    return ImageOps.autocontrast(image)


def _equalize(image: Image.Image, _: float) -> Image.Image:
    return ImageOps.equalize(image)


def _invert(image: Image.Image, _: float) -> Image.Image:
    return ImageOps.invert(image)


def _identity(image: Image.Image, _: float) -> Image.Image:
    return image


OPERATIONS: dict[str, Operation] = {
    "identity": _identity, "shear-x": _shear_x, "shear-y": _shear_y, "translate-x": _translate_x,
    "translate-y": _translate_y, "rotate": _rotate,
    "brightness": partial(_enhanced, ImageEnhance.Brightness), "colour": partial(_enhanced, ImageEnhance.Color),
    "contrast": partial(_enhanced, ImageEnhance.Contrast), "sharpness": partial(_enhanced, ImageEnhance.Sharpness),
    "posterize": _posterize, "solarize": _solarize,
    "autocontrast": _autocontrast, "equalize": _equalize, "invert": _invert,
}  # fmt: skip
"""Each takes a picture and a strength: of a shear its slope, of a translation pixels, of a rotation degrees, of colours
what is added to the factor 1, of posterize the bits that are kept, of solarize the level from which colours turn over.
"""

RANDAUGMENT = tuple(name for name in OPERATIONS if name != "invert")
"""The 14 operations of RandAugment and TrivialAugment, in torchvision's order."""

_SIGNED = frozenset(
    ("shear-x", "shear-y", "translate-x", "translate-y", "rotate", "brightness", "colour", "contrast", "sharpness")
)
_WITHOUT_STRENGTH = frozenset(("identity", "autocontrast", "equalize", "invert"))


@cache
def _magnitudes(name: str, bins: int, image_height: int, image_width: int) -> tuple[float, ...]:
    """Strengths of an operation, weakest first; translations grow with the image. Source: arXiv 1805.09501."""
    if name == "posterize":
        return _posterize_bits(bins, least=4)
    ends: dict[str, tuple[float, float]] = {
        "shear-x": (0, 0.3), "shear-y": (0, 0.3), "rotate": (0, 30), "solarize": (255, 0),
        "translate-x": (0, 150 / 331 * image_width), "translate-y": (0, 150 / 331 * image_height),
    }  # fmt: skip
    return _line(*ends.get(name, (0, 0.9)), bins)


@cache
def _wide_magnitudes(name: str) -> tuple[float, ...]:
    """The same in TrivialAugment's wide space. Source: arXiv 2103.10158, appendix."""
    if name == "posterize":
        return _posterize_bits(BINS, least=2)
    ends: dict[str, tuple[float, float]]
    ends = {"translate-x": (0, 32), "translate-y": (0, 32), "rotate": (0, 135), "solarize": (255, 0)}
    return _line(*ends.get(name, (0, 0.99)), BINS)


def _posterize_bits(bins: int, *, least: int) -> tuple[float, ...]:
    return tuple(8 - round(place / ((bins - 1) / (8 - least))) for place in range(bins))


def _line(first: float, last: float, bins: int) -> tuple[float, ...]:
    """Evenly spaced, in float32's rounding, as torchvision has them."""
    return tuple(torch.linspace(first, last, bins).tolist())


Choice = tuple[str, float, int | None]
"""An operation, the probability that it is applied, and its magnitude from 0 to 9."""

SubPolicy = tuple[Choice, Choice]

IMAGENET_POLICY: tuple[SubPolicy, ...] = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, None)),
    (("equalize", 0.8, None), ("equalize", 0.6, None)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, None), ("solarize", 0.2, 4)),
    (("equalize", 0.4, None), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, None)),
    (("posterize", 0.8, 5), ("equalize", 1.0, None)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, None), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("colour", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, None)),
    (("equalize", 0.0, None), ("equalize", 0.8, None)),
    (("invert", 0.6, None), ("equalize", 1.0, None)),
    (("colour", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("colour", 1.0, 2)),
    (("colour", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, None)),
    (("shear-x", 0.6, 5), ("equalize", 1.0, None)),
    (("colour", 0.4, 0), ("equalize", 0.6, None)),
    (("equalize", 0.4, None), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, None)),
    (("invert", 0.6, None), ("equalize", 1.0, None)),
    (("colour", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, None), ("equalize", 0.6, None)),
)
"""Source: arXiv 1805.09501, appendix, found on a part of ImageNet."""

CIFAR10_POLICY: tuple[SubPolicy, ...] = (
    (("invert", 0.1, None), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate-x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear-y", 0.5, 8), ("translate-y", 0.7, 9)),
    (("autocontrast", 0.5, None), ("equalize", 0.9, None)),
    (("shear-y", 0.2, 7), ("posterize", 0.3, 7)),
    (("colour", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, None), ("equalize", 0.5, None)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("colour", 0.7, 7), ("translate-x", 0.5, 8)),
    (("equalize", 0.3, None), ("autocontrast", 0.4, None)),
    (("translate-y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("colour", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, None)),
    (("equalize", 0.2, None), ("autocontrast", 0.6, None)),
    (("equalize", 0.2, None), ("equalize", 0.6, None)),
    (("colour", 0.9, 9), ("equalize", 0.6, None)),
    (("autocontrast", 0.8, None), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("colour", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, None)),
    (("translate-y", 0.9, 9), ("translate-y", 0.7, 9)),
    (("autocontrast", 0.9, None), ("solarize", 0.8, 3)),
    (("equalize", 0.8, None), ("invert", 0.1, None)),
    (("translate-y", 0.7, 9), ("autocontrast", 0.9, None)),
)
"""Source: arXiv 1805.09501, appendix, found on a part of CIFAR-10."""
