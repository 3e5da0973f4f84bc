"""Runs that are killed and started again, through the fork server."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

CONFIG = """
data: {data}
model: {{image_size: [8, 8], patch_size: [4, 4], width: 16, depth: 1, heads: 2, classes: 2, dropout: 0.1}}
preprocess: {{image_size: [8, 8], resize: squash, crop_fraction: 1.0, interpolation: bilinear}}
augmentation: {{shift: 1.0, flip: true}}
epochs: 3
batch_size: 8
ema: 0.9
precision: float32
device: cpu
keep: {{state_seconds: 0, models_every: 2, best: true}}
"""


@dataclass(frozen=True)
class Life:
    """How one start of a run ended.

    Attributes:
        codes: of each rank; minus the signal that ended it.
        seconds: until each ended.
        output: of all.
    """

    codes: list[int]
    seconds: list[float]
    output: str


@dataclass
class Server:
    """The fork server, and where it may write."""

    process: subprocess.Popen[str]
    folder: Path
    orders: int = 0

    def live(self, config: str, out: Path, *, world: int = 1, kills: Any = (), **more: Any) -> Life:
        """One start of a run, with signals for some ranks after so many seconds."""
        self.orders += 1
        order = {
            "script": "train",
            "given": {"config": config, "out": str(out)},
            "world": world,
            "attempt": self.orders,  # never the same twice, as torchrun's restarts
            "kills": [[rank, seconds, int(number)] for rank, seconds, number in kills],
            "log": str(self.folder / f"{self.orders}.log"),
        } | more
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return Life(**json.loads(self.process.stdout.readline()))


@contextmanager
def fork_server(folder: Path) -> Iterator[Server]:
    """A server that is ready."""
    folder.mkdir(parents=True, exist_ok=True)
    script = Path(__file__).with_name("fork_server.py")
    command = [sys.executable, "-W", "error", "-W", "ignore:.*fork:DeprecationWarning", str(script)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == '"ready"\n'
        server = Server(process, folder)
        server.live(tiny_config(folder / "rehearsal"), folder / "rehearsal" / "run", is_rehearsal=True)
        yield server
        assert process.stdin is not None
        process.stdin.close()


def tiny_config(folder: Path, more: str = "") -> str:
    """Settings of a run on 44 + 12 tiny images, which are made."""
    draw = random.Random(0)
    for part, count in (("train", 22), ("test", 6)):
        for name in ("dark", "light"):
            place = folder / "images" / part / name
            place.mkdir(parents=True)
            for number in range(count):
                low = 0 if name == "dark" else 100
                colours = bytes(draw.randrange(low, low + 156) for _ in range(8 * 8 * 3))
                Image.frombytes("RGB", (8, 8), colours).save(place / f"{number}.png")
    return CONFIG.format(data=folder / "images") + more


def result_of(out: Path) -> tuple[str, ...]:
    """What a finished run left: names of all files, so that no litter is among them, hashes of its weights and of those
    it kept on its way, and its numbers but for times.
    """
    paths = sorted(out.rglob("*"))
    names = [str(path.relative_to(out)) for path in paths if path.name != "curves.png"]  # the command line draws it
    weights = [path for path in paths if path.suffix == ".safetensors"]
    hashes = [f"{path.relative_to(out)} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in weights]
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    numbers = [{name: number for name, number in line.items() if not _is_of_the_clock(name)} for line in lines]
    return *names, *hashes, *(json.dumps(line, sort_keys=True) for line in numbers)


def _is_of_the_clock(name: str) -> bool:
    return any(word in name for word in ("second", "memory", "mfu"))


@dataclass
class Campaign:
    """What became of many kills."""

    kills: int = 0
    runs: int = 0
    results: set[tuple[str, ...]] = field(default_factory=set)
    codes: dict[str, int] = field(default_factory=dict)


def kill_again_and_again(
    server: Server, config: str, folder: Path, *, kills: int, mean: float, seed: int = 0, number: int = signal.SIGKILL,
    world: int = 1,
) -> Campaign:  # fmt: skip
    """Starts runs and kills each life after a random time, until there were so many kills; then lets the last end."""
    draw = random.Random(seed)
    done = Campaign()
    while done.kills < kills:
        out = folder / f"run-{done.runs}"
        while True:
            is_last = done.kills >= kills
            due = () if is_last else [(draw.randrange(world), draw.expovariate(1 / mean), number)]
            life = server.live(config, out, world=world, kills=due, is_torchrun=world > 1)
            done.codes[str(life.codes)] = done.codes.get(str(life.codes), 0) + 1
            if life.codes == [0] * world:
                break
            assert due and (life.codes[due[0][0]] == -number or number != signal.SIGKILL), life
            assert -signal.SIGABRT not in life.codes, life  # a rank that waited for another until the server's limit
            done.kills += 1
        done.runs += 1
        done.results.add(result_of(out))
    return done
