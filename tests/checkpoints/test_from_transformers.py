from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor

from vitreous.checkpoints.from_transformers import open_transformers
from vitreous.data.preprocess import HALF_MEAN, HALF_STD, Preprocess
from vitreous.errors import CheckpointError

SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 32,
    "image_size": 16,
    "patch_size": 4,
}


@pytest.fixture
def classifier(tmp_path: Path) -> tuple[Path, torch.nn.Module]:
    torch.manual_seed(0)
    config = transformers.ViTConfig(**SIZES, id2label={0: "cat", 1: "dog", 2: "owl"})
    model = transformers.ViTForImageClassification(config).eval()
    folder = tmp_path / "animals"
    model.save_pretrained(folder)
    described = {"size": {"height": 16, "width": 16}, "resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(described))
    return folder, model


@torch.no_grad()
def test_a_classifier_comes_with_names_and_preprocessing(
    classifier: tuple[Path, torch.nn.Module], images: Tensor
) -> None:
    folder, model = classifier
    opened = open_transformers(str(folder), random=False)
    assert torch.equal(opened.model(images).logits, model(images).logits)
    assert (opened.class_names, opened.notes, opened.name) == (("cat", "dog", "owl"), (), "animals")
    assert opened.preprocess == Preprocess((16, 16), "squash", 1.0, "bilinear", HALF_MEAN, HALF_STD)
    assert not opened.model.training


@torch.no_grad()
def test_of_a_two_tower_model_the_vision_tower_is_opened(
    tmp_path: Path, images: Tensor, capfd: pytest.CaptureFixture[str]
) -> None:
    text = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 32,
            "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}  # fmt: skip
    config = transformers.CLIPConfig(vision_config=SIZES, text_config=text, projection_dim=8)
    model = transformers.CLIPModel(config).eval()
    model.save_pretrained(tmp_path / "clip")
    capfd.readouterr()
    opened = open_transformers(str(tmp_path / "clip"), random=False)
    assert type(opened.model).__name__ == "CLIPVisionModel"
    expected = model.vision_model(images).last_hidden_state
    assert torch.equal(opened.model(images).last_hidden_state, expected)
    decisions = {d["setting"]: d["value"] for d in opened.model.__dict__["provenance"]["decisions"]}
    assert "logit_scale" in decisions["weights left out"]
    assert opened.notes == ("preprocess: ImageNet's statistics, because there is no preprocessor_config.json",)
    assert capfd.readouterr().err == ""


def test_weights_that_stay_random_are_noted(classifier: tuple[Path, torch.nn.Module]) -> None:
    folder, _ = classifier
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"architectures": ["ViTModel"]}))
    opened = open_transformers(str(folder), random=False)
    assert opened.notes == (
        "random weights: pooler.dense.bias, pooler.dense.weight (because the file does not have them)",
    )
    assert opened.file_hash == open_transformers(str(folder), random=False).file_hash


@pytest.mark.parametrize("architecture", ["ViTForImageClassification", "ViTModel"])
def test_random_weights_need_the_config_only(classifier: tuple[Path, torch.nn.Module], architecture: str) -> None:
    folder, _ = classifier
    (folder / "model.safetensors").unlink()
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"architectures": [architecture]}))
    before = torch.random.get_rng_state()
    first = open_transformers(str(folder), random=True)
    assert first.file_hash == open_transformers(str(folder), random=True).file_hash
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (type(first.model).__name__, first.class_names) == (architecture, ())


def test_the_verbosity_of_transformers_is_left_as_it_was(classifier: tuple[Path, torch.nn.Module]) -> None:
    logging = transformers.logging
    before = (logging.get_verbosity(), logging.is_progress_bar_enabled())
    open_transformers(str(classifier[0]), random=False)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_a_model_that_cannot_be_fetched_says_what_to_do() -> None:
    with pytest.raises(CheckpointError, match="HF_HOME") as refusal:
        open_transformers("vitreous-tests/not-there", random=False)
    assert len(str(refusal.value).splitlines()) <= 3


def test_damaged_files_and_pickles_are_refused(classifier: tuple[Path, torch.nn.Module]) -> None:
    folder, model = classifier
    whole = (folder / "model.safetensors").read_bytes()
    for content in (b"garbage" * 9, whole[: len(whole) // 2]):
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(CheckpointError, match="cannot be opened by transformers"):
            open_transformers(str(folder), random=False)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"no file named model.safetensors"):
        open_transformers(str(folder), random=False)


@pytest.mark.parametrize("content", ["[1]", "{"])
def test_a_damaged_preprocessor_is_refused(classifier: tuple[Path, torch.nn.Module], content: str) -> None:
    (classifier[0] / "preprocessor_config.json").write_text(content)
    with pytest.raises(CheckpointError, match="cannot be opened"):
        open_transformers(str(classifier[0]), random=False)
