from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from timm.data.mixup import Mixup

from vitreous.data.augmentation import Augmentation
from vitreous.data.mixing import mix, mixes, soft_targets
from vitreous.data.order import Draws

SETTINGS = [
    {"mixup": 0.8, "cutmix": 1.0},
    {"mixup": 0.2},
    {"cutmix": 0.5},
    {"mixup": 0.8, "cutmix": 1.0, "mix_probability": 0.5},
    {"cutmix": 1.0, "mix_probability": 0.3},
]


def batch(images: int = 6, size: tuple[int, int] = (7, 11)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(images, 3, *size, generator=generator), torch.randint(10, (images,), generator=generator)


def inject(monkeypatch: pytest.MonkeyPatch, draws: Draws) -> None:
    """Has timm draw its numbers from ours."""

    def beta(alpha: float, _: float) -> float:
        return draws.beta(alpha)

    def randint(low: int, high: int, size: None) -> Any:
        return np.int64(low + draws.integer(high - low))

    monkeypatch.setattr(np.random, "rand", draws.uniform)
    monkeypatch.setattr(np.random, "beta", beta)
    monkeypatch.setattr(np.random, "randint", randint)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_batches_are_timms_for_the_same_draws(
    settings: dict[str, float], smoothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = Augmentation(**settings)
    theirs = Mixup(ours.mixup, ours.cutmix, prob=ours.mix_probability, label_smoothing=smoothing, num_classes=10)
    kinds = set()
    for seed in range(80):
        images, labels = batch()
        mixed, targets = mix(images, labels, classes=10, settings=ours, smoothing=smoothing, draws=Draws(seed))
        with monkeypatch.context() as patched:
            inject(patched, Draws(seed))
            expected, expected_targets = theirs(images.clone(), labels)
        assert torch.equal(mixed, expected)
        assert torch.equal(targets, expected_targets)
        kinds.add("kept" if torch.equal(mixed, images) else "cut" if torch.isin(mixed, images).all() else "mixed")
    assert ("mixed" in kinds) == (ours.mixup > 0)
    assert ("cut" in kinds) == (ours.cutmix > 0)
    assert ours.mix_probability == 1 or "kept" in kinds


def test_each_image_meets_the_one_as_far_from_the_other_end() -> None:
    images, labels = torch.arange(5.0)[:, None, None, None].expand(5, 3, 4, 4), torch.arange(5)
    mixed, targets = mix(images, labels, classes=5, settings=Augmentation(mixup=1.0), smoothing=0.0, draws=Draws(0))
    kept = targets[0, 0].item()
    assert 0 < kept < 1
    expected = torch.tensor([kept * n + (1 - kept) * (4 - n) for n in range(5)])
    torch.testing.assert_close(mixed[:, 0, 0, 0], expected)
    torch.testing.assert_close(targets, kept * torch.eye(5) + (1 - kept) * torch.eye(5).flip(0))


def test_targets_say_how_many_pixels_each_image_gave() -> None:
    images = torch.arange(4.0)[:, None, None, None].expand(4, 3, 16, 24)
    for seed in range(50):
        mixed, targets = mix(
            images, torch.arange(4), classes=4, settings=Augmentation(cutmix=1.0), smoothing=0.0, draws=Draws(seed)
        )
        shares = torch.stack([(mixed[:, 0] == source).double().mean((1, 2)) for source in range(4)], dim=1)
        torch.testing.assert_close(targets.double(), shares, atol=1e-6, rtol=0)
        cut = (mixed[0, 0] == 3).nonzero()  # one box
        if len(cut):
            assert len(cut) == (cut.amax(0) - cut.amin(0) + 1).prod()


def test_the_share_of_cut_batches_is_half_where_both_are_asked_for() -> None:
    images, labels = batch(2, (16, 16))
    cut = 0
    for seed in range(1000):
        mixed, _ = mix(
            images, labels, classes=10, settings=Augmentation(mixup=1, cutmix=1), smoothing=0, draws=Draws(seed)
        )
        cut += bool(torch.isin(mixed, images).all())
    assert cut == pytest.approx(500, abs=4 * np.sqrt(250))


def test_smoothed_targets_give_the_loss_of_smoothed_labels() -> None:
    _, labels = batch(50)
    logits = torch.randn(50, 10, generator=torch.Generator().manual_seed(1))
    targets = soft_targets(labels, 10, 0.1)
    torch.testing.assert_close(targets.sum(1), torch.ones(50))
    torch.testing.assert_close(F.cross_entropy(logits, targets), F.cross_entropy(logits, labels, label_smoothing=0.1))
    assert torch.equal(soft_targets(labels, 10, 0.0), F.one_hot(labels, 10).float())


def test_it_is_known_whether_anything_is_mixed() -> None:
    assert not mixes(Augmentation())
    assert not mixes(Augmentation(mixup=1.0, mix_probability=0.0))
    assert mixes(Augmentation(mixup=0.1))
    assert mixes(Augmentation(cutmix=0.1, mix_probability=0.01))


@pytest.mark.parametrize("settings", SETTINGS[:3])
def test_the_batch_that_was_given_stays_as_it_was(settings: dict[str, float]) -> None:
    images, labels = batch()
    before = images.clone()
    mix(images, labels, classes=10, settings=Augmentation(**settings), smoothing=0.1, draws=Draws(4))
    assert torch.equal(images, before)
