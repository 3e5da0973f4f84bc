"""Longer campaigns than the tests have time for: python tests/faults/soak.py --help"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import failing_disk
import lives
import power_cut
import torch
import writers

Row = tuple[str, int, int, str]


def main() -> None:
    """Runs what is asked for and prints a table; exits with 1 if anything was lost."""
    options = _options()
    campaigns: list[tuple[str, Callable[[Path], tuple[int, str]]]] = [
        ("calls that fail", lambda folder: _faults(folder, options.faults)),
        ("power cuts", _power_cuts),
    ]
    rows: list[Row] = []
    with _folder(options.folder) as folder:
        for name, campaign in campaigns:
            rows.append(_timed(name, campaign, folder))
        with lives.fork_server(folder / "server") as server:
            for world, kills in ((1, options.kills), (2, options.rank_kills)):
                for seed in range(options.seeds):
                    name = f"kills, {world} process{'es' * (world > 1)}, seed {seed}"
                    rows.append(_timed(name, _kills(server, kills, world, seed, options.mean), folder))
    _print(rows)
    if options.json is not None:
        found = {"date": str(date.today()), "torch": torch.__version__}
        table = [dict(zip(("campaign", "faults", "seconds", "outcome"), row, strict=True)) for row in rows]
        options.json.write_text(json.dumps([row | found for row in table], indent=1) + "\n")
    sys.exit(any(outcome != "none lost" for *_, outcome in rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=2000, help="SIGKILLs of a run in one process, for each seed")
    parser.add_argument("--rank-kills", type=int, default=100, help="SIGKILLs of one of two processes, for each seed")
    parser.add_argument("--mean", type=float, default=0.25, help="seconds that a life lasts, on average")
    parser.add_argument("--faults", type=int, default=10_000, help="calls of each writer that fail in each way")
    parser.add_argument("--seeds", type=int, default=1, help="of the times")
    parser.add_argument("--folder", type=Path, help="where to; memory, where there is a file system in it")
    parser.add_argument("--json", type=Path, help="write the table there, too")
    return parser.parse_args()


def _faults(folder: Path, most: int) -> tuple[int, str]:
    count = 0
    for name, writer in writers.writers(failing_disk.Writer).items():
        for kind in failing_disk.KINDS:
            count += failing_disk.fail_each_call(writer, folder / "faults" / name / kind, kind, most).faults
    return count, "none lost"


def _power_cuts(folder: Path) -> tuple[int, str]:
    count = 0
    for name, writer in writers.writers(failing_disk.Writer).items():
        if name != "model for Google":  # 200 calls on one file, which "text" has in 9
            count += power_cut.cut_after_each_call(writer, failing_disk.Disk, folder / "power" / name)[0]
    return count, "none lost"


def _kills(server: lives.Server, kills: int, world: int, seed: int, mean: float) -> Callable[[Path], tuple[int, str]]:
    def campaign(folder: Path) -> tuple[int, str]:
        place = folder / f"{world}-{seed}"
        config = lives.tiny_config(place)
        whole = server.live(config, place / "whole", world=world)
        assert whole.codes == [0] * world, whole.output
        done = lives.kill_again_and_again(server, config, place, kills=kills, mean=mean * world, seed=seed, world=world)
        expected = set(lives.result_of(place / "whole"))
        strange = sorted({line for result in done.results for line in expected ^ set(result)})
        return done.kills, f"differs: {'; '.join(strange)[:300]}" if strange else "none lost"

    return campaign


def _timed(name: str, campaign: Callable[[Path], tuple[int, str]], folder: Path) -> Row:
    began = time.monotonic()
    try:
        count, outcome = campaign(folder)
    except AssertionError as error:
        count, outcome = 0, f"failed: {str(error)[:300]}"
    return name, count, round(time.monotonic() - began), outcome


def _print(rows: list[Row]) -> None:
    print(f"{'campaign':32} {'faults':>8} {'seconds':>8}  outcome")
    for name, count, seconds, outcome in rows:
        print(f"{name:32} {count:8,} {seconds:8,}  {outcome}")


@contextmanager
def _folder(wanted: Path | None) -> Iterator[Path]:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=wanted or (memory if os.access(memory, os.W_OK) else None)) as folder:
        yield Path(folder)


if __name__ == "__main__":
    main()
