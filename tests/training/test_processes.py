from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from vitreous.training.processes import Process, how_it_ended, is_here, runs, this_process

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="Linux tells more than other systems")


@pytest.fixture
def other() -> Iterator[tuple[subprocess.Popen[bytes], Process]]:
    """A process that sleeps."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"]) as child:
        yield child, _seen(child.pid)
        child.kill()


def _seen(pid: int) -> Process:
    started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return replace(this_process(), pid=pid, started=started)


def _until_it_ended(process: Process) -> str:
    for _ in range(500):
        if how := how_it_ended(process):
            return how
        time.sleep(0.01)
    return ""


def test_this_process_runs_here() -> None:
    me = this_process()
    assert me.pid == os.getpid() and is_here(me) and runs(me) and how_it_ended(me) == ""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_the_signal_that_ended_a_process_is_named(
    other: tuple[subprocess.Popen[bytes], Process], number: signal.Signals
) -> None:
    child, process = other
    assert runs(process) and how_it_ended(process) == ""
    child.send_signal(number)
    assert _until_it_ended(process) == f"(process {child.pid}) was ended by {number.name}"
    assert not runs(process)
    child.wait()
    assert how_it_ended(process) == f"(process {child.pid}) is gone" and not runs(process)


def test_an_exit_code_is_named() -> None:
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read(); sys.exit(3)"], stdin=-1) as child:
        process = _seen(child.pid)
        assert child.stdin is not None
        child.stdin.close()
        assert _until_it_ended(process) == f"(process {child.pid}) ended with 3"


def test_a_stopped_process_is_told_from_a_dead_one(other: tuple[subprocess.Popen[bytes], Process]) -> None:
    child, process = other
    child.send_signal(signal.SIGSTOP)
    assert _until_it_ended(process) == f"(process {child.pid}) is stopped and does not answer"
    assert runs(process)


def test_a_number_that_was_used_again_is_another_process() -> None:
    before = replace(this_process(), started="1")
    assert not runs(before) and how_it_ended(before) == f"(process {os.getpid()}) is gone"


def test_of_processes_elsewhere_nothing_is_said() -> None:
    far = replace(this_process(), host="elsewhere", pid=1)
    assert not is_here(far) and how_it_ended(far) == ""
