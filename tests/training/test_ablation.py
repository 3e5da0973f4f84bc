from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from vitreous.errors import CheckpointError, ConfigError, OutputError
from vitreous.model.config import ViTConfig
from vitreous.training.ablation import (
    AblationName,
    ablation,
    as_json,
    as_markdown,
    patch_size_ablation,
    pooling_ablation,
    positions_ablation,
    run_ablation,
    small_config,
)
from vitreous.training.config import Optim, TrainConfig
from vitreous.training.settings_file import to_yaml

BASE = small_config("synthetic:8x2x8", 2, epochs=1)


def test_positions_are_table_8_with_its_empty_cells() -> None:
    chosen = positions_ablation(BASE)
    assert chosen.rows == ("none", "1-D", "2-D", "relative")
    assert chosen.columns == ("at the stem", "at every layer", "at every layer, shared")
    found = {cell: (config.model.positions, config.model.positions_at) for cell, config in chosen.cells.items()}
    assert found == {
        ("none", "at the stem"): ("none", "stem"),
        ("1-D", "at the stem"): ("learned", "stem"),
        ("1-D", "at every layer"): ("learned", "layers"),
        ("1-D", "at every layer, shared"): ("learned", "layers-shared"),
        ("2-D", "at the stem"): ("learned-2d", "stem"),
        ("2-D", "at every layer"): ("learned-2d", "layers"),
        ("2-D", "at every layer, shared"): ("learned-2d", "layers-shared"),
        ("relative", "at the stem"): ("relative", "stem"),
    }


def test_heads_are_compared_over_every_learning_rate_and_differ_in_nothing_else() -> None:
    chosen = pooling_ablation(BASE, (1e-4, 0.01))
    assert (chosen.rows, chosen.columns) == (("class token", "average pooling"), ("0.0001", "0.01"))
    for (row, column), config in chosen.cells.items():
        assert config.optimizer == replace(BASE.optimizer, learning_rate=float(column))
        assert config.model.pooling == ("class" if row == "class token" else "mean")
        assert config.model.class_token == (row == "class token")
        assert not config.model.has_norm_after_pooling
        token_and_position = 2 * config.model.width if row == "class token" else 0
        assert config.model.parameters == BASE.model.parameters - 2 * config.model.width + token_and_position


def test_smaller_patches_are_more_tokens_for_the_same_blocks() -> None:
    chosen = patch_size_ablation(BASE, (2, 8))
    assert chosen.rows == ("2 x 2 pixels, 16 x 16 patches", "8 x 8 pixels, 4 x 4 patches")
    assert [config.model.tokens for config in chosen.cells.values()] == [257, 17]


@pytest.mark.parametrize("name", get_args(AblationName))
def test_all_runs_share_what_is_not_compared(name: Any) -> None:
    chosen = ablation(name, BASE)
    assert chosen.name == name
    for config in chosen.cells.values():
        rest = replace(config, model=BASE.model, optimizer=replace(config.optimizer, learning_rate=1e-3))
        assert rest == BASE
        model = replace(
            config.model, positions="learned", positions_at="stem", patch_size=(4, 4), pooling="class",
            class_token=True, norm_after_pooling=None,
        )  # fmt: skip
        assert model == BASE.model


def test_what_cannot_be_compared_is_refused_before_any_run() -> None:
    with pytest.raises(ConfigError, match="'depth' is no ablation; choose positions, pooling, patch-size"):
        ablation("depth", BASE)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="not a multiple of the patch's 5"):
        ablation("patch-size", BASE, (5,))
    with pytest.raises(ConfigError, match=r"a patch of 4\.5 pixels cannot be"):
        ablation("patch-size", BASE, (4, 4.5))
    with pytest.raises(ConfigError, match="positions are compared as in table 8"):
        ablation("positions", BASE, (4,))
    with pytest.raises(ConfigError, match=r"optimizer\.learning_rate is 0"):
        ablation("pooling", BASE, (0.0,))


def test_other_values_may_be_compared() -> None:
    assert ablation("pooling", BASE, (0.1,)).columns == ("0.1",)
    assert [config.model.patch_size for config in ablation("patch-size", BASE, (2, 16)).cells.values()] == [
        (2, 2),
        (16, 16),
    ]


class Trainer:
    """Stands in for the loop: every run has an accuracy of its own, and may be stopped."""

    def __init__(self, stop_at: int = -1) -> None:
        self.calls: list[tuple[str, int]] = []
        self.stop_at = stop_at

    def __call__(self, config: TrainConfig, folder: Path, *, progress: bool) -> Any:
        self.calls.append((folder.name, config.seed))
        if len(self.calls) == self.stop_at:
            raise KeyboardInterrupt
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(to_yaml(config))
        (folder / "model").mkdir(exist_ok=True)
        top1 = 0.5 + 0.01 * config.seed + (0.1 if config.model.patch_size == (8, 8) else 0)
        return SimpleNamespace(evaluation=SimpleNamespace(top1=top1))


def test_every_cell_is_run_with_every_seed_and_the_table_has_means_and_intervals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer, chosen = Trainer(), patch_size_ablation(BASE, (4, 8))
    result = run_ablation(chosen, tmp_path, seeds=3, train=trainer)
    four, eight = "4-x-4-pixels-8-x-8-patches", "8-x-8-pixels-4-x-4-patches"
    assert trainer.calls == [(f"{name}_seed-{seed}", seed) for seed in range(3) for name in (four, eight)]
    first, second = result.values()
    assert first.values == pytest.approx((0.5, 0.51, 0.52)) and second.mean == pytest.approx(0.61)
    assert first.half_width == pytest.approx(4.302652729911275 * 0.01 / 3**0.5)  # t of 2 degrees times s / sqrt(3)
    table = (tmp_path / "table.md").read_text()
    assert table.splitlines()[:4] == [
        "| patch | top-1 |",
        "| --- | --- |",
        "| 4 x 4 pixels, 8 x 8 patches | 51.0 ± 2.5 |",
        "| 8 x 8 pixels, 4 x 4 patches | 61.0 ± 2.5 |",
    ]
    assert table == as_markdown(chosen, result)
    assert "synthetic:8x2x8 in %, mean and 95 % t-interval over 3 seeds; 1 epoch each" in table
    assert json.loads((tmp_path / "results.json").read_text()) == as_json(chosen, result)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "run 1 of 6: 4 x 4 pixels, 8 x 8 patches, seed 0" and len(said) == 6


def test_cells_that_cannot_be_are_dashes_and_one_seed_has_no_interval(tmp_path: Path) -> None:
    chosen = positions_ablation(BASE)
    result = run_ablation(chosen, tmp_path, seeds=1, train=Trainer(), progress=False)
    lines = as_markdown(chosen, result).splitlines()
    assert lines[0] == "| positions, by place | at the stem | at every layer | at every layer, shared |"
    assert lines[2] == "| none | 50.0 | - | - |" and lines[3] == "| 1-D | 50.0 | 50.0 | 50.0 |"
    assert "one seed, and so without an interval" in lines[-1]
    (cell, *_) = as_json(chosen, result)["cells"]
    assert cell == {"positions": "none", "place": "at the stem", "top1": [0.5], "mean": 0.5, "half_width": None}


def test_an_interrupted_ablation_goes_on_and_more_seeds_are_added(tmp_path: Path) -> None:
    chosen = patch_size_ablation(BASE, (4, 8))
    with pytest.raises(KeyboardInterrupt):
        run_ablation(chosen, tmp_path, seeds=2, train=Trainer(stop_at=3), progress=False)
    assert not (tmp_path / "table.md").exists()
    run_ablation(chosen, tmp_path, seeds=2, train=Trainer(), progress=False)
    longer = run_ablation(chosen, tmp_path, seeds=3, train=Trainer(), progress=False)
    assert [len(one.values) for one in longer.values()] == [3, 3]


def test_a_run_of_something_else_is_seen_before_any_work(tmp_path: Path) -> None:
    run_ablation(patch_size_ablation(BASE, (4, 8)), tmp_path, seeds=2, train=Trainer(), progress=False)
    other = patch_size_ablation(replace(BASE, epochs=2), (4, 8))
    trainer = Trainer()
    with pytest.raises(CheckpointError, match="another config: epochs 1 -> 2"):
        run_ablation(other, tmp_path, seeds=2, train=trainer, progress=False)
    assert not trainer.calls
    with pytest.raises(ConfigError, match="seeds is 0"):
        run_ablation(other, tmp_path, seeds=0, train=trainer)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        run_ablation(other, tmp_path / "file", seeds=1, train=trainer)


def test_real_runs_are_made_once_and_are_ordinary_ones(tmp_path: Path) -> None:
    tiny = replace(
        BASE,
        model=ViTConfig((8, 8), (4, 4), classes=2, width=8, depth=2, heads=2, mlp_ratio=1.0),
        preprocess=replace(BASE.preprocess, image_size=(8, 8)),
        optimizer=Optim(warmup=1),
        batch_size=4,
        precision="float32",
    )
    chosen = pooling_ablation(tiny, (1e-3,))
    first = run_ablation(chosen, tmp_path / "out", seeds=1, progress=False)
    weights = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("model.safetensors")}
    assert len(weights) == 2
    assert run_ablation(chosen, tmp_path / "out", seeds=1, progress=False) == first
    assert {path: path.stat().st_mtime_ns for path in weights} == weights  # none was made again
