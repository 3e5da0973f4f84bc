"""Benchmarks run: a tiny case of each path, and no number is looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

GPU_COST = Path(__file__).parents[1] / "benchmarks" / "gpu_cost.py"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, GPU_COST, *arguments], capture_output=True, text=True, env=environment)


def test_gpu_cost_measures_errors_kernels_and_models(tmp_path: Path) -> None:
    results = tmp_path / "gpu_cost.json"
    found = run("--smoke", "--out", results)
    assert found.returncode == 0, found.stderr
    parts = json.loads(results.read_text("utf-8"))
    assert {"date", "machine", "versions", "errors", "kernel_times", "costs"} == set(parts)
    assert all(row["error"] < 1e-5 for row in parts["errors"])
    assert {row["case"] for row in parts["costs"]} == {"ours", "transformers eager"}


def test_gpu_cost_says_in_one_line_that_there_is_no_gpu() -> None:
    found = run()
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr == "gpu_cost: there is no NVIDIA GPU here, so nothing was measured\n"
