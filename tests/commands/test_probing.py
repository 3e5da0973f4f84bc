from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression

import vitreous
from vitreous.checkpoints.sources import open_model
from vitreous.commands.probing import Probe
from vitreous.data.datasets import open_dataset
from vitreous.data.preprocess import Preprocess
from vitreous.errors import CheckpointError, ConfigError, InputError, OutputError
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer
from vitreous.training.features import layer_features

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    config = ViTConfig((8, 8), (4, 4), width=16, depth=2, heads=2, classes=3, pooling="mean")
    made = VisionTransformer(config, generator=torch.Generator().manual_seed(0))
    vitreous.save(made, folder, preprocess=Preprocess((8, 8), "squash", 1.0))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy squares in three colours: 36 to learn from, 24 to test."""
    folder = tmp_path_factory.mktemp("photos")
    noise = torch.Generator().manual_seed(0)
    for part, count in (("train", 12), ("test", 8)):
        for channel, name in enumerate(("red", "green", "blue")):
            place = folder / part / name
            place.mkdir(parents=True)
            for n in range(count):
                pixels = torch.randint(0, 200, (8, 8, 3), generator=noise, dtype=torch.uint8)
                pixels[..., channel] += 50
                Image.fromarray(pixels.numpy()).save(place / f"{n}.png")
    return folder


def printed(probe: Probe, capsys: pytest.CaptureFixture[str]) -> str:
    probe.run()
    captured = capsys.readouterr()
    assert "features of" in captured.err and "features of" not in captured.out
    return captured.out


def test_few_shot_prints_a_line_a_layer_and_a_column_a_number_of_shots(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = tmp_path / "probe.pdf"
    lines = printed(Probe(str(model), str(photos), workers=0, figure=figure), capsys).splitlines()
    assert lines[0].endswith("3 classes, 36 training and 24 test images")
    assert lines[1].startswith("accuracy in %, least squares") and "over 3 draws; chance is 33.3" in lines[1]
    assert lines[3].split("  ")[-1].strip() == "10 shots"  # no class has 25
    names = [line[:10].strip() for line in lines[4:8]]
    assert names == ["embedding", "layer 0", "layer 1", "read-out"]
    assert "±" in lines[4]
    assert lines[8:] == ["25 shots are left out: no class has so many training images", f"figure: {figure}"]
    assert figure.read_bytes().startswith(b"%PDF")
    assert max(map(len, lines[:8])) <= 120


def test_linear_gives_the_accuracy_of_a_logistic_regression(
    model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads(printed(Probe(str(model), str(photos), how="linear", workers=0, json=True), capsys))
    assert (found["how"], found["classes"], found["train_images"], found["test_images"]) == ("linear", 3, 36, 24)
    loaded = open_model(model)
    learned, tested = (layer_features(loaded, open_dataset(photos, part), workers=0) for part in ("train", "test"))
    for name, values, asked in zip(learned.layers, learned.values, tested.values, strict=True):
        mean, deviation = values.double().mean(0), values.double().std(0, correction=0) + 1e-5
        theirs = LogisticRegression(C=1 / (36 * found["l2"][name]), max_iter=1000, tol=1e-6)
        theirs.fit(((values - mean) / deviation).numpy(), learned.labels.numpy())
        right = (theirs.predict(((asked - mean) / deviation).numpy()) == tested.labels.numpy()).mean()
        assert abs(found["accuracy"][name] - right) <= 1 / 24  # an image on the border may fall to either side
    assert found["accuracy"]["embedding"] > 0.6


def test_k_nn_leaves_out_what_there_are_no_images_for(
    model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(Probe(str(model), str(photos), how="k-nn", workers=0), capsys)
    lines = text.splitlines()
    assert lines[3].split() == ["k", "=", "10", "k", "=", "20"]
    assert lines[-1] == "200 neighbours are left out: there are only 36 training images"
    assert np.isfinite([float(cell) for cell in lines[4].split()[1:]]).all()


def test_most_takes_images_evenly_spaced(model: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    probe = Probe(str(model), str(photos), how="k-nn", most=15, workers=0, json=True)
    found = json.loads(printed(probe, capsys))
    assert (found["train_images"], found["test_images"]) == (15, 15)
    assert probe._spread(open_dataset(photos, "test")).tolist() == [n * 24 // 15 for n in range(15)]


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"most": 0}, ConfigError, "most"),
        ({"figure": Path("probe.txt")}, ConfigError, "probe.txt is no name for a figure"),
        ({"figure": Path("/dev/null/probe.png")}, OutputError, "cannot be written"),
        ({"data": "nowhere"}, InputError, "nowhere"),
        ({"model": "timm:vit_tiny_patch16_224@random"}, CheckpointError, "vitreous convert"),
    ],
)
def test_what_cannot_be_is_refused(
    model: Path, photos: Path, settings: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Probe(**({"model": str(model), "data": str(photos), "workers": 0} | settings)).run()


def test_parts_with_other_classes_are_refused(model: Path, tmp_path: Path) -> None:
    for part, name in (("train", "a"), ("train", "b"), ("test", "a"), ("test", "c")):
        (tmp_path / part / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / part / name / "0.png")
    with pytest.raises(InputError, match="only the training part has b; only the test part has c\n"):
        Probe(str(model), str(tmp_path), workers=0).run()


def test_k_nn_of_a_few_training_images_asks_the_nearest_one(
    model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(Probe(str(model), str(photos), how="k-nn", most=6, workers=0), capsys).splitlines()
    assert lines[3].split() == ["k", "=", "1"]
    assert lines[-4] == "10 neighbours are left out: there are only 6 training images"
