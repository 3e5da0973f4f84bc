"""The shape of the package: which way imports run, what is public, and what the front door says."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vitreous

SOURCE = Path(vitreous.__file__).parent

# Each part may import itself and what stands before it in one of the rows.
MAY_IMPORT = {
    "errors": set(),
    "interrupts": set(),
    "leaving": set(),
    "checking": {"errors"},
    "memory": {"errors"},
    "tokens": {"errors"},
    "atomic": {"errors"},
    "progress": {"errors"},
    "model": {"errors", "memory", "tokens"},
    "data": {"errors", "checking", "tokens", "progress"},
    "checkpoints": {"errors", "tokens", "atomic", "progress", "model", "data"},
    "training": {"errors", "interrupts", "leaving", "memory", "checking", "tokens", "atomic", "progress"}
    | {"model", "data", "checkpoints"},
    "capture": {"errors", "tokens", "model"},
    "measures": {"errors", "tokens", "capture"},
    "inspection": {"errors", "tokens", "atomic", "measures"},
    "inspecting": {"errors", "leaving", "tokens", "atomic", "progress"}
    | {"model", "data", "capture", "measures", "inspection"},
    "compared": {"errors", "tokens", "checkpoints", "measures", "inspection"},
    "arrangement": {"errors", "checking", "tokens", "atomic", "progress"}
    | {"model", "data", "checkpoints", "training", "capture", "measures"},
    "figures": {"errors", "tokens", "atomic", "measures", "inspection", "compared", "arrangement"},
    "pages": {"errors", "tokens", "atomic", "measures", "inspection", "compared", "arrangement", "figures"},
    "summaries": {"data", "checkpoints", "inspection"},
}
EVERYTHING = set(MAY_IMPORT) | {"commands", "cli"}
MAY_IMPORT |= {"commands": EVERYTHING, "cli": EVERYTHING, "__main__": {"cli"}, "__init__": EVERYTHING}

OTHER_LIBRARIES = {"timm", "transformers", "torchvision", "vit_pytorch", "jax", "flax"}


def files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def imports_of(file: Path) -> set[str]:
    """Every module imported anywhere in a file, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            found.add(node.module or "")
            if node.module == "vitreous":
                found |= {f"vitreous.{alias.name}" for alias in node.names if alias.name != "__version__"}
    return found


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_run_one_way(file: Path) -> None:
    part = file.relative_to(SOURCE).with_suffix("").parts[0]
    for module in imports_of(file):
        if module.startswith("vitreous."):
            wanted = part_of(module)
            assert wanted == part or wanted in MAY_IMPORT[part], f"{part} may not import {module}"
        assert module.split(".")[0] not in OTHER_LIBRARIES, f"{file} imports {module} where it is loaded"


def test_no_file_needs_a_tour_guide() -> None:
    long = {str(file): lines for file in files() if (lines := len(file.read_text("utf-8").splitlines())) > 400}
    assert not long


def test_the_public_names_are_these_and_exist() -> None:
    assert sorted(vitreous.__all__) == [
        "AttentionOperator",
        "Inspection",
        "TokenLayout",
        "TrainConfig",
        "ViTConfig",
        "VisionTransformer",
        "VitreousError",
        "__version__",
        "convert",
        "inspect_model",
        "load",
        "measure_arrangement",
        "save",
        "train",
        "watch_attention",
        "write_arrangement",
        "write_comparison",
        "write_report",
    ]
    for name in vitreous.__all__:
        assert getattr(vitreous, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'rollout'"):
        _ = vitreous.rollout


def test_the_package_and_its_parser_load_neither_torch_nor_matplotlib() -> None:
    script = (
        "import sys, vitreous, vitreous.cli; "
        "print([name for name in ('torch', 'matplotlib', 'numpy', 'PIL') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n" and run.stderr == ""


def test_inspecting_loads_no_other_library() -> None:
    script = (
        "import sys, vitreous; vitreous.inspect_model, vitreous.load, vitreous.train; "
        f"print(sorted(set(sys.modules) & {OTHER_LIBRARIES | {'matplotlib'}!r}))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
