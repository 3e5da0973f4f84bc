"""What happens to an image before a model sees it: numbers only, so that it is read without torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from vitreous.errors import ConfigError

Colour = tuple[float, float, float]
Resize = Literal["squash", "crop", "squash-crop", "border", "cut", "none"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
Resampler = Literal["pillow", "torch", "torch-float", "tensorflow", "tensorflow-bytes"]
Rounding = Literal["torchvision", "transformers"]

INTERPOLATIONS: dict[str, tuple[str, ...]] = {
    "pillow": get_args(Interpolation),
    "torch": ("nearest", "bilinear", "bicubic"),
    "torch-float": ("nearest", "bilinear", "bicubic"),
    "tensorflow": ("bilinear",),
    "tensorflow-bytes": ("bilinear",),
}
"""What each resampler can do."""

IMAGENET_MEAN: Colour = (0.485, 0.456, 0.406)
"""Mean of ImageNet's training images, RGB in [0, 1]. Source: torchvision's presets; DeiT, MAE use it."""

IMAGENET_STD: Colour = (0.229, 0.224, 0.225)
"""Standard deviation of the same, per channel."""

CLIP_MEAN: Colour = (0.48145466, 0.4578275, 0.40821073)
"""Mean of CLIP's training images, RGB in [0, 1]. Source: openai/CLIP, clip/clip.py; open_clip uses it."""

CLIP_STD: Colour = (0.26862954, 0.26130258, 0.27577711)
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

    What `resize` does, the enlarged size being `image_size / crop_fraction`, rounded down:

    - `squash`: to exactly `image_size`, whatever the picture's proportions (the ViT paper's code).
    - `squash-crop`: to exactly the enlarged size, then the centre is taken (Hugging Face's DeiT).
    - `crop`: proportions kept, so that the picture covers the enlarged size, then the centre is taken (timm,
      torchvision, CLIP, DINO).
    - `border`: proportions kept, so that the picture fits into the enlarged size, then the centre is taken; what is
      missing has the colour `mean` (timm).
    - `cut`: not resized; the centre is taken, and what is missing is black (Hugging Face).
    - `none`: not resized; a picture of another size is refused.

    Attributes:
        image_size: (image_height, image_width) of the result, in pixels.
        resize: one of the above.
        crop_fraction: share of the resized side that the centre crop keeps, above 0; 1 for `squash`, `cut` and `none`.
            Above 1 the picture is smaller than the crop, and black around it; only Hugging Face's rounding has that.
        interpolation: used by the resize.
        mean: taken off each channel, RGB in [0, 1].
        std: then divides each channel; above 0.
        resampler: whose arithmetic resizes. `pillow` and `torch` antialias and round to bytes, and differ by up to 2
            of 255; `torch-float` antialiases and does not round; `tensorflow` does neither, and `tensorflow-bytes`
            then drops the fractions.
        rounding: whose centre is taken when an odd number of pixels is left over. `torchvision` (timm's, too) rounds
            the offset to the nearest even number, `transformers` down; and `transformers` covers `image_size`s that
            are not square by the shorter edge alone.
    """

    image_size: tuple[int, int] = (224, 224)
    resize: Resize = "crop"
    crop_fraction: float = 0.875
    interpolation: Interpolation = "bicubic"
    mean: Colour = IMAGENET_MEAN
    std: Colour = IMAGENET_STD
    resampler: Resampler = "pillow"
    rounding: Rounding = "torchvision"

    def __post_init__(self) -> None:
        size = self.image_size
        if not isinstance(size, tuple) or len(size) != 2 or any(not isinstance(n, int) or n < 1 for n in size):
            raise ConfigError(f"image_size is {self.image_size!r}; it is (height, width) in pixels, such as (224, 224)")
        _check_choice("resize", self.resize, get_args(Resize))
        _check_choice("interpolation", self.interpolation, get_args(Interpolation))
        _check_choice("resampler", self.resampler, get_args(Resampler))
        _check_choice("rounding", self.rounding, get_args(Rounding))
        if self.interpolation not in INTERPOLATIONS[self.resampler]:
            raise ConfigError(
                f"interpolation is {self.interpolation!r}, which resampler {self.resampler!r} does not have; "
                f"choose one of {', '.join(INTERPOLATIONS[self.resampler])}"
            )
        self._check_crop_fraction()
        for name, values in (("mean", self.mean), ("std", self.std)):
            if not isinstance(values, tuple) or len(values) != 3 or not all(map(_is_number, values)):
                raise ConfigError(f"{name} is {values!r}; it is three finite numbers: red, green, blue")
        if min(self.std) <= 0:
            raise ConfigError(f"std is {self.std!r}; each channel is divided by it, so it must be above 0")

    @property
    def enlarged_size(self) -> tuple[int, int]:
        """(image_height, image_width) that the resize aims at, before the centre is taken."""
        height, width = self.image_size
        return math.floor(height / self.crop_fraction), math.floor(width / self.crop_fraction)

    @property
    def has_bytes(self) -> bool:
        """Whether resized pixels are whole numbers of 0 to 255; else they are fractions, four times as large."""
        return self.resampler not in ("torch-float", "tensorflow") or self.resize in ("cut", "none")

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

    def _check_crop_fraction(self) -> None:
        fraction = self.crop_fraction
        padded = self.rounding == "transformers" and self.resize in ("crop", "squash-crop")
        if not 0 < fraction <= (math.inf if padded else 1):
            raise ConfigError(f"crop_fraction is {fraction!r}; it is above 0 and at most 1, 0.875 for 224 of 256")
        if max(self.image_size) / min(1, fraction) > LARGEST or min(self.image_size) / fraction < 1:
            raise ConfigError(
                f"image_size {self.image_size} with crop_fraction {fraction} does not resize to 1 to {LARGEST} "
                "pixels a side; use other images or another fraction"
            )
        if self.resize == "squash" and fraction != 1:
            raise ConfigError(
                f"crop_fraction is {fraction!r}, but resize 'squash' keeps the whole picture; "
                "use crop_fraction 1.0, resize 'crop' or resize 'squash-crop'"
            )
        if self.resize in ("cut", "none") and fraction != 1:
            raise ConfigError(f"crop_fraction is {fraction!r}, but resize {self.resize!r} resizes nothing; use 1.0")


def fraction_for(crop: int, resized: int) -> float:
    """The `crop_fraction` that resizes to exactly `resized` pixels, of which `crop` are kept.

    224 of 256 is 0.875. A quotient may be a hair too large, so that its own division gives a pixel less: then the next
    smaller number is taken.
    """
    fraction = crop / resized
    while math.floor(crop / fraction) < resized:
        fraction = math.nextafter(fraction, 0)
    return fraction


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}; choose one of {', '.join(allowed)}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9
