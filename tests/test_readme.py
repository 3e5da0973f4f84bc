"""The front door: every block of Python and every command in it runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from vitreous.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
SMALL = "timm:test_vit@random"  # timm's own small model for tests, in place of weights that must be fetched


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with photos."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for index in range(2):
        Image.linear_gradient("L").rotate(90 * index).convert("RGB").save(tmp_path / "photos" / f"{index}.png")
    return tmp_path


def offline(text: str) -> str:
    assert "timm:vit_base_patch16_224" in text or "digits" in text
    return text.replace("timm:vit_base_patch16_224", SMALL).replace("(2, 3, 224, 224)", "(2, 3, 160, 160)")


@pytest.mark.parametrize("block", [text for kind, text in BLOCKS if kind == "python"])
def test_the_python_runs(block: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("timm")
    exec(compile(offline(block), "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "tensor(" in printed or "TokenLayout(prefix=1, rows=10, columns=10" in printed
    if "write_report" in block:
        assert (folder / "report.html").stat().st_size > 10_000 and (folder / "inspection.safetensors").exists()


def test_the_commands_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("timm")
    (commands,) = [text for kind, text in BLOCKS if kind == "sh"]
    quick = "--epochs 1 --model.depth 1 --model.width 16"
    for line in offline(commands).splitlines():
        words = shlex.split(line + (f" {quick}" if line.startswith("vitreous train") else ""))
        assert words[0] == "vitreous"
        main(words[1:])
    printed = capsys.readouterr().out
    assert (printed.count("report: "), printed.count("comparison: ")) == (4, 2)
    assert (folder / "numbers.json").exists() and list((folder / "figures").glob("*.pdf"))


def test_the_two_commands_are_the_makefiles() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for command in re.findall(r"^    make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{command}:", makefile, re.MULTILINE)
    assert "make test" in (ROOT / ".ci" / "run").read_text("utf-8")


def test_every_file_that_is_linked_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).is_file(), target
