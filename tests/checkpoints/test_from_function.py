from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vitreous.checkpoints.from_function import open_function
from vitreous.data.preprocess import Preprocess
from vitreous.errors import ConfigError
from vitreous.model.vit import VisionTransformer

CODE = """
import torch
from vitreous.data.preprocess import Preprocess
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer

def linear():
    return torch.nn.Linear(3, 2).train()

def prepared():
    return torch.nn.Linear(3, 2)

prepared.preprocess = Preprocess(image_size=(8, 8))
prepared.class_names = ["cat", "dog"]

class Net(torch.nn.Linear):
    preprocess = Preprocess(image_size=(4, 4))

    @classmethod
    def make(cls):
        return cls(3, 2)

def ours():
    return VisionTransformer(ViTConfig(image_size=(8, 8), patch_size=(4, 4), width=6, depth=1, heads=2))

def number():
    return 3
"""


@pytest.fixture(autouse=True)
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mycode_of_tests.py").write_text(CODE)
    (tmp_path / "needy_of_tests.py").write_text("import nopackage")
    monkeypatch.chdir(tmp_path)
    for name in ("mycode_of_tests", "needy_of_tests"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_a_function_in_the_current_folder_is_called() -> None:
    path = list(sys.path)
    opened = open_function("mycode_of_tests", "linear")
    assert type(opened.model).__name__ == "Linear" and not opened.model.training
    assert (opened.kind, opened.name) == ("function", "mycode_of_tests:linear")
    assert opened.file_hash == open_function("mycode_of_tests", "linear").file_hash
    assert sys.path == path


def test_unknown_preprocessing_is_a_guess_and_says_so() -> None:
    opened = open_function("mycode_of_tests", "linear")
    assert opened.preprocess == Preprocess()
    assert len(opened.notes) == 1 and "has an attribute `preprocess`" in opened.notes[0]


def test_our_own_model_tells_its_size() -> None:
    opened = open_function("mycode_of_tests", "ours")
    assert isinstance(opened.model, VisionTransformer)
    assert opened.preprocess == Preprocess(image_size=(8, 8))
    assert "image size from the model's config" in opened.notes[0]


def test_preprocessing_and_names_of_the_function_or_the_model_are_used() -> None:
    opened = open_function("mycode_of_tests", "prepared")
    assert (opened.preprocess.image_size, opened.class_names, opened.notes) == ((8, 8), ("cat", "dog"), ())
    opened = open_function("mycode_of_tests", "Net.make")
    assert (opened.preprocess.image_size, opened.notes) == ((4, 4), ())


@pytest.mark.parametrize(
    ("module", "name", "message"),
    [
        ("nomodule_of_tests", "f", "no module 'nomodule_of_tests'"),
        ("mycode_of_tests.sub", "f", "no module 'mycode_of_tests.sub'"),
        ("mycode_of_tests", "nothing", "has no 'nothing'"),
        ("mycode_of_tests", "CODE", "has no 'CODE'"),
        ("mycode_of_tests", "__doc__", "is a NoneType; name a function"),
        ("mycode_of_tests", "number", "returned a int"),
    ],
)
def test_what_is_no_function_that_returns_a_model_is_refused(module: str, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_function(module, name)


def test_a_users_own_error_is_not_hidden() -> None:
    with pytest.raises(ModuleNotFoundError, match="nopackage"):
        open_function("needy_of_tests", "f")
