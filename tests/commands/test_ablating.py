from __future__ import annotations

import json
from pathlib import Path

import pytest

from vitreous.commands.ablating import Ablate
from vitreous.errors import ConfigError

TINY = """
model: {image_size: [8, 8], patch_size: [4, 4], width: 8, depth: 1, heads: 2, mlp_ratio: 1.0}
preprocess: {image_size: [8, 8], resize: squash, crop_fraction: 1.0}
optimizer: {warmup: 1}
batch_size: 8
precision: float32
"""


def test_ablate_makes_the_runs_prints_the_table_and_leaves_a_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    out = tmp_path / "out"
    asked = {"data": "synthetic:8x2x8", "out": out, "seeds": 1, "epochs": 1, "config": tmp_path / "tiny.yaml"}
    Ablate("pooling", **asked).run()  # type: ignore[arg-type]
    printed = capsys.readouterr()
    assert printed.out == (out / "table.md").read_text()
    assert printed.out.startswith("| head, by learning rate | 0.0003 | 0.001 | 0.003 |")
    assert "run 6 of 6: average pooling, 0.003, seed 0" in printed.err
    assert (out / "pooling.pdf").read_bytes().startswith(b"%PDF")
    assert (out / "pooling.png").read_bytes().startswith(b"\x89PNG")

    Ablate("pooling", json=True, **asked).run()  # type: ignore[arg-type]
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["ablation"] == "pooling" and len(numbers["cells"]) == 6
    assert all(len(cell["top1"]) == 1 for cell in numbers["cells"])


def test_an_ablation_that_the_settings_do_not_allow_is_refused_before_any_run(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    with pytest.raises(ConfigError, match="not a multiple of the patch's 16"):
        Ablate("patch-size", "synthetic:8x2x8", tmp_path / "out", config=tmp_path / "tiny.yaml").run()
    assert not (tmp_path / "out").exists()
