from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vitreous.errors import ConfigError
from vitreous.training.config import Optim, TrainConfig
from vitreous.training.distributed import Ranks
from vitreous.training.loop import train
from vitreous.training.preparing import prepare


def test_classes_that_do_not_fit_are_refused(tiny_run: TrainConfig, photos: Path, tmp_path: Path) -> None:
    model = replace(tiny_run.model, classes=3)
    with pytest.raises(ConfigError, match=r"model\.classes is 3, but .* has 2 classes; set model\.classes to 2"):
        train(replace(tiny_run, model=model), tmp_path / "run", progress=False)
    (photos / "test" / "red").rename(photos / "test" / "rot")
    with pytest.raises(ConfigError, match="give both parts the same folders"):
        train(tiny_run, tmp_path / "run", progress=False)


def test_muon_with_shares_of_matrices_is_refused(tiny_run: TrainConfig, tmp_path: Path) -> None:
    config = replace(tiny_run, optimizer=Optim(name="muon"), parallel="fsdp")
    with pytest.raises(ConfigError, match="use parallel ddp"):
        prepare(config, tmp_path, Ranks(0, 2), progress=False)
