"""Every file of tests/bad_checkpoints.py: refused with a message that helps, or read as what it is; nothing is run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vitreous.checkpoints.containers.tensor_file import open_sharded, open_tensors
from vitreous.errors import VitreousError

BAD_CHECKPOINTS = Path(__file__).parents[2] / "bad_checkpoints.py"
ROWS = ("C1", "C2", "C5", "C6", "C7", "C8", "C9", "C10", "C12")


def outcome(row: str, path: Path) -> tuple[str, str]:
    """Whether all of a file can be read, and what is said if not; anything but a VitreousError goes through."""
    try:
        with open_sharded(path) if row == "C9" else open_tensors(path) as file:
            assert set(file.shapes) == set(file.dtypes)
            for name, shape in file.shapes.items():
                tensor = file.read(name)
                assert tuple(tensor.shape) == shape and str(tensor.dtype) == f"torch.{file.dtypes[name]}"
    except VitreousError as refusal:
        assert refusal.exit_code in (3, 5)
        return "refused", str(refusal)
    return "read", ""


def complaint(bad_file: Any, folder: Path) -> str | None:
    path = bad_file.write(folder)
    found, message = outcome(bad_file.row, path)
    if bad_file.outcome not in (found, "either"):
        return f"{bad_file.name} was {found}"
    if found == "refused" and (len(message.splitlines()) > 3 or folder.name not in message):
        return f"{bad_file.name}: {message}"
    if not message.replace("\n", "").isprintable() or len(message) > 1000:
        return f"{bad_file.name} has a message for no terminal"
    marker = folder / "marker"
    return f"{bad_file.name} ran its code" if marker.exists() or marker.is_symlink() else None


@pytest.mark.parametrize("row", ROWS)
def test_every_bad_file_is_refused_in_three_lines_or_harmless(
    row: str, bad_files: tuple[Any, ...], tmp_path: Path
) -> None:
    complaints = []
    for number, bad_file in enumerate(bad_files):
        if bad_file.row == row:
            folder = tmp_path / str(number)
            folder.mkdir()
            complaints.append(complaint(bad_file, folder))
    assert complaints and not [text for text in complaints if text]


def test_the_rows_have_as_many_files_as_asked_for(bad: dict[str, Any]) -> None:
    least = {"C1": 99, "C2": 13, "C5": 33, "C6": 30, "C7": 17, "C8": 133, "C9": 10, "C10": 8, "C12": 6}
    counts = bad["counts"]()
    assert set(counts) == set(ROWS) and all(counts[row] >= number for row, number in least.items())


def test_the_files_are_the_same_each_time(bad: dict[str, Any], bad_files: tuple[Any, ...], tmp_path: Path) -> None:
    first = {bad_file.name: bad_file for bad_file in bad_files}
    for again in bad["pickle_mutations"]():
        content = again.write(tmp_path).read_bytes()
        assert first[again.name].write(tmp_path).read_bytes() == content


def test_the_payloads_do_run_where_they_are_trusted(bad_files: tuple[Any, ...], tmp_path: Path) -> None:
    paths = []
    for number, bad_file in enumerate(bad_files):
        if bad_file.is_payload:
            folder = tmp_path / str(number)
            folder.mkdir()
            paths.append(bad_file.write(folder))
    script = (
        "import json, runpy, sys; bad = runpy.run_path(sys.argv[1]); bad['run_without_care'](json.loads(sys.argv[2]))"
    )
    pickles = BAD_CHECKPOINTS.with_name("bad_pickles.py")
    arguments = [sys.executable, "-c", script, pickles, json.dumps([str(path) for path in paths])]
    subprocess.run(arguments, check=True, capture_output=True, cwd=tmp_path)
    silent = {
        path.name
        for path in paths
        if not (path.parent / "marker").is_symlink() and not (path.parent / "marker").exists()
    }
    assert silent == {"nt.system.pth"}  # there is no such module outside of Windows


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the limit is set from Linux's own count")
def test_bombs_are_refused_within_5_seconds_and_150_megabytes(bad_files: tuple[Any, ...], tmp_path: Path) -> None:
    wanted = ("C1", "C5", "C7", "C8")
    files = [file for file in bad_files if file.row in wanted and file.outcome == "refused"]
    paths = [str(bad_file.write(tmp_path)) for bad_file in files]
    script = """
import json, re, resource, sys, time
from pathlib import Path
import torch, vitreous.checkpoints.containers.tensor_file as opened
from vitreous.errors import MemoryLimitError, VitreousError
torch.set_num_threads(1)
used = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 150_000_000,) * 2)
for path in json.loads(sys.argv[1]):
    start = time.process_time()
    try:
        with opened.open_tensors(Path(path)) as file:
            for name in file.shapes:
                file.read(name)
        print(path, "was read")
    except MemoryLimitError:
        print(path, "asked for memory")
    except VitreousError:
        pass
    if time.process_time() - start > 5:
        print(path, "took", time.process_time() - start)
"""
    run = subprocess.run([sys.executable, "-c", script, json.dumps(paths)], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
