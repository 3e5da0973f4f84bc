from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from vitreous.errors import ConfigError, InputError
from vitreous.training.config import Optim, TrainConfig
from vitreous.training.distributed import Ranks
from vitreous.training.loop import train
from vitreous.training.preparing import prepare


def test_classes_that_do_not_fit_are_refused(tiny_run: TrainConfig, photos: Path, tmp_path: Path) -> None:
    model = replace(tiny_run.model, classes=3)
    with pytest.raises(ConfigError, match=r"model\.classes is 3, but .* has 2 classes; set model\.classes to 2"):
        train(replace(tiny_run, model=model), tmp_path / "run", progress=False)
    (photos / "test" / "red").rename(photos / "test" / "rot")
    words = r"only the training part has red; only the test part has rot\ngive both parts the same"
    with pytest.raises(InputError, match=words):
        train(tiny_run, tmp_path / "run", progress=False)
    shutil.rmtree(photos / "test" / "rot")
    with pytest.raises(InputError, match=r"photos: its parts have other classes: only the training part has red\n"):
        train(tiny_run, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_single_class_is_refused(tiny_run: TrainConfig, photos: Path, tmp_path: Path) -> None:
    for image in (photos / "train" / "red").iterdir():
        image.unlink()
    with pytest.raises(InputError, match=r"all images to train with are of one class, blue; .* add another") as caught:
        train(replace(tiny_run, allow_empty=True), tmp_path / "run", progress=False)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 3
    for part in ("train", "test"):
        (photos / part / "red").rename(photos / f"red-{part}")
    with pytest.raises(InputError, match="are of one class, blue"):  # and not that model.classes should be 1
        train(tiny_run, tmp_path / "run", progress=False)
    train(replace(tiny_run, task="masked-patches", epochs=1), tmp_path / "run", progress=False)


def test_classes_without_images_are_learned_without_where_they_are_allowed(
    tiny_run: TrainConfig, photos: Path, tmp_path: Path
) -> None:
    config = replace(tiny_run, model=replace(tiny_run.model, classes=3), epochs=1)
    for part in ("train", "test"):
        (photos / part / "green").mkdir()
    with pytest.raises(InputError, match="no image in this folder, but it names a class"):
        train(config, tmp_path / "run", progress=False)
    result = train(replace(config, allow_empty=True), tmp_path / "run", progress=False)
    assert result.evaluation is not None and result.evaluation.class_names == ("blue", "green", "red")
    assert result.evaluation.per_class.isnan().tolist() == [False, True, False]
    (tmp_path / "run" / "evaluation.json").unlink()  # as of an earlier version: tested again
    again = train(replace(config, allow_empty=True), tmp_path / "run", progress=False)
    assert again.was_there and again.evaluation is not None


def test_images_to_test_with_that_are_learned_from_are_told_once(
    tiny_run: TrainConfig, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for crop in ("none", "resized"):
        config = replace(tiny_run, augmentation=replace(tiny_run.augmentation, crop=crop))  # type: ignore[arg-type]
        prepare(config, tmp_path / "run", Ranks(), progress=True)
        assert "learned from, too" not in capsys.readouterr().err
        (photos / "test" / "red" / "0.png").write_bytes((photos / "train" / "blue" / "3.png").read_bytes())
        prepare(config, tmp_path / "run", Ranks(), progress=True)
        told = "test images that are learned from, too: 1 of 6, such as red/0.png, which is blue/3.png; take"
        assert told in capsys.readouterr().err
        prepare(config, tmp_path / "run", Ranks(), progress=False)
        (tmp_path / "run" / "states").mkdir(parents=True)
        (tmp_path / "run" / "states" / "step-000000001.safetensors").touch()
        prepare(config, tmp_path / "run", Ranks(), progress=True)
        assert "learned from, too" not in capsys.readouterr().err
        (tmp_path / "run" / "states" / "step-000000001.safetensors").unlink()
        (tmp_path / "run" / "states").rmdir()
        (photos / "test" / "red" / "0.png").write_bytes((photos / "test" / "red" / "1.png").read_bytes())


def test_muon_with_shares_of_matrices_is_refused(tiny_run: TrainConfig, tmp_path: Path) -> None:
    config = replace(tiny_run, optimizer=Optim(name="muon"), parallel="fsdp")
    with pytest.raises(ConfigError, match="use parallel ddp"):
        prepare(config, tmp_path, Ranks(0, 2), progress=False)
