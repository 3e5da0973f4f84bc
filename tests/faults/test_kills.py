"""The real training is killed, stopped and started again; what it leaves in the end is the same, bit for bit."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vitreous.training.lock import locked_run

_LIVES = runpy.run_path(str(Path(__file__).with_name("lives.py")))  # tests are no package to import from
kill_again_and_again, result_of = _LIVES["kill_again_and_again"], _LIVES["result_of"]

KILLS = int(os.environ.get("VITREOUS_KILLS", "100"))
STOPS = int(os.environ.get("VITREOUS_STOPS", "6"))
RANK_KILLS = int(os.environ.get("VITREOUS_RANK_KILLS", "4"))


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A folder in memory, where there is one: flushing costs nothing there, and a kill loses nothing."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def server(memory: Path) -> Iterator[Any]:
    with _LIVES["fork_server"](memory / "server") as ready:
        yield ready


@pytest.fixture(scope="module")
def config(memory: Path) -> str:
    return str(_LIVES["tiny_config"](memory))


@pytest.fixture(scope="module")
def uninterrupted(memory: Path, server: Any, config: str) -> Any:
    """What a run leaves that nobody disturbs."""
    life = server.live(config, memory / "uninterrupted")
    assert life.codes == [0], life.output
    return result_of(memory / "uninterrupted")


@pytest.fixture
def place(memory: Path) -> Iterator[Path]:
    yield memory / "place"
    shutil.rmtree(memory / "place", ignore_errors=True)


@pytest.mark.slow
def test_a_run_that_is_killed_anywhere_ends_with_the_same_bits(
    server: Any, config: str, uninterrupted: Any, place: Path
) -> None:
    done = kill_again_and_again(server, config, place, kills=KILLS, mean=0.25)
    assert done.kills >= KILLS and done.results == {uninterrupted}
    assert set(done.codes) == {"[-9]", "[0]"}


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_is_asked_to_stop_saves_and_goes_on(
    server: Any, config: str, uninterrupted: Any, place: Path, number: signal.Signals, code: int
) -> None:
    for stop in range(STOPS):
        out, asked = place / f"{stop}", 0.4 * stop / STOPS
        life = server.live(config, out, kills=[(0, asked, number)], after=str(out / "states"))
        while (out / "model").exists() and asked > 0.01:  # it was done before it was asked: there is nothing to stop
            shutil.rmtree(out)
            asked /= 2
            life = server.live(config, out, kills=[(0, asked, number)], after=str(out / "states"))
        assert life.codes == [code] and life.seconds[0] - asked <= 5, life.output
        assert re.fullmatch(r"vitreous: stopped after step \d+ of 18, saved; the same command .*\n", life.output)
        last = server.live(config, out)
        assert last.codes == [0] and result_of(out) == uninterrupted


def test_a_second_trainer_on_the_same_folder_is_refused(server: Any, config: str, place: Path) -> None:
    with locked_run(place):
        life = server.live(config, place)
    assert life.codes == [4] and f"is being trained in by process {os.getpid()}" in life.output


@pytest.mark.slow
def test_when_a_rank_is_killed_the_others_stop_and_the_run_goes_on_with_the_same_bits(
    server: Any, config: str, place: Path
) -> None:
    assert server.live(config, place / "whole", world=2).codes == [0, 0]
    for kill in range(RANK_KILLS):
        rank, out = kill % 2, place / f"{kill}"
        due = 0.5 * kill / RANK_KILLS
        life = server.live(config, out, world=2, kills=[(rank, due, signal.SIGKILL)], after=str(out / "states"))
        assert life.codes[rank] == -signal.SIGKILL and life.codes[1 - rank] == 7, life.output
        assert life.seconds[1 - rank] - due <= 15
        lost = rf"another process of this run was lost: rank {rank} \(process \d+\) (is gone|was ended by SIGKILL)"
        assert re.match(f"vitreous: {lost}", life.output) and "Traceback" not in life.output
        assert server.live(config, out, world=2).codes == [0, 0]
        assert result_of(out) == result_of(place / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_one_rank_stops_all_of_them_with_the_same_code(
    server: Any, config: str, place: Path, number: signal.Signals, code: int
) -> None:
    life = server.live(config, place, world=2, kills=[(1, 0.1, number)], after=str(place / "states"))
    assert life.codes == [code, code] and max(life.seconds) <= 5, life.output
    assert "Traceback" not in life.output


@pytest.mark.slow
def test_two_ranks_of_which_one_is_killed_at_any_time_end_with_the_same_bits(
    server: Any, config: str, place: Path
) -> None:
    assert server.live(config, place / "whole", world=2).codes == [0, 0]
    done = kill_again_and_again(server, config, place, kills=2 * RANK_KILLS, mean=0.6, world=2)
    assert done.kills >= 2 * RANK_KILLS and done.results == {result_of(place / "whole")}


@pytest.mark.slow
def test_a_rank_that_hangs_is_named_when_patience_ends(server: Any, config: str, place: Path) -> None:
    kills = [(1, 0.1, signal.SIGSTOP), (1, 9.0, signal.SIGKILL)]
    life = server.live(config, place, world=2, kills=kills, after=str(place / "states"), patience=3)
    assert life.codes == [7, -signal.SIGKILL] and life.seconds[0] < 8, life.output
    assert re.search(r"was lost: rank 1 \(process \d+\) is stopped and does not answer\n", life.output)


@pytest.mark.slow
def test_a_rank_that_writes_for_longer_than_patience_lasts_is_waited_for(server: Any, config: str, place: Path) -> None:
    config = config.replace("state_seconds: 0", "state_seconds: 60")  # only at the ends of epochs
    life = server.live(config, place, world=2, patience=1, slow_disk=1.5)
    assert life.codes == [0, 0], life.output
    assert min(life.seconds) > 2 * 1.5


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_another_number_of_processes_goes_on_says_so_and_learns_the_same(
    server: Any, config: str, place: Path, how: str
) -> None:
    config = config.replace("dropout: 0.1", "dropout: 0.0") + f"parallel: {how}\n"  # processes draw their own
    assert server.live(config, place / "whole").codes == [0]
    out = place / "parts"
    before = ""
    for world in (2, 1, 2):
        kills, given = [(0, 0.0, signal.SIGTERM)], {"config": config, "out": str(out), "progress": True}
        life = server.live(config, out, world=world, kills=kills, after=str(out / "states"), given=given)
        assert life.codes == [143] * world, life.output
        assert f"world {before} -> {world}" in life.output or not before
        before = str(world)
    assert server.live(config, out, world=2).codes == [0, 0]
    expected, found = (load_file(place / name / "model" / "model.safetensors") for name in ("whole", "parts"))
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=2e-5)


@pytest.mark.slow
def test_torchrun_starts_the_ranks_again_after_one_was_killed(server: Any, config: str, place: Path) -> None:
    assert server.live(config, place / "whole", world=2).codes == [0, 0]
    settings, out = place / "config.yaml", place / "run"
    settings.write_text(config)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", "1", "-m", "vitreous", "train", "--preset", str(settings), "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as torchrun:
        try:
            assert _until(lambda: any(out.glob("states/step-*")), seconds=200)
            pid = json.loads((out / "run.lock").read_text())["pid"]
            os.kill(pid, signal.SIGKILL)
            output, _ = torchrun.communicate(timeout=200)
        finally:
            torchrun.terminate()
    assert torchrun.returncode == 0, output
    lost = rf"another process of this run was lost: rank 0 \(process {pid}\) (is gone|was ended by SIGKILL)"
    assert re.search(lost, output)
    assert result_of(out) == result_of(place / "whole")


def _until(is_so: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not is_so() and time.monotonic() < end:
        time.sleep(0.01)
    return is_so()
