from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vitreous.errors import OutputError
from vitreous.training import lock
from vitreous.training.lock import LOCK, locked_run

HOLD = """
import os, sys, time
from pathlib import Path
from vitreous.training.lock import locked_run
with locked_run(Path(sys.argv[1])):
    if len(sys.argv) > 2 and os.fork() == 0:
        time.sleep(30)  # a worker, which outlives its parent
        os._exit(0)
    print("held", flush=True)
    time.sleep(30)
"""


@contextmanager
def held(folder: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that trains there."""
    with subprocess.Popen([sys.executable, "-c", HOLD, folder, *more], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None and other.stdout.readline() == "held\n"
            yield other
        finally:
            other.kill()


def test_a_lock_is_gone_when_the_run_is_over(tmp_path: Path) -> None:
    for _ in range(2):
        with locked_run(tmp_path / "run"):
            assert json.loads((tmp_path / "run" / LOCK).read_text())["pid"] == os.getpid()
        assert list(tmp_path.iterdir()) == []


def test_a_second_trainer_is_refused_at_once_and_the_first_is_named(tmp_path: Path) -> None:
    with held(tmp_path) as other:
        began = time.monotonic()
        refusal = pytest.raises(OutputError, match=rf"is being trained in by process {other.pid} on .*\nwait for it")
        with refusal, locked_run(tmp_path):
            pass
        assert time.monotonic() - began < 1
        assert (tmp_path / LOCK).exists()


def test_two_trainers_in_one_process_are_two(tmp_path: Path) -> None:
    refusal = pytest.raises(OutputError, match=f"by process {os.getpid()} on")
    with locked_run(tmp_path), refusal, locked_run(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


def test_a_refused_thread_does_not_let_the_first_go(tmp_path: Path) -> None:
    """POSIX drops a process's lock when any of its descriptors of the file is closed."""
    trial = f"{HOLD.partition('with locked')[0]}\nwith locked_run(Path(sys.argv[1])):\n    pass\n"
    with locked_run(tmp_path):
        with pytest.raises(OutputError), locked_run(tmp_path):
            pass
        other = subprocess.run([sys.executable, "-c", trial, tmp_path], capture_output=True, text=True)
    assert f"is being trained in by process {os.getpid()}" in other.stderr


def test_a_killed_trainer_holds_nothing_nor_do_its_workers(tmp_path: Path) -> None:
    with held(tmp_path, "with a worker") as other:
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert (tmp_path / LOCK).exists()
        with locked_run(tmp_path):
            assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("content", ["", "{", '{"pid": "x"}', "[1]", "\udcff"])
def test_a_lock_file_that_says_nothing_is_taken(tmp_path: Path, content: str) -> None:
    (tmp_path / LOCK).write_bytes(content.encode(errors="surrogateescape"))
    with locked_run(tmp_path):
        pass


def test_where_no_locks_are_known_the_process_in_the_file_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    with held(tmp_path) as other:
        content = json.loads((tmp_path / LOCK).read_text())
        with pytest.raises(OutputError, match=f"process {other.pid}"), locked_run(tmp_path):
            pass
        for stale in ({"pid": 2**22 + 1}, {"boot": "another"}, {"started": "1"}):
            (tmp_path / LOCK).write_text(json.dumps(content | stale))
            with locked_run(tmp_path):
                pass
        (tmp_path / LOCK).write_text(json.dumps(content | {"host": "\x1b[31mfar"}))
        refusal = pytest.raises(OutputError, match=r"on \\x1b\[31mfar\n.*if it is over, delete run.lock")
        with refusal, locked_run(tmp_path):
            pass


def test_a_lock_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"run\.lock cannot be written"), locked_run(tmp_path / "file"):
        pass


def test_folders_that_were_made_for_nothing_go_again_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with locked_run(tmp_path / "there" / "new" / "run"):
        pass
    assert (tmp_path / "there").is_dir() and not list((tmp_path / "there").iterdir())
    with locked_run(tmp_path / "there"):
        pass
    assert (tmp_path / "there").is_dir()
    with locked_run(tmp_path / "runs" / "run"):
        (tmp_path / "runs" / "run" / "config.yaml").touch()
    assert list((tmp_path / "runs").rglob("*")) == [tmp_path / "runs/run", tmp_path / "runs/run/config.yaml"]
