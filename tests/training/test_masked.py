from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.data.preprocess import Preprocess
from vitreous.data.training_batches import TrainingBatch
from vitreous.errors import ConfigError
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer
from vitreous.training.config import MaskedPatches, Optim
from vitreous.training.masked import (
    Corruption,
    LearnMaskedPatches,
    MaskedPatchLearner,
    corrupt_patches,
    masked_loss,
    masked_targets,
)
from vitreous.training.optimizer import parameter_groups

CONFIG = ViTConfig((8, 12), (4, 4), width=16, depth=2, heads=2, mlp_ratio=2.0, classes=3)
PREPROCESS = Preprocess((8, 12), "squash", 1.0)
MEAN, SMALL, PIXELS = MaskedPatches(), MaskedPatches(target="small-patch"), MaskedPatches(target="pixels")


def seen(pixels: Tensor) -> Tensor:
    """Bytes (..., 3, height, width) as the model sees them."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (PREPROCESS.mean, PREPROCESS.std))
    return (pixels / 255 - mean) / std


def noise(images: int = 2) -> Tensor:
    return torch.randint(0, 256, (images, 3, 8, 12), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def batch_of(images: Tensor, samples: list[int]) -> TrainingBatch:
    labels = torch.zeros(len(images), dtype=torch.int64)
    return TrainingBatch(0, 0, len(images), torch.tensor(samples, dtype=torch.int64), images, labels)


def learner_of(settings: MaskedPatches, **changes: Any) -> MaskedPatchLearner:
    generator = torch.Generator().manual_seed(1)
    model = VisionTransformer(replace(CONFIG, **changes), generator=generator)
    learner = MaskedPatchLearner(model, settings, generator=generator)
    with torch.no_grad():
        learner.head.weight.normal_(std=0.1, generator=generator)
    return learner


def test_a_patch_of_one_colour_is_its_upper_three_bits() -> None:
    for byte in range(256):
        flat = torch.tensor([byte, 255 - byte, 7]).byte()[:, None, None].expand(3, 8, 12)
        target = masked_targets(seen(flat)[None], (4, 4), MEAN, PREPROCESS)
        assert set(target.flatten().tolist()) == {(byte >> 5) * 64 + ((255 - byte) >> 5) * 8}


def test_mean_colours_equal_a_slow_loop_over_the_patches() -> None:
    pixels = noise()
    target = masked_targets(seen(pixels), (4, 4), MEAN, PREPROCESS)
    for image in range(2):
        for row in range(2):
            for column in range(3):
                patch = pixels[image, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].double()
                red, green, blue = (int(mean // 32) for mean in patch.mean((1, 2)).tolist())
                assert target[image, 3 * row + column] == red * 64 + green * 8 + blue


def test_small_patches_equal_a_slow_loop_over_their_parts() -> None:
    pixels = torch.randint(0, 256, (2, 3, 16, 24), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    target = masked_targets(seen(pixels), (8, 8), SMALL, PREPROCESS)
    assert target.shape == (2, 6, 16)
    for image in range(2):
        for patch in range(6):
            for part in range(16):
                top, left = 8 * (patch // 3) + 2 * (part // 4), 8 * (patch % 3) + 2 * (part % 4)
                means = pixels[image, :, top : top + 2, left : left + 2].double().mean((1, 2)).tolist()
                red, green, blue = (int(mean // 32) for mean in means)
                assert target[image, patch, part] == red * 64 + green * 8 + blue


def test_pixels_are_those_that_the_model_sees() -> None:
    images = seen(noise())
    target = masked_targets(images, (4, 4), PIXELS, PREPROCESS)
    for row in range(2):
        for column in range(3):
            patch = images[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            assert torch.equal(target[:, 3 * row + column], patch.flatten(1))


def test_colours_outside_of_bytes_are_the_nearest() -> None:
    target = masked_targets(
        seen(torch.tensor([-40.0, 300.0, 256.0])[:, None, None].expand(3, 8, 12))[None], (4, 4), MEAN, PREPROCESS
    )
    assert set(target.flatten().tolist()) == {7 * 8 + 7}


def test_half_of_the_patches_is_corrupted_in_shares_of_80_10_and_10() -> None:
    found = corrupt_patches(torch.arange(2000), 64, MEAN, epoch=0, seed=5)
    assert found.chosen.shape == (2000, 32)
    assert all(len(set(row)) == 32 and row == sorted(row) for row in found.chosen[:50].tolist())
    corrupted = torch.zeros(2000, 64, dtype=torch.bool).scatter_(1, found.chosen, True)
    moved = found.source != torch.arange(64)
    assert not (found.masked & moved).any()
    assert not ((found.masked | moved) & ~corrupted).any()
    for share, expected in ((found.masked, 0.8), (moved, 0.1), (corrupted & ~found.masked & ~moved, 0.1)):
        share_of_corrupted = share.sum().item() / corrupted.sum().item()
        deviation = math.sqrt(expected * (1 - expected) / 64000)
        assert abs(share_of_corrupted - expected) < 4 * deviation
    counts = corrupted.sum(0).double()  # every patch is corrupted as often
    assert ((counts - 1000).abs() < 5 * math.sqrt(2000 / 4)).all()
    offsets = torch.bincount((found.source - torch.arange(64)).remainder(64)[moved], minlength=64)
    assert offsets[0] == 0 and offsets[1:].min() > 50  # any other patch, of about 100 each


def test_the_share_is_rounded_and_never_nothing() -> None:
    for patches, share, expected in ((6, 0.5, 3), (9, 0.15, 1), (4, 0.05, 1), (1, 0.5, 1)):
        found = corrupt_patches(torch.arange(3), patches, MaskedPatches(share=share), epoch=0, seed=0)
        assert found.chosen.shape == (3, expected)
        assert found.source.min() >= 0 and found.source.max() < patches


def test_draws_belong_to_images_and_not_to_their_batch() -> None:
    whole = corrupt_patches(torch.tensor([7, 3, 12]), 6, MEAN, epoch=0, seed=1)
    part = corrupt_patches(torch.tensor([3]), 6, MEAN, epoch=0, seed=1)
    assert torch.equal(whole.chosen[1:2], part.chosen) and torch.equal(whole.source[1:2], part.source)
    assert torch.equal(whole.masked[1:2], part.masked)
    assert not torch.equal(whole.chosen, corrupt_patches(torch.tensor([7, 3, 12]), 6, MEAN, epoch=0, seed=2).chosen)


def test_embeddings_are_corrupted_and_positions_are_not() -> None:
    learner = learner_of(MEAN).eval()
    model, images = learner.model, seen(noise())
    corruption = Corruption(
        chosen=torch.tensor([[0, 2, 5], [1, 3, 4]]),
        source=torch.tensor([[0, 1, 4, 3, 4, 5], [0, 1, 2, 0, 4, 5]]),  # one patch of each gets another's embedding
        masked=torch.tensor([[True, False, False, False, False, False], [False, True, False, False, True, False]]),
    )
    embedded = model.patch_embed(images)
    for image in range(2):
        row = embedded[image].clone()
        for patch in range(6):
            embedded[image, patch] = row[corruption.source[image, patch]]
            if corruption.masked[image, patch]:
                embedded[image, patch] = learner.mask_token[0, 0]
    assert model.cls_token is not None and model.pos_embed is not None
    sequence = torch.cat([model.cls_token.expand(2, -1, -1), embedded], dim=1) + model.pos_embed
    for block in model.blocks:
        sequence = block(sequence)
    tokens = model.norm(sequence)[:, 1:]
    expected = torch.stack([learner.head(tokens[image, corruption.chosen[image]]) for image in range(2)])
    torch.testing.assert_close(learner(images, corruption), expected, atol=1e-6, rtol=1e-5)


def test_losses_have_their_closed_form() -> None:
    targets = torch.tensor([[5, 9], [511, 0]])
    loss, right = masked_loss(torch.zeros(2, 2, 512), targets)
    assert loss.item() == pytest.approx(math.log(512)) and right == 0.25  # the first colour is the likeliest of equals
    sure = 50.0 * F.one_hot(targets, 512)
    loss, right = masked_loss(sure, targets)
    assert loss.item() == pytest.approx(0, abs=1e-6) and right == 1
    many = torch.randint(0, 512, (2, 2, 16), generator=torch.Generator().manual_seed(0))
    logits = torch.randn(2, 2, 16 * 512, generator=torch.Generator().manual_seed(1))
    loss, right = masked_loss(logits, many)
    shares = logits.view(2, 2, 16, 512).log_softmax(-1)
    one_by_one = [-shares[a, b, c, many[a, b, c]] for a in range(2) for b in range(2) for c in range(16)]
    assert loss.item() == pytest.approx(torch.stack(one_by_one).mean().item(), rel=1e-6)
    numbers = torch.arange(12.0).view(1, 2, 6)
    loss, right = masked_loss(numbers + 3, numbers)
    assert (loss.item(), right.item()) == (9.0, 0.0)


@pytest.mark.parametrize("settings", [MEAN, SMALL, PIXELS])
def test_the_objective_learns_what_was_hidden(settings: MaskedPatches) -> None:
    objective = LearnMaskedPatches(settings, (4, 4), PREPROCESS, seed=0)
    model = VisionTransformer(CONFIG, generator=torch.Generator().manual_seed(0))
    learner = objective.learner(model)
    flat = torch.tensor([[200, 40, 90], [30, 30, 250]]).byte()[:, :, None, None].expand(2, 3, 8, 12)
    batch = batch_of(seen(flat), [4, 9])
    first, counts = objective.loss(learner, batch)
    if settings.target == "pixels":
        assert counts == {}
        assert first.item() == pytest.approx(seen(flat).square().mean().item(), rel=1e-5)  # the head starts at 0
    else:
        assert first.item() == pytest.approx(math.log(512), rel=1e-6)
        assert counts["colour_top1"] == 0
    optimizer = torch.optim.Adam([w for w in learner.parameters() if w.requires_grad], lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        loss, counts = objective.loss(learner, batch)
        loss.backward()
        optimizer.step()
    assert loss < 0.2 * first
    if settings.target != "pixels":
        assert counts["colour_top1"] == 2.0  # a sum over two images


@pytest.mark.parametrize(
    "changes", [{}, {"pooling": "mean"}, {"pooling": "map"}, {"hidden_head": True}, {"registers": 2}]
)
def test_every_weight_that_learns_has_a_gradient(changes: dict[str, Any]) -> None:
    learner = learner_of(MEAN, **changes)
    objective = LearnMaskedPatches(MEAN, (4, 4), PREPROCESS, seed=0)
    objective.loss(learner, batch_of(seen(noise()), [0, 1]))[0].backward()
    for name, weight in learner.named_parameters():
        assert (weight.grad is not None) == weight.requires_grad, name
    assert all(weight.requires_grad for weight in learner.model.blocks.parameters())
    plain = VisionTransformer(replace(CONFIG, **changes))
    assert learner.model.state_dict().keys() == plain.state_dict().keys()  # nothing was added to what is saved


def test_the_mask_token_does_not_decay() -> None:
    learner = learner_of(MEAN)
    kept = [
        weight
        for group in parameter_groups(learner, Optim())
        if not group["weight_decay"]
        for weight in group["params"]
    ]
    assert any(weight is learner.mask_token for weight in kept)


def test_the_same_epoch_gives_the_same_bits_and_another_one_others() -> None:
    learner, batch = learner_of(MEAN), batch_of(seen(noise()), [0, 1])
    objective = LearnMaskedPatches(MEAN, (4, 4), PREPROCESS, seed=0)
    losses = [objective.loss(learner, replace(batch, epoch=epoch))[0].item() for epoch in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
    tokens = [objective.learner(VisionTransformer(CONFIG)).mask_token for _ in range(2)]
    other = LearnMaskedPatches(MEAN, (4, 4), PREPROCESS, seed=1).learner(VisionTransformer(CONFIG)).mask_token
    assert torch.equal(*tokens) and not torch.equal(tokens[0], other)


def test_parts_of_a_batch_have_the_loss_of_the_whole() -> None:
    learner, images = learner_of(MEAN), seen(noise(4))
    objective = LearnMaskedPatches(MEAN, (4, 4), PREPROCESS, seed=0)
    parts = ([0, 1, 2, 3], [0, 1], [2, 3])
    losses = [objective.loss(learner, batch_of(images[samples], samples))[0].item() for samples in parts]
    assert losses[0] == pytest.approx((losses[1] + losses[2]) / 2, rel=1e-6)


def test_a_batch_without_images_has_a_loss_of_0_with_a_gradient() -> None:
    learner = learner_of(MEAN)
    objective = LearnMaskedPatches(MEAN, (4, 4), PREPROCESS, seed=0)
    loss, counts = objective.loss(learner, batch_of(seen(noise())[:0], []))
    loss.backward()
    assert loss.item() == 0 and counts == {"colour_top1": 0}
    assert not learner.head.weight.grad.any()


def test_what_cannot_learn_so_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"patch_size is \(2, 4\)"):
        learner_of(SMALL, patch_size=(2, 4))
    stem = {"stem": (1,), "stem_root": "small", "stem_width": 8, "class_token": False}
    with pytest.raises(ConfigError, match="depth is 0"):
        learner_of(MEAN, depth=0, positions="none", pooling="mean", **stem)
    hybrid = learner_of(MEAN, **stem, pooling="mean")
    corruption = corrupt_patches(torch.tensor([0, 1]), 6, MEAN, epoch=0, seed=3)
    assert hybrid(seen(noise()), corruption).shape == (2, 3, 512)
