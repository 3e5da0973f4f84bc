from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from vitreous.errors import ConfigError
from vitreous.model.config import ViTConfig
from vitreous.training.config import Optim, TrainConfig
from vitreous.training.recipes import PRESETS
from vitreous.training.settings_file import choices, from_yaml, plain, read_config, to_yaml


@pytest.mark.parametrize("config", [TrainConfig(), *(recipe() for recipe in PRESETS.values())])
def test_a_config_comes_back_as_it_was(config: TrainConfig) -> None:
    assert from_yaml(to_yaml(config)) == config


def test_none_and_other_scripts_come_back_too() -> None:
    config = replace(TrainConfig(), data="Фото/猫", optimizer=Optim(clip=None))
    assert from_yaml(to_yaml(config)) == config


def test_every_setting_is_in_the_file() -> None:
    assert yaml.safe_load(to_yaml(TrainConfig())) == plain(TrainConfig())


def test_settings_left_out_keep_their_defaults() -> None:
    assert from_yaml("") == TrainConfig()
    config = from_yaml("epochs: 3\noptimizer: {name: sgd}\nmodel: {classes: 10, depth: 2}")
    assert config == replace(TrainConfig(), epochs=3, optimizer=Optim(name="sgd"), model=ViTConfig(classes=10, depth=2))


def test_numbers_that_yaml_takes_for_text_are_numbers() -> None:
    assert yaml.safe_load("1e-3") == "1e-3"  # the surprise
    assert from_yaml("optimizer: {learning_rate: 1e-3}").optimizer.learning_rate == 1e-3
    assert from_yaml("optimizer: {clip: 1}").optimizer.clip == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "unknown setting epoch; did you mean epochs?"),
        ("optimizer: {learning_rat: 1}", "unknown setting optimizer.learning_rat; did you mean optimizer.learn"),
        ("model: {dept: 1}", "unknown setting model.dept; did you mean model.depth?"),
        ("zebra: 3", "unknown setting zebra; there are data, start, model"),
        ("3: 3", "unknown setting 3;"),
        ("epochs: many", "epochs is 'many'; expected a whole number"),
        ("epochs: 3.5", "epochs is 3.5; expected a whole number"),
        ("epochs: true", "epochs is True; expected a whole number"),
        ("data: 7", "data is 7; expected text"),
        ("augmentation: {flip: 1}", "augmentation.flip is 1; expected true or false"),
        ("augmentation: {shift: far}", "augmentation.shift is 'far'; expected a number"),
        (
            "optimizer: {name: adams}",
            "optimizer.name is 'adams'; choose one of adamw, adam, sgd, muon; did you mean adam?",
        ),
        ("keep: {model_every: 2}", "unknown setting keep.model_every; did you mean keep.models_every?"),
        ("steps: [1]", "steps is [1]; expected"),
        ("optimizer: {name: [1]}", "optimizer.name is [1]; choose one of"),
        ("optimizer: {betas: [0.9]}", "optimizer.betas is [0.9]; expected a list of 2"),
        ("optimizer: {betas: 0.9}", "optimizer.betas is 0.9; expected a list of 2"),
        ("model: {image_size: [32, x]}", "model.image_size[1] is 'x'; expected a whole number"),
        ("model: 7", "model is 7; expected settings"),
        ("[1, 2]", "the file is [1, 2]; expected settings"),
        ("model: {width: 10, heads: 3}", "model: width"),
        ("optimizer: {momentum: 2}", "optimizer.momentum is 2.0"),
        ("epochs: 0", "epochs is 0"),
        ("a: [", "is not YAML"),
        ("seed: 1\nepochs: 2\nseed: 2", "line 3 sets 'seed' a second time"),
        ("model:\n  width: 8\n  width: 16", "line 3 sets 'width' a second time"),
        ("model: {width: 8, width: 8}", "line 1 sets 'width' a second time"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_a_wrong_setting_is_named_with_its_path(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_yaml(text, "run.yaml")
    assert str(caught.value).startswith("run.yaml: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_is_read_and_a_missing_or_binary_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(to_yaml(TrainConfig()))
    assert read_config(tmp_path / "run.yaml") == TrainConfig()
    (tmp_path / "image.yaml").write_bytes(b"\xff\xd8\xff")
    for name in ("missing.yaml", "image.yaml"):
        with pytest.raises(ConfigError, match=f"{name}: cannot be read"):
            read_config(tmp_path / name)


@pytest.mark.parametrize("stem", [None, (), (1,), (1, 2), (3, 4, 9)])
def test_a_list_of_any_length_comes_back_as_it_was(stem: tuple[int, ...] | None) -> None:
    config = TrainConfig(model=ViTConfig(patch_size=(32, 32), classes=10, stem=stem))
    assert from_yaml(to_yaml(config)) == config
    with pytest.raises(ConfigError, match=r"model.stem\[1\] is 'x'; expected a whole number"):
        from_yaml("model: {stem: [1, x]}")
    with pytest.raises(ConfigError, match=r"model.stem is 3; expected a list"):
        from_yaml("model: {stem: 3}")


def test_the_words_that_a_setting_may_be_are_known_by_its_path() -> None:
    known = choices()
    assert known["optimizer.name"] == ("adamw", "adam", "sgd", "muon")
    assert known["task"] == ("classes", "masked-patches") and "rope" in known["model.positions"]
    assert "seed" not in known and all(len(words) > 1 for words in known.values())
