from __future__ import annotations

import math
from pathlib import Path

import pytest
from PIL import Image
from torch import Tensor, nn

from vitreous.checkpoints.loaded import LoadedModel
from vitreous.data.gather import gather_pictures
from vitreous.data.preprocess import Preprocess
from vitreous.errors import ConfigError, NumericError
from vitreous.training.predict import predict

NAMES = ("red", "green", "blue")


class MostColour(nn.Module):
    """Logits are the mean of each colour."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((-2, -1))


def _loaded(model: nn.Module, class_names: tuple[str, ...] = NAMES) -> LoadedModel:
    preprocess = Preprocess((4, 4), "squash", 1.0, mean=(0, 0, 0), std=(1, 1, 1))
    return LoadedModel(model.eval(), "colours", preprocess, class_names, "function", "")


def test_predictions_are_the_softmax_most_likely_first(tmp_path: Path) -> None:
    for name, colour in (("a", "lime"), ("b", "blue")):
        Image.new("RGB", (5, 5), colour).save(tmp_path / f"{name}.png")
    first, second = predict(_loaded(MostColour()), gather_pictures(tmp_path), top=2, batch_size=1)
    assert (first.image, second.image) == (str(tmp_path / "a.png"), str(tmp_path / "b.png"))
    assert first.classes[0][0] == "green"
    assert second.classes[0] == ("blue", pytest.approx(math.e / (math.e + 2)))
    assert len(second.classes) == 2


def test_more_classes_than_there_are_gives_all_and_they_sum_to_1(tmp_path: Path) -> None:
    Image.new("RGB", (5, 5), "lime").save(tmp_path / "a.png")
    (prediction,) = predict(_loaded(MostColour(), ()), gather_pictures(tmp_path / "a.png"), top=99)
    assert {name for name, _ in prediction.classes} == {"0", "1", "2"}
    assert sum(share for _, share in prediction.classes) == pytest.approx(1)


def test_a_prediction_that_is_no_number_names_the_file(tmp_path: Path) -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean((-2, -1)) / 0

    Image.new("RGB", (5, 5), "lime").save(tmp_path / "a.png")
    with pytest.raises(NumericError, match=r"a\.png"):
        predict(_loaded(Broken()), gather_pictures(tmp_path))
    with pytest.raises(ConfigError, match="top is 0"):
        predict(_loaded(MostColour()), gather_pictures(tmp_path), top=0)
