"""What the documents in docs/ say of the code, and what they were made from."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest

from vitreous.checkpoints.saving import TARGETS
from vitreous.model.positions import RULES

ROOT = Path(__file__).parent.parent
CHECKPOINTS = (ROOT / "docs" / "checkpoints.md").read_text("utf-8")


@pytest.fixture(scope="module")
def catalogue() -> ModuleType:
    """The files that the table is made of."""
    for library in ("timm", "transformers", "vit_pytorch"):
        pytest.importorskip(library)
    path = ROOT / "tests" / "checkpoints" / "formats" / "test_catalogue.py"
    spec = importlib.util.spec_from_file_location("catalogue", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look
    spec.loader.exec_module(module)
    return module


def test_every_file_of_the_catalogue_has_a_row_with_a_small_difference(catalogue: ModuleType) -> None:
    rows = dict(re.findall(r"^\| ([^|]+) \| [^|]+ \| ([^|]+) \| [^|]* \| [^|]* \|$", CHECKPOINTS, re.MULTILINE))
    for case in catalogue.CASES:
        assert float(rows[case.form]) <= 1e-4


def test_the_hostile_files_are_counted_as_they_are() -> None:
    for row, count in runpy.run_path(str(ROOT / "tests" / "bad_checkpoints.py"))["counts"]().items():
        assert re.search(rf"^\| {row} \| [^|]+ \| {count} \|$", CHECKPOINTS, re.MULTILINE), row


def test_every_rule_and_every_target_is_named() -> None:
    assert all(f"| {rule} |" in CHECKPOINTS for rule in RULES)
    assert all(f"`--to {target}`" in CHECKPOINTS for target in TARGETS)


def test_the_cost_is_the_benchmarks_own() -> None:
    for row in json.loads((ROOT / "benchmarks" / "results" / "load_cost.json").read_text("utf-8")):
        line = f"| {row['container']} | {row['case']} | {row['seconds']:.2f} s | {row['time_ratio']:.2f}x |"
        assert line in CHECKPOINTS
