from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from vitreous.data.training_batches import TrainingBatch
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer
from vitreous.training.objective import LearnClasses, binary_loss, softmax_loss

LOGITS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([2, 0, 1, 1])


def _smooth(smoothing: float) -> Tensor:
    targets = torch.full((4, 3), smoothing / 3)
    targets[range(4), LABELS] += 1 - smoothing
    return targets


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_cross_entropy_is_the_sum_written_out_for_labels_and_for_shares(smoothing: float) -> None:
    expected = 0.0
    for row, target in zip(LOGITS.tolist(), _smooth(smoothing).tolist(), strict=True):
        total = math.log(sum(math.exp(value) for value in row))
        expected += sum(share * (total - value) for share, value in zip(target, row, strict=True)) / 4
    assert softmax_loss(LOGITS, LABELS, smoothing).item() == pytest.approx(expected, rel=1e-6)
    assert softmax_loss(LOGITS, _smooth(smoothing), 0.9).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_binary_loss_is_big_visions(smoothing: float) -> None:
    expected = 0.0
    for row, target in zip(LOGITS.tolist(), _smooth(smoothing).tolist(), strict=True):
        for value, share in zip(row, target, strict=True):  # -sum(y log_sigmoid(x) + (1 - y) log_sigmoid(-x))
            there, not_there = -math.log1p(math.exp(-value)), -math.log1p(math.exp(value))
            expected -= (share * there + (1 - share) * not_there) / 4
    assert binary_loss(LOGITS, LABELS, smoothing).item() == pytest.approx(expected, rel=1e-6)
    assert binary_loss(LOGITS, _smooth(smoothing), 0.9).item() == pytest.approx(expected, rel=1e-6)


def _batch(targets: Tensor, images: int = 4) -> TrainingBatch:
    return TrainingBatch(0, 0, 4, torch.arange(images), LOGITS[:images], targets[:images])


def test_images_that_are_right_are_counted_by_the_largest_share() -> None:
    right = int((LOGITS.argmax(1) == LABELS).sum())
    assert 0 < right < 4
    for targets in (LABELS, _smooth(0.3)):
        _, counts = LearnClasses("cross-entropy", 0.0).loss(nn.Identity(), _batch(targets))
        assert counts["top1"].item() == right


@pytest.mark.parametrize("loss", ["cross-entropy", "binary"])
def test_a_part_without_images_has_a_loss_of_0_that_can_go_backward(loss: str) -> None:
    layer = nn.Linear(3, 3)
    value, counts = LearnClasses(loss, 0.1).loss(layer, _batch(LABELS, 0))  # type: ignore[arg-type]
    value.backward()
    assert value.item() == 0 and counts["top1"].item() == 0
    assert layer.weight.grad is not None and not layer.weight.grad.any()


def test_only_a_new_head_that_learns_each_class_by_itself_starts_from_rare_classes() -> None:
    def bias(loss: str, *, is_new: bool = True) -> Tensor:
        model = VisionTransformer(ViTConfig((8, 8), (4, 4), classes=5, width=8, depth=1, heads=2))
        assert model.head is not None
        if not is_new:
            nn.init.ones_(model.head.weight)
        assert LearnClasses(loss, 0.0).learner(model) is model  # type: ignore[arg-type]
        return model.head.bias.detach()

    assert bias("binary").tolist() == pytest.approx([-math.log(5)] * 5)
    assert not bias("cross-entropy").any() and not bias("binary", is_new=False).any()
