"""A process that has imported everything, and forks the runs that tests kill: a life then starts in milliseconds.

It reads orders from standard input and answers on standard output, a line of JSON each:

    order    {"script": name of a function below, "given": its arguments, "world": processes, "attempt": of torchrun,
              "kills": [[rank, seconds, signal], ...], "after": a folder in which something must be new before
              these seconds count, "limit": seconds, "log": file, "is_rehearsal": whether the server itself shall do it,
              "patience": seconds that ranks wait for each other, "slow_disk": seconds that a state takes
              to write, "is_torchrun": whether all get SIGTERM when one ends, and SIGKILL later}
    answer   {"codes": exit code of each rank, minus the signal that ended it, "seconds": of those that
              count, until each ended, "output": of all, on both streams}

Several processes find each other as torchrun's do: the server holds the store, under the port that it has told them.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.fsdp

import vitreous.cli
import vitreous.training.distributed
import vitreous.training.places
from vitreous.training.loop import train
from vitreous.training.settings_file import from_yaml

_TICK = 0.002
_GRACE = 30.0  # seconds that torchrun leaves a rank to end; one in a few hundred misses in gloo that its peer is gone


def run_training(config: str, out: str, progress: bool = False) -> None:
    """What `vitreous train` does: the real loop, and the command line's exit codes."""
    settings = from_yaml(config)
    command = SimpleNamespace(run=lambda: train(settings, Path(out), progress=progress))
    vitreous.cli._parse = lambda arguments: command  # type: ignore[assignment]
    vitreous.cli.main([])


SCRIPTS: dict[str, Callable[..., None]] = {"train": run_training}


def main() -> None:
    """Answers orders until there are none."""
    torch.set_num_threads(1)
    stores: list[Any] = []  # torchrun holds its store for as long as it lives, over all attempts
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if order.get("is_rehearsal"):  # everything that is imported late is imported here, once
            train(from_yaml(order["given"]["config"]), Path(order["given"]["out"]), progress=False)
            print(json.dumps({"codes": [0], "seconds": [0.0], "output": ""}), flush=True)
            continue
        if order["world"] > 1 and not stores:
            stores.append(dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False))
        print(json.dumps(_carry_out(order, stores[0].port if stores else 0)), flush=True)


def _carry_out(order: dict[str, Any], port: int) -> dict[str, Any]:
    began = time.monotonic()
    Path(order["log"]).touch()
    after = order.get("after")
    was_there = _names(after)
    pids = [_fork(order, rank, port) for rank in range(order["world"])]
    codes: list[int | None] = [None] * len(pids)
    seconds = [0.0] * len(pids)
    kills = sorted(order.get("kills", []), key=lambda kill: kill[1])
    counts_from = None if after else began
    is_ending = not order.get("is_torchrun")
    while None in codes:
        if counts_from is None and _names(after) - was_there:
            counts_from = time.monotonic()
        passed = 0.0 if counts_from is None else time.monotonic() - counts_from
        due = [kill for kill in kills if counts_from is not None and kill[1] <= passed]
        kills = kills[len(due) :]
        if time.monotonic() - began > order.get("limit", 60):
            due = [[rank, passed, signal.SIGABRT] for rank in range(len(pids))]
        for rank, pid in enumerate(pids):
            if codes[rank] is None:
                for number in (kill[2] for kill in due if kill[0] == rank):
                    os.kill(pid, number)
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    codes[rank] = os.waitstatus_to_exitcode(status)
                    seconds[rank] = time.monotonic() - (counts_from or began)
        if not is_ending and any(codes):  # torchrun then ends all others
            is_ending = True
            kills += [[rank, 0.0, signal.SIGTERM] for rank in range(len(pids))]
            kills += [[rank, passed + _GRACE, signal.SIGKILL] for rank in range(len(pids))]
        time.sleep(_TICK)
    return {"codes": codes, "seconds": seconds, "output": Path(order["log"]).read_text(errors="replace")}


def _names(folder: str | None) -> set[str]:
    return {path.name for path in Path(folder or "missing").glob("[!.]*")}


def _fork(order: dict[str, Any], rank: int, port: int) -> int:
    """The number of a new process that does what the order says."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()  # a run has workers of its own, and no signal of ours reaches the server
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        faulthandler.enable()  # a run that is past its limit says where it hangs
        if order["world"] > 1:
            os.environ |= {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(order["world"]),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": str(order["attempt"]),
            }  # fmt: skip
        if "patience" in order:
            vitreous.training.distributed.PATIENCE = timedelta(seconds=order["patience"])
        if "slow_disk" in order:
            write_state = vitreous.training.places.write_state
            vitreous.training.places.write_state = lambda *given, **named: (
                time.sleep(order["slow_disk"]), write_state(*given, **named)
            )  # fmt: skip
        SCRIPTS[order["script"]](**order["given"])
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
