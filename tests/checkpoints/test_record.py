"""What vitreous puts beside weights in other formats, and what becomes of it when somebody changes it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitreous.checkpoints.saving import save
from vitreous.checkpoints.sources import load, open_model
from vitreous.data.preprocess import HALF_MEAN, HALF_STD, Preprocess
from vitreous.errors import CheckpointError
from vitreous.model.vit import VisionTransformer

MakeModel = Callable[..., VisionTransformer]
PREPROCESS = Preprocess((16, 16), "squash", 1.0, "bilinear", HALF_MEAN, HALF_STD)


@pytest.fixture
def file(tmp_path: Path, make_model: MakeModel) -> Path:
    save(make_model(activation="gelu-tanh"), tmp_path / "w.npz", to="google", preprocess=PREPROCESS)
    return tmp_path / "w.npz"


def rewrite(file: Path, comment: bytes) -> None:
    with zipfile.ZipFile(file, "a") as archive:
        archive.comment = comment


def test_without_the_record_googles_usual_settings_are_guessed(file: Path) -> None:
    assert open_model(file).preprocess == PREPROCESS
    rewrite(file, b"")
    opened = open_model(file)
    assert (opened.preprocess.resampler == "tensorflow" and opened.notes != ()) or opened.preprocess != PREPROCESS


@pytest.mark.parametrize("comment", [b'{"vitreous": 3}', b'{"other": {}}', b'{"vitreous": {}, "vitreous": {}}', b"{]"])
def test_somebody_elses_comment_is_not_minded(file: Path, comment: bytes) -> None:
    rewrite(file, comment)
    assert isinstance(load(file), VisionTransformer)


@pytest.mark.parametrize(
    "changes",
    [
        {"preprocess": 3},
        {"preprocess": []},
        {"preprocess": {"mean": 3}},
        {"preprocess": {"magic": 3}},
        {"class_names": 3},
        {"class_names": ["one"]},
        {"settings": {"image_size": "x"}},
        {"settings": {"image_size": [16]}},
        {"settings": {"image_size": [30, 30]}},
        {"settings": {"image_size": [64, 64]}},
        {"settings": {"dropout": "x"}},
        {"settings": {"dropout": 2}},
        {"settings": {"resampling": ["timm"]}},
    ],
    ids=str,
)
def test_a_record_that_cannot_be_is_refused_in_three_lines(file: Path, changes: dict[str, Any]) -> None:
    with zipfile.ZipFile(file) as archive:
        record = json.loads(archive.comment)
    rewrite(file, json.dumps({"vitreous": record["vitreous"] | changes}).encode())
    with pytest.raises(CheckpointError, match=r"w.npz") as refusal:
        load(file)
    assert len(str(refusal.value).splitlines()) <= 3


@pytest.mark.parametrize(
    "changes", [{"settings": 3}, {"settings": {"depth": 99}}, {"provenance": 3}, {"other": 3}], ids=str
)
def test_what_has_no_meaning_there_is_not_minded(file: Path, changes: dict[str, Any]) -> None:
    with zipfile.ZipFile(file) as archive:
        record = json.loads(archive.comment)
    rewrite(file, json.dumps({"vitreous": record["vitreous"] | changes}).encode())
    assert load(file).__dict__["config"].depth == 2
