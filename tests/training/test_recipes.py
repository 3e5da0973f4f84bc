from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import vitreous
from vitreous.training.config import TrainConfig
from vitreous.training.loop import train
from vitreous.training.recipes import PRESETS

IN_FULL_ELSEWHERE = ["imagenet1k-s16", "imagenet1k-b16", "finetune"]


def test_every_recipe_is_a_config_and_says_what_it_reached_or_that_it_was_not_run() -> None:
    for name, recipe in PRESETS.items():
        assert isinstance(recipe(), TrainConfig)
        told = " ".join((recipe.__doc__ or "").split())
        assert f"vitreous train --preset {name}" in told, name
        if name in IN_FULL_ELSEWHERE:
            assert "Not run in full here, and so it has no accuracy of ours" in told, name
            assert "Source:" in told, name
        else:
            for words in (("seconds", "minutes"), ("core", "GPU"), ("%",), ("seed",)):
                assert any(word in told for word in words), (name, words)


def test_imagenets_recipes_have_the_published_sizes_and_schedules() -> None:
    small, base = PRESETS["imagenet1k-s16"](), PRESETS["imagenet1k-b16"]()
    fixed_positions, hidden_head = 14 * 14 * 384, 384 * 384 + 384
    assert small.model.parameters == 22_049_896 - fixed_positions + hidden_head  # of S/16 with mean pooling
    assert base.model.parameters == 86_567_656
    assert small.optimizer.learning_rate * small.optimizer.weight_decay == pytest.approx(1e-4)  # big_vision's decay
    assert base.optimizer.learning_rate == pytest.approx(5e-4 * base.batch_size / 512)
    assert base.optimizer.warmup / (1_281_167 / base.batch_size) == pytest.approx(5, abs=0.01)  # epochs


def test_magnitudes_of_other_libraries_turn_an_image_as_far_here() -> None:
    theirs = {"imagenet1k-s16": 10, "imagenet1k-b16": 9}  # of 10, which is a turn of 30 degrees
    for name, magnitude in theirs.items():
        assert PRESETS[name]().augmentation.policy_magnitude / 30 == magnitude / 10


def test_finetuning_is_that_of_the_papers_code() -> None:
    config = PRESETS["finetune"]()
    assert (config.model.image_size, config.steps, config.batch_size, config.accumulate) == ((384, 384), 10_000, 512, 8)
    assert config.model.parameters == 86_859_496 - 990 * 769  # B/16 at 384 pixels with ten classes, not 1000
    optimizer = config.optimizer
    assert (optimizer.name, optimizer.momentum, optimizer.momentum_precision) == ("sgd", 0.9, "bfloat16")
    assert (optimizer.weight_decay, optimizer.clip, optimizer.schedule, optimizer.warmup) == (0, 1.0, "cosine", 500)


@pytest.mark.parametrize("name", IN_FULL_ELSEWHERE)
def test_twenty_steps_on_synthetic_images_show_that_a_recipe_starts(name: str, tmp_path: Path) -> None:
    """Of less that takes time: one block, small images, small batches. With all twelve blocks it takes minutes."""
    recipe, size = PRESETS[name](), (32, 32)
    config = replace(
        recipe,
        data="synthetic:160x4x32",
        model=replace(recipe.model, image_size=size, classes=4, depth=1),
        preprocess=replace(recipe.preprocess, image_size=size),
        optimizer=replace(recipe.optimizer, warmup=5),
        steps=20,
        batch_size=8,
        accumulate=min(recipe.accumulate, 2),
        workers=0,
    )
    result = train(config, tmp_path / "run", progress=False)
    assert result.steps == 20
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["step"] == 20
    assert 0 < metrics[-1]["train_loss_nats"] < 5
    assert vitreous.load(tmp_path / "run" / "model").config == config.model


@pytest.mark.slow
def test_digits_reach_98_percent(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    result = train(PRESETS["digits"](), tmp_path / "run", progress=False)
    assert result.evaluation.images == 360
    assert result.evaluation.top1 >= 0.98
