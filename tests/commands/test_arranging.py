from __future__ import annotations

import json
from html import unescape
from pathlib import Path

import pytest
import torch
from PIL import Image

import vitreous
from vitreous.arrangement.effects import sentence
from vitreous.commands.arranging import Arrange
from vitreous.data.preprocess import Preprocess
from vitreous.errors import CheckpointError, ConfigError, OutputError
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer

pytest.importorskip("matplotlib")

COLOURS = ("blue", "green", "red")


def saved(folder: Path, classes: tuple[str, ...] = COLOURS, seed: int = 0, **changes: object) -> str:
    settings = {"width": 16, "depth": 2, "heads": 2, "classes": len(classes), "pooling": "mean"} | changes
    made = VisionTransformer(ViTConfig((16, 16), (4, 4), **settings), generator=torch.Generator().manual_seed(seed))
    torch.nn.init.normal_(made.head.weight, generator=torch.Generator().manual_seed(seed))
    vitreous.save(made, folder, preprocess=Preprocess((16, 16), "squash", 1.0), class_names=classes)
    return str(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Small ones of every kind, and one that knows other classes."""
    folder = tmp_path_factory.mktemp("models")
    cnn = {"depth": 0, "stem": (1, 1), "stem_width": 4, "stem_root": "small", "positions": "none", "class_token": False}
    return {
        "vit": saved(folder / "vit"),
        "donor": saved(folder / "donor", seed=1),
        "cnn": saved(folder / "cnn", **cnn),
        "other": saved(folder / "other", ("cat", "dog", "owl")),
    }


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy squares in three colours, 6 of each, a folder for each class."""
    folder = tmp_path_factory.mktemp("photos")
    noise = torch.Generator().manual_seed(0)
    for channel, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir()
        for n in range(6):
            pixels = torch.randint(0, 200, (16, 16, 3), generator=noise, dtype=torch.uint8)
            pixels[..., channel] += 50
            Image.fromarray(pixels.numpy()).save(folder / name / f"{n}.png")
    return folder


def test_it_writes_a_page_the_numbers_and_the_figures_and_says_the_sentence(
    models: dict[str, str], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, numbers, figures = tmp_path / "a" / "page.html", tmp_path / "n.json", tmp_path / "figures"
    both = (models["vit"], models["cnn"])
    Arrange(both, str(photos), page, numbers, figures, grids=(1, 2, 4), transplant=models["donor"]).run()
    printed = capsys.readouterr()
    found = json.loads(numbers.read_text("utf-8"))
    assert [model["kind"] for model in found["models"]] == ["ViT", "CNN"]
    assert found["images"] == 18 and found["has_labels"] and found["class_names"] == list(COLOURS)
    assert set(found["models"][0]["positions"]) == {"zeroed", "shuffled", "transplanted"}
    assert found["sentence"] in printed.out and f"report: {page}" in printed.out
    for effect in found["effects"]:
        assert any(effect["question"] in line and effect["of"] in line for line in printed.out.splitlines())
    assert found["sentence"].split(":")[0] in unescape(page.read_text("utf-8"))
    assert len(list(figures.glob("*.png"))) >= 5
    assert "%" in printed.err or "images" in printed.err  # the bar, on standard error


def test_the_functions_give_what_the_command_gives(models: dict[str, str], photos: Path, tmp_path: Path) -> None:
    numbers = tmp_path / "n.json"
    Arrange((models["vit"], models["cnn"]), str(photos), tmp_path / "page.html", numbers, grids=(1, 4)).run()
    loaded = [vitreous.load(models["vit"]), vitreous.load(models["cnn"])]
    found = vitreous.measure_arrangement(loaded, photos, grids=(1, 4))
    told, made = json.loads(numbers.read_text("utf-8")), json.loads(json.dumps(found.to_dict()))
    assert made["models"] == told["models"] and made["effects"] == told["effects"]
    assert sentence(found) == told["sentence"]
    assert vitreous.write_arrangement(found, tmp_path / "again.html").exists()


def test_images_without_labels_have_no_accuracy_and_it_is_said(
    models: dict[str, str], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = tmp_path / "n.json"
    Arrange((models["vit"],), str(photos / "red"), tmp_path / "page.html", numbers, grids=(1, 2)).run()
    found = json.loads(numbers.read_text("utf-8"))
    assert not found["has_labels"] and found["models"][0]["shuffled"]["2"]["accuracy"] is None
    assert "no labels" in capsys.readouterr().out


def test_mistakes_are_found_before_any_work(models: dict[str, str], photos: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    with pytest.raises(ConfigError, match="no model was named"):
        Arrange((), str(photos), page).run()
    with pytest.raises(CheckpointError, match="cat, dog, owl"):
        Arrange((models["vit"], models["other"]), str(photos), page).run()
    with pytest.raises(ConfigError, match="same file"):
        Arrange((models["vit"],), str(photos), page, json=page).run()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"page\.html"):
        Arrange((models["vit"],), str(photos), tmp_path / "file" / "page.html").run()
    assert not page.exists()
