"""Where a command runs: locale, home, clock, current folder, closed streams, little shared memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn")

TRAIN = [
    sys.executable, "-m", "vitreous", "train", "--preset", "digits", "--model.width", "16", "--model.depth", "1",
    "--model.heads", "2", "--threads", "1",
]  # fmt: skip
PATIENCE = 120


@pytest.mark.parametrize(
    "changes, out",
    [
        pytest.param({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "Läufe 🦆", id="ASCII locale"),
        pytest.param({"HOME": None, "TZ": "Pacific/Kiritimati", "COLUMNS": "1"}, "run", id="no home, far east, narrow"),
    ],
)
def test_a_run_needs_nothing_of_its_surroundings(changes: dict[str, str | None], out: str, tmp_path: Path) -> None:
    surroundings = {name: value for name, value in {**os.environ, **changes}.items() if value is not None}
    command = [*TRAIN, "--epochs", "1", "--out", out]
    done = subprocess.run(command, cwd=tmp_path, env=surroundings, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / out / "model" / "model.safetensors").is_file()


def test_a_run_whose_streams_are_closed_ends_as_any_other(tmp_path: Path) -> None:
    command = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *TRAIN, "--epochs", "1", "--out", "run"]
    assert subprocess.run(command, cwd=tmp_path, timeout=PATIENCE).returncode == 0
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_a_current_folder_that_was_deleted_is_said() -> None:
    script = 'd=$(mktemp -d); cd "$d"; rmdir "$d"; exec "$@"'
    command = ["sh", "-c", script, "sh", sys.executable, "-m", "vitreous", "describe", "cifar10-ti4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["vitreous: the folder you are in was deleted; change to another one"]


def test_little_shared_memory_is_said_at_once(tmp_path: Path) -> None:
    """As in a container, which has 64 MiB of it; here it is less than a batch of 256 images of 3 x 24 x 24 bytes.

    The workers must be gone as well: at its exit the process would wait for them without end.
    """
    inside = 'mount -t tmpfs -o size=128k tmpfs /dev/shm || exit 99; exec "$@"'
    command = ["unshare", "-m", "sh", "-c", inside, "sh", *TRAIN, "--batch-size", "256", "--workers", "1", "--out", "o"]
    if not shutil.which("unshare"):
        pytest.skip("there is no unshare here")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode in (1, 99):
        pytest.skip("this machine lets nobody mount a file system here")
    assert done.returncode == 7
    assert done.stderr.splitlines()[-2:] == [
        "vitreous: the memory that processes share to hand over images is full: /dev/shm, which has 0.1 MiB",
        "make it larger (docker run --shm-size 2g), or take fewer workers; --workers 0 decodes in the main process",
    ]
    assert "Traceback" not in done.stderr
