from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import autoaugment as theirs

from vitreous.data.augmentation import Augmentation
from vitreous.data.order import Draws
from vitreous.data.policies import (
    CIFAR10_POLICY,
    IMAGENET_POLICY,
    OPERATIONS,
    RANDAUGMENT,
    apply_policy,
    autoaugment,
    randaugment,
    trivialaugment,
)

THEIR_NAMES = {
    "shear-x": "ShearX", "shear-y": "ShearY", "translate-x": "TranslateX", "translate-y": "TranslateY",
    "rotate": "Rotate", "brightness": "Brightness", "colour": "Color", "contrast": "Contrast",
    "sharpness": "Sharpness", "posterize": "Posterize", "solarize": "Solarize", "autocontrast": "AutoContrast",
    "equalize": "Equalize", "invert": "Invert", "identity": "Identity",
}  # fmt: skip

STRENGTHS = {"posterize": (2, 4, 7, 8), "solarize": (0.0, 8.5, 127.5, 255.0), "rotate": (-135.0, -30.0, 4.5, 90.0)}


def picture(seed: int, image_width: int = 37, image_height: int = 29) -> Image.Image:
    """Smooth colours and noise, so that no operation finds nothing to do."""
    generator = np.random.default_rng(seed)
    smooth = np.linspace(20, 200, image_width)[None, :, None] * generator.uniform(0.4, 1.1, 3)
    noisy = smooth + generator.normal(0, 25, (image_height, image_width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def largest_difference(first: Image.Image, second: Image.Image) -> int:
    return int(np.abs(np.asarray(first).astype(int) - np.asarray(second)).max())


@pytest.fixture
def inject(monkeypatch: pytest.MonkeyPatch) -> Callable[[Draws], None]:
    """Has torchvision draw its numbers from ours."""

    def from_ours(draws: Draws) -> None:
        def randint(high: int, size: tuple[int, ...], **_: Any) -> torch.Tensor:
            return torch.tensor([draws.integer(high) for _ in range(size[0])])

        monkeypatch.setattr(torch, "randint", randint)
        monkeypatch.setattr(torch, "rand", lambda size: torch.tensor([draws.uniform() for _ in range(size[0])]))

    return from_ours


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("size", [(37, 29), (32, 32), (1, 5)])
def test_each_operation_is_torchvisions_bit_for_bit(name: str, size: tuple[int, int]) -> None:
    for seed, strength in enumerate(STRENGTHS.get(name, (-0.99, -0.27, 0.0, 0.12, 0.3, 0.9, 31.7))):
        image = picture(seed, *size)
        ours = OPERATIONS[name](image, strength)
        nearest = transforms.InterpolationMode.NEAREST
        expected = theirs._apply_op(image, THEIR_NAMES[name], strength, nearest, None)
        assert largest_difference(ours, expected) == 0, (name, strength)


def test_each_operation_changes_something() -> None:
    strong = {"posterize": 4.0, "solarize": 100.0, "rotate": 20.0, "translate-x": 3.0, "translate-y": 3.0}
    for name, operation in OPERATIONS.items():
        changed = largest_difference(operation(picture(0), strong.get(name, 0.5)), picture(0))
        assert (changed > 0) == (name != "identity"), name


@pytest.mark.parametrize(("layers", "magnitude"), [(2, 9), (1, 0), (3, 30), (2, 15)])
def test_randaugment_is_torchvisions_for_the_same_draws(
    layers: int, magnitude: int, inject: Callable[[Draws], None]
) -> None:
    policy = transforms.RandAugment(layers, magnitude)
    for seed in range(60):
        image = picture(seed)
        ours = randaugment(image, Draws(seed), layers=layers, magnitude=magnitude)
        inject(Draws(seed))
        assert largest_difference(ours, policy(image)) == 0


def test_trivialaugment_is_torchvisions_for_the_same_draws(inject: Callable[[Draws], None]) -> None:
    policy = transforms.TrivialAugmentWide()
    for seed in range(250):
        image = picture(seed)
        ours = trivialaugment(image, Draws(seed))
        inject(Draws(seed))
        assert largest_difference(ours, policy(image)) == 0


@pytest.mark.parametrize(("ours", "name"), [(IMAGENET_POLICY, "imagenet"), (CIFAR10_POLICY, "cifar10")])
def test_autoaugment_is_torchvisions_for_the_same_draws(ours: Any, name: str, inject: Callable[[Draws], None]) -> None:
    policy = transforms.AutoAugment(theirs.AutoAugmentPolicy(name))
    for seed in range(250):
        image = picture(seed)
        changed = autoaugment(image, Draws(seed), ours)
        inject(Draws(seed))
        assert largest_difference(changed, policy(image)) == 0


@pytest.mark.parametrize(("ours", "name"), [(IMAGENET_POLICY, "imagenet"), (CIFAR10_POLICY, "cifar10")])
def test_the_tables_are_torchvisions(ours: Any, name: str) -> None:
    expected = transforms.AutoAugment(theirs.AutoAugmentPolicy(name)).policies
    assert [tuple((THEIR_NAMES[name], *rest) for name, *rest in pair) for pair in ours] == expected


def test_operations_are_in_torchvisions_order() -> None:
    space = transforms.RandAugment()._augmentation_space(31, (32, 32))
    assert [THEIR_NAMES[name] for name in RANDAUGMENT] == list(space)
    assert list(transforms.TrivialAugmentWide()._augmentation_space(31)) == list(space)


def test_the_settings_choose_the_policy() -> None:
    image = picture(0)
    expected = {
        "none": image,
        "randaugment": randaugment(image, Draws(3), layers=1, magnitude=20),
        "trivialaugment": trivialaugment(image, Draws(3)),
        "autoaugment": autoaugment(image, Draws(3), IMAGENET_POLICY),
        "autoaugment-cifar10": autoaugment(image, Draws(3), CIFAR10_POLICY),
    }
    assert len({changed.tobytes() for changed in expected.values()}) == 5
    for name, changed in expected.items():
        settings = Augmentation(policy=name, policy_layers=1, policy_magnitude=20)
        assert largest_difference(apply_policy(image, settings, Draws(3)), changed) == 0


def test_the_picture_that_was_given_stays_as_it_was() -> None:
    image = picture(0)
    for seed in range(40):
        randaugment(image, Draws(seed), layers=2, magnitude=30)
    assert largest_difference(image, picture(0)) == 0
