from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch

from vitreous.checkpoints.folder import write_folder
from vitreous.checkpoints.from_timm import open_timm
from vitreous.data.preprocess import HALF_MEAN, HALF_STD, Preprocess
from vitreous.errors import CheckpointError, ConfigError
from vitreous.model.vit import VisionTransformer


def test_random_weights_are_the_same_every_time_and_the_callers_draws_go_on() -> None:
    before = torch.random.get_rng_state()
    first, second = open_timm("test_vit", random=True), open_timm("test_vit", random=True)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.file_hash == second.file_hash
    assert isinstance(first.model, timm.models.VisionTransformer) and not first.model.training
    assert (first.kind, first.name, first.class_names, first.notes) == ("timm", "test_vit", (), ())


def test_preprocessing_is_timms_own() -> None:
    opened = open_timm("vit_tiny_patch16_224", random=True)
    assert opened.preprocess == Preprocess((224, 224), "crop", 0.9, "bicubic", HALF_MEAN, HALF_STD)


def test_timms_own_sources_can_be_named(
    tmp_path: Path, make_model: Callable[..., VisionTransformer], images: torch.Tensor
) -> None:
    model = make_model()
    write_folder(model, tmp_path / "m", Preprocess((16, 16)), ["a", "b", "c", "d", "e"])
    opened = open_timm(f"local-dir:{tmp_path / 'm'}", random=False)
    torch.testing.assert_close(opened.model(images), model(images), atol=1e-5, rtol=0)


def test_an_unknown_name_is_refused_with_near_ones() -> None:
    with pytest.raises(ConfigError, match="did you mean vit_tiny_patch16_224"):
        open_timm("vit_tny_patch16_224", random=True)
    with pytest.raises(ConfigError, match=r"timm.list_models\(\) lists all"):
        open_timm("zzz", random=True)


def test_an_unknown_tag_is_refused() -> None:
    with pytest.raises(CheckpointError, match="Invalid pretrained tag"):
        open_timm("vit_tiny_patch16_224.nothing", random=False)


def test_weights_that_cannot_be_fetched_say_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="cannot be fetched") as refusal:
        open_timm("vit_tiny_patch16_224", random=False)
    assert "HF_HOME" in str(refusal.value) and "vit_tiny_patch16_224@random" in str(refusal.value)
    assert len(str(refusal.value).splitlines()) <= 3


def test_pretrained_models_get_the_names_of_their_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def without_weights(name: str, pretrained: bool) -> torch.nn.Module:
        return create(name, pretrained=False)

    monkeypatch.setattr(timm, "create_model", without_weights)
    names = open_timm("vit_tiny_patch16_224.augreg_in21k_ft_in1k", random=False).class_names
    assert len(names) == 1000 and names[0].startswith("tench")
