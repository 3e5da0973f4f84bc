from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from vitreous.checkpoints.loaded import LoadedModel
from vitreous.data.datasets import LabelledImages
from vitreous.data.preprocess import Preprocess
from vitreous.errors import CheckpointError, ConfigError, NumericError
from vitreous.training.evaluate import class_logits, evaluate, score

NAMES = ("red", "green", "blue")
PREPROCESS = Preprocess((4, 4), "squash", 1.0, mean=(0, 0, 0), std=(1, 1, 1))


class MostColour(nn.Module):
    """Logits are the mean of each colour."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((-2, -1))


def _loaded(model: nn.Module, class_names: tuple[str, ...] = NAMES) -> LoadedModel:
    return LoadedModel(model.eval(), "colours", PREPROCESS, class_names, "function", "")


def _dataset(colours: list[str], labels: list[int], class_names: tuple[str, ...] = NAMES) -> LabelledImages:
    names = tuple(f"{n}.png" for n in range(len(colours)))
    return LabelledImages(
        "squares", "test", class_names, tuple(labels), names, lambda n: Image.new("RGB", (5, 5), colours[n])
    )


def test_an_evaluation_has_its_closed_form() -> None:
    dataset = _dataset(["red", "blue", "blue", "lime"], [0, 2, 1, 1])
    for batch_size in (1, 3, 64):
        result = evaluate(_loaded(MostColour()), dataset, batch_size=batch_size)
        assert (result.images, result.top1, result.top5) == (4, 0.75, 1.0)
        # logits are 1 for the colour and 0 for the others
        right = math.log(math.e + 2) - 1
        assert result.loss == pytest.approx((3 * right + right + 1) / 4)
        assert result.confusion.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]
        assert result.per_class.tolist() == [1.0, 0.5, 1.0]


def test_scores_equal_a_slow_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 8, generator=generator)
    labels = torch.randint(0, 8, (50,), generator=generator)
    result = score(logits, labels, tuple("abcdefgh"))
    top1 = top5 = 0
    loss = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        better = sum(value > row[label] for value in row)
        top1 += better == 0
        top5 += better < 5
        loss -= math.log(math.exp(row[label]) / sum(math.exp(value) for value in row))
    assert (result.top1, result.top5) == (top1 / 50, top5 / 50)
    assert result.loss == pytest.approx(loss / 50)
    assert result.confusion.sum() == 50
    assert result.confusion.diag().sum() == top1


def test_a_class_without_images_has_no_share_and_json_says_none() -> None:
    result = score(torch.eye(3)[:2], torch.tensor([0, 1]), NAMES)
    assert math.isnan(result.per_class[2])
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["per_class"] == {"red": 1.0, "green": 1.0, "blue": None}
    assert (plain["top1"], plain["images"]) == (1.0, 2)


def test_other_classes_are_refused_with_the_difference() -> None:
    model = _loaded(MostColour())
    with pytest.raises(CheckpointError, match="only the model has blue; only the data has cyan"):
        evaluate(model, _dataset(["red"], [0], ("red", "green", "cyan")))
    with pytest.raises(CheckpointError, match="in another order"):
        evaluate(model, _dataset(["red"], [0], ("blue", "green", "red")))
    with pytest.raises(CheckpointError, match="only the data has a, b, c and 2 more"):
        evaluate(model, _dataset(["red"], [0], tuple("abcde")))
    nameless = replace(model, class_names=())
    with pytest.raises(CheckpointError, match="colours has 3 classes, squares has 2"):
        evaluate(nameless, _dataset(["red"], [0], ("red", "green")))
    assert evaluate(nameless, _dataset(["red"], [0])).top1 == 1


def test_logits_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(NumericError, match="image 1"):
        score(torch.tensor([[0.0, 1.0], [math.nan, 0.0]]), torch.tensor([0, 1]), ("a", "b"))


def test_logits_are_found_inside_an_output_object() -> None:
    class Wrapped(nn.Module):
        def forward(self, images: Tensor) -> SimpleNamespace:
            return SimpleNamespace(logits=images.mean((-2, -1)).bfloat16())

    logits = class_logits(Wrapped(), torch.ones(2, 3, 4, 4))
    assert logits.dtype == torch.float32
    assert logits.tolist() == [[1, 1, 1], [1, 1, 1]]


def test_a_model_without_logits_is_refused() -> None:
    with pytest.raises(CheckpointError, match="Identity returned Tensor, but logits"):
        class_logits(nn.Identity(), torch.ones(2, 3, 4, 4))


def test_a_batch_size_below_1_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size is 0"):
        evaluate(_loaded(MostColour()), _dataset(["red"], [0]), batch_size=0)


def test_nothing_is_left_on_the_model() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    evaluate(_loaded(model), _dataset(["red"], [0]))
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())
