"""Time and memory of measuring what two models make of the same parts in another place.

    python benchmarks/arrangement_cost.py DATA [--most 2000] [--rounds 1]   # a table, and results/arrangement_cost.json

Two models of about 3 million parameters, `cifar10-ti4` and a ResNet of the size of `cifar10-resnet` (with first
weights: time does not depend on them), and everything that `vitreous arrangement` does with them. DATA is CIFAR-10.
Also told:

- the share of the forward passes: the time of as many plain passes of the same models, over the whole;
- one pass of each model, plain and as it is made here (`arrangement.quick`, channels last), in ms an image;
- the process' largest memory, for all images and for a quarter of them, which should not differ.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch

from vitreous.arrangement.inputs import open_images
from vitreous.arrangement.measure import measure_arrangement
from vitreous.arrangement.quick import quick_linear
from vitreous.checkpoints.loaded import LoadedModel
from vitreous.checkpoints.sources import open_model
from vitreous.model.vit import VisionTransformer
from vitreous.training.recipes import cifar10_resnet

RESULTS = Path(__file__).parent / "results" / "arrangement_cost.json"
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--most", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)  # one run in a process of its own
    asked = parser.parse_args()
    if asked.memory:
        run(asked.data, asked.most)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        return
    row = measured(asked.data, asked.most, asked.rounds)
    row["MiB"] = {most: memory(asked.data, most) for most in (asked.most // 4, asked.most)}
    RESULTS.write_text(json.dumps([row], indent=1) + "\n")
    for name, value in row.items():
        print(f"{name:24} {value}")


def measured(data: str, most: int, rounds: int) -> dict[str, Any]:
    seconds, provenance = [], {}
    for _ in range(rounds):
        began = time.perf_counter()
        provenance = run(data, most)
        seconds.append(time.perf_counter() - began)
    passes = {loaded.name: one_pass(loaded) for loaded in models()}
    whole = statistics.median(seconds)
    half = provenance["forward_passes"] / 2 / 1000  # about as many of each model
    return {
        "images": most,
        "seconds": round(whole, 1),
        "forward_passes": provenance["forward_passes"],
        "passes_share": round(half * sum(times["here_ms"] for times in passes.values()) / whole, 3),
        "one_pass": passes,
        "rounds": rounds,
        "date": str(date.today()),
        "machine": f"CPU with {torch.backends.cpu.get_cpu_capability()}, {platform.machine()}",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def models() -> list[LoadedModel]:
    vit = open_model("cifar10-ti4")
    cnn = VisionTransformer(cifar10_resnet().model, generator=torch.Generator().manual_seed(0)).eval()
    return [vit, LoadedModel(cnn, "cifar10-resnet", vit.preprocess, vit.class_names, "vitreous", "")]


def run(data: str, most: int) -> dict[str, Any]:
    found = measure_arrangement(models(), open_images(data, most), batch_size=BATCH, progress=sys.stderr.isatty())
    return dict(found.provenance)


def one_pass(loaded: LoadedModel, rounds: int = 15) -> dict[str, float]:
    """Milliseconds an image, medians; plain and quick passes take turns."""
    images = torch.randn(BATCH, 3, 32, 32)
    is_vit = loaded.name == "cifar10-ti4"
    others = images if is_vit else images.to(memory_format=torch.channels_last)
    times: dict[str, list[float]] = {"plain_ms": [], "here_ms": []}
    with torch.no_grad():
        for _ in range(rounds):
            times["plain_ms"].append(timed(lambda: loaded.model(images)))
            with quick_linear():
                times["here_ms"].append(timed(lambda: loaded.model(others)))
    return {name: round(1000 * statistics.median(values) / BATCH, 3) for name, values in times.items()}


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def memory(data: str, most: int) -> int:
    """The largest memory of a process that does it, in MiB."""
    command = [sys.executable, __file__, data, "--most", str(most), "--memory"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


if __name__ == "__main__":
    main()
