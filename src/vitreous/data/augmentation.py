"""How much an image may be changed in training: numbers and names only, so that it is read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from vitreous.checking import check_choice, check_count, check_number
from vitreous.errors import ConfigError

Crop = Literal["none", "resized"]
Policy = Literal["none", "randaugment", "trivialaugment", "autoaugment", "autoaugment-cifar10"]


@dataclass(frozen=True)
class Augmentation:
    """How much an image may be changed in training; the defaults change nothing.

    Everything is drawn for each image from (seed, epoch, sample). What is cut, mirrored and changed by a policy comes
    first, what is moved, turned, erased and mixed afterwards.

    Attributes:
        crop: `resized` cuts out a random part and resizes it to the model's size, in place of the preprocessing's
            resize and crop (Szegedy et al. 2015, arXiv 1409.4842, section 6).
        crop_area: (least, most) share of the image's area that a random part has.
        crop_ratio: (least, most) ratio of a random part's width to its height.
        flip: whether half of the images are mirrored left to right.
        policy: operations that change colours and geometry: `randaugment` (arXiv 1909.13719), `trivialaugment` (arXiv
            2103.10158, the wide space), `autoaugment` (arXiv 1805.09501, the policy found for ImageNet),
            `autoaugment-cifar10`.
        policy_layers: operations that randaugment applies one after the other.
        policy_magnitude: of randaugment's operations, from 0 to 30.
        shift: pixels, at most, in each direction; whole ones where images are neither turned nor resized.
        rotation: degrees, at most, either way.
        scale: share, at most, by which an image grows or shrinks, in [0, 1).
        erasing: share of images in which a rectangle becomes noise (arXiv 1708.04896), in [0, 1].
        mixup: both parameters of the Beta distribution that two images are mixed by (arXiv 1710.09412); 0 mixes none.
        cutmix: likewise of the area that is cut from another image (arXiv 1905.04899); 0 cuts none. With both, half
            of the batches are mixed and half are cut.
        mix_probability: share of batches that are mixed or cut.
        repeats: how often each image comes in an epoch, each time changed anew; an epoch then has as many images as
            before, and a share of 1 / repeats of the data set (arXiv 1901.09335).
    """

    crop: Crop = "none"
    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = False
    policy: Policy = "none"
    policy_layers: int = 2
    policy_magnitude: int = 9
    shift: float = 0.0
    rotation: float = 0.0
    scale: float = 0.0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_probability: float = 1.0
    repeats: int = 1

    def __post_init__(self) -> None:
        check_choice("augmentation.crop", self.crop, get_args(Crop))
        check_choice("augmentation.policy", self.policy, get_args(Policy))
        for name in ("shift", "rotation", "mixup", "cutmix"):
            check_number(f"augmentation.{name}", getattr(self, name), least=0)
        check_number("augmentation.scale", self.scale, least=0, below=1)
        for name in ("erasing", "mix_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"augmentation.{name} is {getattr(self, name)!r}; it is a share from 0 to 1")
        check_count("augmentation.policy_layers", self.policy_layers, least=1)
        check_count("augmentation.policy_magnitude", self.policy_magnitude, least=0)
        check_count("augmentation.repeats", self.repeats, least=1)
        if self.policy_magnitude > 30:
            raise ConfigError(f"augmentation.policy_magnitude is {self.policy_magnitude}; it goes from 0 to 30")
        for name, most in (("crop_area", 1.0), ("crop_ratio", float("inf"))):
            low, high = getattr(self, name)
            if not 0 < low <= high <= most:
                raise ConfigError(
                    f"augmentation.{name} is {getattr(self, name)!r}; it is (least, most), above 0"
                    + (" and at most 1" if most == 1 else "")
                )
