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

from vitreous.arrangement.face_models import MODELS, make_model
from vitreous.arrangement.face_task import BATCH_SIZE, STEPS, TEST_IMAGES, measured_faces
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


def test_the_page_on_training_is_what_the_recipes_cards_and_results_say() -> None:
    page = (ROOT / "docs" / "training.md").read_text("utf-8")
    assert page == runpy.run_path(str(ROOT / "docs" / "make_training.py"))["page"]()
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page):
        assert (ROOT / "docs" / picture).is_file()


def test_the_page_on_arrangement_has_the_numbers_that_were_measured() -> None:
    page = (ROOT / "docs" / "arrangement.md").read_text("utf-8")
    numbers = json.loads((ROOT / "docs" / "arrangement" / "numbers.json").read_text("utf-8"))
    assert numbers["sentence"] in page and [model["kind"] for model in numbers["models"]] == ["ViT", "CNN"]
    for effect in numbers["effects"]:
        row = f"| {effect['question']} | {effect['of']} | {effect['measure']} | {effect['size']['value']:.3g} "
        assert row in page
    for picture in re.findall(r"\]\((arrangement/[^)]+)\)", page):
        assert (ROOT / "docs" / picture).is_file()


def test_the_faces_that_were_measured_are_those_of_the_code() -> None:
    found = measured_faces()
    assert found is not None and len(found.seeds) == 5
    assert (found.steps, found.batch_size, found.test_images) == (STEPS, BATCH_SIZE, TEST_IMAGES)
    assert [model.name for model in found.models] == list(MODELS)
    for model in found.models:
        assert model.parameters == sum(weight.numel() for weight in make_model(model.name, 0).parameters())
        assert max(model.seconds) <= 240  # two minutes on two cores; these ran on one
        assert f"| {model.name} | {model.parameters:,} |" in (ROOT / "docs" / "arrangement.md").read_text("utf-8")
