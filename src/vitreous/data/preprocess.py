"""What happens to an image before a model sees it: numbers only, so that it is read without torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from vitreous.errors import ConfigError

Colour = tuple[float, float, float]
Resize = Literal["squash", "crop"]
Interpolation = Literal["bilinear", "bicubic"]

IMAGENET_MEAN: Colour = (0.485, 0.456, 0.406)
"""Mean of ImageNet's training images, RGB in [0, 1]. Source: torchvision's presets; DeiT, MAE use it."""

IMAGENET_STD: Colour = (0.229, 0.224, 0.225)
"""Standard deviation of the same, per channel."""

LARGEST = 16_384
"""Pixels a side that a picture may be resized to; beyond it one image takes gigabytes."""

HALF_MEAN: Colour = (0.5, 0.5, 0.5)
"""Takes [0, 1] to [-1, 1]. Source: google-research/vision_transformer, which computes (x - 127.5) / 127.5."""

HALF_STD: Colour = (0.5, 0.5, 0.5)
"""The other half of the same."""


@dataclass(frozen=True)
class Preprocess:
    """From a picture of any size to the model's input.

    `squash` resizes to exactly `image_size`, whatever the picture's proportions (the ViT paper's code).
    `crop` resizes so that the picture covers `image_size / crop_fraction`, proportions kept, and takes the
    centre (timm, torchvision).

    Attributes:
        image_size: (image_height, image_width) of the result, in pixels.
        resize: one of the two above.
        crop_fraction: in (0, 1]; share of the resized side that the centre crop keeps; 1 for `squash`.
        interpolation: used by the resize, antialiased.
        mean: taken off each channel, RGB in [0, 1].
        std: then divides each channel; above 0.
    """

    image_size: tuple[int, int] = (224, 224)
    resize: Resize = "crop"
    crop_fraction: float = 0.875
    interpolation: Interpolation = "bicubic"
    mean: Colour = IMAGENET_MEAN
    std: Colour = IMAGENET_STD

    def __post_init__(self) -> None:
        if len(self.image_size) != 2 or any(not isinstance(n, int) or n < 1 for n in self.image_size):
            raise ConfigError(f"image_size is {self.image_size!r}; it is (height, width) in pixels, such as (224, 224)")
        _check_choice("resize", self.resize, get_args(Resize))
        _check_choice("interpolation", self.interpolation, get_args(Interpolation))
        if not 0 < self.crop_fraction <= 1:
            raise ConfigError(
                f"crop_fraction is {self.crop_fraction!r}; it is above 0 and at most 1, 0.875 for 224 of 256"
            )
        if max(self.image_size) / self.crop_fraction > LARGEST:
            raise ConfigError(
                f"image_size {self.image_size} with crop_fraction {self.crop_fraction} resizes to more than {LARGEST} "
                "pixels a side; use smaller images"
            )
        if self.resize == "squash" and self.crop_fraction != 1:
            raise ConfigError(
                f"crop_fraction is {self.crop_fraction!r}, but resize 'squash' keeps the whole picture; "
                "use crop_fraction 1.0 or resize 'crop'"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or not all(math.isfinite(value) for value in values):
                raise ConfigError(f"{name} is {values!r}; it is three finite numbers: red, green, blue")
        if min(self.std) <= 0:
            raise ConfigError(f"std is {self.std!r}; each channel is divided by it, so it must be above 0")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocess:
        """What `to_dict` made; settings left out get their default.

        Raises:
            ConfigError: if a setting is unknown or wrong.
        """
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise ConfigError(f"preprocess has no setting {unknown[0]!r}; it has {', '.join(known)}")
        settings: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
        return cls(**settings)


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}; choose one of {', '.join(allowed)}")
