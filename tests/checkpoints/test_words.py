from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vitreous.checkpoints import sources
from vitreous.checkpoints.words import (
    LIBRARIES,
    checkpoints_of,
    epoch_of,
    is_model,
    model_folder,
    split_models,
    weights_in,
)
from vitreous.errors import ConfigError, InputError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place with models, a run and images, with no content but names."""
    for name in (
        "ours/config.json", "ours/model.safetensors", "weights/model.safetensors", "half/config.json",
        "both/config.json", "both/photo.png", "photos/1.png", "photos/deep/2.png", "loose.safetensors", "cat.png",
        "a:b", "data.parquet", "run/model/config.json", "run/config.yaml", "run/checkpoints/epoch-0000/config.json",
        "run/checkpoints/epoch-0010/config.json", "run/checkpoints/epoch-0002/config.json",
        "run/checkpoints/epoch-12000/config.json", "run/checkpoints/epoch-0007/half.tmp",
        "run/checkpoints/epoch-last/config.json", "digits/notes.txt", "parts/model.safetensors.index.json",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "word",
    [
        "timm:vit_tiny_patch16_224", "timm:", "hf:google/vit", "hf:ours", "torchvision:vit_b_16@random",
        "package.module:function", "module:function", "ours", "./ours/", "weights", "half", "both", "run",
        "run/checkpoints", "run/checkpoints/epoch-0010", "loose.safetensors", "not-there.safetensors",
        "ViT-B_16.npz", "dino.pth", "pytorch_model.bin", "step.ckpt", "clip.pt", "parts",
    ],
)  # fmt: skip
def test_these_words_are_models(here: Path, word: str) -> None:
    assert is_model(word)


@pytest.mark.parametrize(
    "word",
    [
        "photos", "cat.png", "digits", "data.parquet", "not-there", "not/there.png", "a:b", "C:\\photos", "", ".",
        "timm", "two words:function", "https://example.org/cat.png", "1:2",
    ],
)  # fmt: skip
def test_these_words_are_images(here: Path, word: str) -> None:
    assert not is_model(word)


@pytest.mark.parametrize(
    ("words", "models"),
    [
        ("ours cat.png", 1),
        ("photos cat.png", 1),  # the first is always a model; opening it says what is wrong
        ("ours photos cat.png", 1),
        ("ours weights digits", 2),
        ("timm:a timm:b hf:c package.module:function ours run photos cat.png", 6),
        ("ours both cat.png", 2),
        ("not-there digits", 1),
        ("ours ours cat.png", 2),
    ],
)
def test_models_come_first_then_images(here: Path, words: str, models: int) -> None:
    split = words.split()
    assert split_models(split) == (split[:models], split[models:])


def test_a_runs_checkpoints_are_all_its_whole_models_by_epoch(here: Path) -> None:
    kept = [f"run/checkpoints/epoch-{epoch}" for epoch in ("0000", "0002", "0010", "12000")]
    assert [str(path) for path in checkpoints_of(Path("run/checkpoints"))] == kept
    assert split_models(["run/checkpoints", "digits"]) == (kept, ["digits"])
    assert split_models(["ours", "run/checkpoints", "digits"]) == (["ours", *kept], ["digits"])
    assert checkpoints_of(Path("run")) == checkpoints_of(Path("not-there")) == []


def test_a_run_is_its_final_model(here: Path) -> None:
    assert model_folder(Path("run")) == Path("run/model")
    assert model_folder(Path("ours")) == Path("ours")
    assert model_folder(Path("photos")) == Path("photos")


def test_an_epoch_is_told_by_the_name_alone() -> None:
    assert [epoch_of(name) for name in ("epoch-0000", "epoch-12000", "epoch-", "epoch-1a", "x")] == [
        0, 12000, None, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize("words", [["ours"], ["ours", "weights"], ["ours", "both"], []])
def test_without_an_image_there_is_nothing_to_do(here: Path, words: list[str]) -> None:
    with pytest.raises(ConfigError, match="no image was named"):
        split_models(words)


def test_a_model_behind_an_image_is_refused(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"timm:b is a model, but stands behind the image cat\.png"):
        split_models(["ours", "cat.png", "timm:b"])


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["model.safetensors", "pytorch_model.bin", "other.safetensors"], "model.safetensors"),
        (["pytorch_model.bin", "a.safetensors"], "a.safetensors"),
        (["x.pth", "optimizer.pt", "training_args.bin", "photo.png"], "x.pth"),
        (
            ["model-1.safetensors", "model-2.safetensors", "model.safetensors.index.json"],
            "model.safetensors.index.json",
        ),
        (["ViT-B_16.npz", "x.pth"], "ViT-B_16.npz"),
    ],
)
def test_a_folders_weights_are_its_safest_file(tmp_path: Path, files: list[str], chosen: str) -> None:
    for name in files:
        (tmp_path / name).touch()
    assert weights_in(tmp_path).name == chosen


def test_several_weights_files_are_not_chosen_among(tmp_path: Path) -> None:
    (tmp_path / "a.pth").touch()
    (tmp_path / "b.pth").touch()
    with pytest.raises(InputError, match=r"2 weights files: a.pth, b.pth; name the one that you mean"):
        weights_in(tmp_path)
    with pytest.raises(InputError, match=r"model.safetensors does not exist"):
        weights_in(tmp_path.parent)


def test_every_library_that_is_opened_is_known() -> None:
    assert tuple(sources._LIBRARIES) == LIBRARIES


def test_torch_is_not_loaded() -> None:
    script = "import sys, vitreous.checkpoints.words; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def test_a_run_that_is_not_finished_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("epochs: 3")
    with pytest.raises(InputError, match="a training run that is not finished; give its command again"):
        weights_in(tmp_path)
