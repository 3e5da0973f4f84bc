"""The models that come with the package: they open offline, are small, and do what their cards say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from vitreous.checkpoints.sources import open_model
from vitreous.checkpoints.words import BUNDLED, bundled, bundled_names, is_model
from vitreous.data.datasets import open_dataset
from vitreous.data.gather import gather_pictures
from vitreous.training.predict import predict

CIFAR = Path(__file__).parents[3] / "shared" / "data" / "cifar10"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def test_the_small_vit_is_among_them() -> None:
    assert "cifar10-ti4" in bundled_names()


@pytest.mark.parametrize("name", bundled_names())
def test_a_bundled_model_is_small_and_opens_by_its_name(name: str) -> None:
    weights = BUNDLED / name / "model.safetensors"
    assert weights.stat().st_size <= 12_000_000
    opened = open_model(name)
    assert opened.class_names == CLASSES and opened.preprocess.image_size == (32, 32)
    assert all(weight.dtype == torch.float32 for weight in opened.model.parameters())
    assert is_model(name) and opened.model.config.parameters <= 6_000_000


def test_a_file_of_its_name_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert bundled("cifar10-ti4") is not None
    (tmp_path / "cifar10-ti4").mkdir()
    assert bundled("cifar10-ti4") is None


@pytest.mark.parametrize("name", bundled_names())
@pytest.mark.skipif(not CIFAR.is_dir(), reason="needs CIFAR-10 in ../shared/data")
def test_a_bundled_model_is_as_good_as_its_card_says(name: str) -> None:
    card = (BUNDLED / name / "README.md").read_text("utf-8")
    (told,) = re.findall(r"\*\*([\d.]+)%\*\* of the 10,000 test images", card)
    images, chosen = open_dataset(CIFAR), range(0, 10_000, 10)
    found = predict(open_model(name), gather_pictures([str(CIFAR)]).chosen(chosen), top=1)
    right = sum(one.classes[0][0] == images.class_names[images.labels[n]] for n, one in zip(chosen, found, strict=True))
    assert abs(right / 1000 - float(told) / 100) < 0.05  # four standard deviations of a share among 1,000
