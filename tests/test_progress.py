from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vitreous.progress import progress_bar


def test_a_bar_is_drawn_on_standard_error_only(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("counting", 3) as advance:
        advance(1, "one")
        advance(2, "all three")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "counting" in captured.err and "3/3" in captured.err and "all three" in captured.err


def test_a_hidden_bar_draws_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("counting", 3, shown=False) as advance:
        advance(3, "all three")
    assert capsys.readouterr() == ("", "")


def test_square_brackets_in_a_title_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("reading [red]photos[/nothing]", 1) as advance:
        advance(1, "[bold]")
    assert "reading [red]photos[/nothing]" in capsys.readouterr().err


def test_an_earlier_runs_part_is_on_the_bar_but_not_in_the_speed(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("reading", 1000, done=900, unit="images") as advance:
        advance(50, "")
        time.sleep(0.5)
        advance(50, "")
    drawn = capsys.readouterr().err
    assert "1000/1000" in drawn
    assert 20 < float(drawn.split(" images/s")[-2].split()[-1]) < 210


def test_the_work_goes_on_where_nobody_reads_standard_error(tmp_path: Path) -> None:
    script = (
        "import time\nfrom vitreous.progress import progress_bar, say\n"
        "say('begins')\n"
        "with progress_bar('work', 2) as advance:\n    advance(1, ''); time.sleep(0.6); advance(1, '')\n"
        "say('done')\nopen('done', 'w').close()\n"
    )
    reading, writing = os.pipe()
    os.close(reading)
    for end in (writing, "/dev/full"):
        with open(end, "wb") as gone:  # noqa: PTH123 (a descriptor, too)
            ended = subprocess.run([sys.executable, "-c", script], stderr=gone, cwd=tmp_path)
        assert ended.returncode == 0 and (tmp_path / "done").exists()
        (tmp_path / "done").unlink()
