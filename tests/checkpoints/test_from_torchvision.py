from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models

from vitreous.checkpoints.from_torchvision import open_torchvision
from vitreous.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from vitreous.data.transforms import to_tensor
from vitreous.errors import CheckpointError, ConfigError


def test_random_weights_are_the_same_every_time() -> None:
    first, second = open_torchvision("squeezenet1_1", random=True), open_torchvision("squeezenet1_1", random=True)
    assert first.file_hash == second.file_hash
    assert isinstance(first.model, models.SqueezeNet) and not first.model.training
    assert (first.kind, first.class_names, first.notes) == ("torchvision", (), ())


def test_preprocessing_is_that_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "get_model", lambda name, weights=None: torch.nn.Identity())
    opened = open_torchvision("vit_b_16", random=False)
    assert opened.preprocess == Preprocess((224, 224), "crop", 224 / 256, "bilinear", IMAGENET_MEAN, IMAGENET_STD)
    assert len(opened.class_names) == 1000 and opened.class_names[0] == "tench"


@pytest.mark.parametrize("name", ["vit_b_16", "vit_l_16", "vit_h_14", "squeezenet1_1", "convnext_tiny", "swin_v2_s"])
def test_pictures_are_prepared_as_torchvision_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "get_model", lambda name, weights=None: torch.nn.Identity())
    preprocess = open_torchvision(name, random=False).preprocess
    theirs = models.get_model_weights(name).DEFAULT.transforms()
    for size in [(300, 241), (241, 300), (90, 90), (3, 100), (1, 1)]:
        values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        image = Image.fromarray(values)
        assert torch.equal(to_tensor(image, preprocess), theirs(image)), size


def test_an_unknown_name_is_refused_with_near_ones() -> None:
    with pytest.raises(ConfigError, match="did you mean vit_b_16"):
        open_torchvision("vit_b16", random=True)
    with pytest.raises(ConfigError, match="did you mean vit_b_16"):
        open_torchvision("zzzzzz", random=True)


def test_weights_that_cannot_be_fetched_say_which_and_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    monkeypatch.setattr("torch.hub.urlopen", no_network)
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"put https://download.pytorch.org/models/squeezenet1_1-.*pth into"):
        open_torchvision("squeezenet1_1", random=False)
