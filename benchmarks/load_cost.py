"""Time and memory of opening ViT-B/16 from a 330 MiB file, beside the libraries' own calls.

    python benchmarks/load_cost.py [--rounds N]    # a table, and results/load_cost.json

`vitreous.load` recognises the format, checks names, shapes and numbers, hashes the file and fills a new model. Beside
it stands the least that anyone must do: `safetensors.torch.load_file`, `numpy.load` or `torch.load`, and
`load_state_dict` into a model that is already there (what making it took stands beside), Google's arrays turned and
joined by the same plan. The files are in the page cache. Rounds alternate, each in a process of its own, and the
medians are compared. Memory is what the process's resident size grew by at most, as a share of the file.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

import vitreous
from vitreous.checkpoints.formats import google
from vitreous.checkpoints.reading import Found
from vitreous.model.presets import named_config
from vitreous.model.vit import VisionTransformer

RESULTS = Path(__file__).parent / "results" / "load_cost.json"
FILES = {"safetensors": "timm/model.safetensors", "npz": "google.npz", "pth": "timm.pth"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", nargs=2, metavar=("CASE", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measured(arguments.child[0], Path(arguments.child[1]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder))
        rows = [row for kind, name in FILES.items() for row in compared(kind, Path(folder) / name, arguments.rounds)]
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    for row in rows:
        print(
            f"{row['container']:12} {row['case']:10} {row['seconds']:6.2f} s  {row['time_ratio']:5.2f}x  "
            f"(model made in {row['seconds_for_the_model']:.2f} s)  "
            f"memory {row['memory_ratio']:5.2f}x of the file"
        )


def write_files(folder: Path) -> None:
    config = named_config("B/16", activation="gelu-tanh")
    model = VisionTransformer(config, generator=torch.Generator().manual_seed(0))
    vitreous.save(model, folder / "timm")
    vitreous.save(model, folder / "google.npz", to="google")
    torch.save(model.state_dict(), folder / "timm.pth")


def compared(kind: str, path: Path, rounds: int) -> list[dict[str, Any]]:
    found: dict[str, list[dict[str, float]]] = {"plain": [], "vitreous": []}
    for _ in range(rounds):
        for case, results in found.items():
            command = [sys.executable, __file__, "--child", f"{case}-{kind}", str(path)]
            results.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    size = path.stat().st_size
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(found["plain"], found["vitreous"], strict=True)]
    return [
        {
            "container": kind,
            "case": case,
            "file_mib": round(size / 2**20),
            "seconds": round(statistics.median(one["seconds"] for one in results), 3),
            "seconds_for_the_model": round(statistics.median(one["made"] for one in results), 3),
            "time_ratio": 1.0 if case == "plain" else round(statistics.median(ratios), 2),
            "memory_ratio": round(statistics.median(one["memory"] for one in results) / size, 2),
            "rounds": rounds,
            "date": str(date.today()),
            "machine": f"{torch.get_num_threads()} cores, {platform.machine()}",
            "torch": torch.__version__,
        }
        for case, results in found.items()
    ]


def measured(case: str, path: Path) -> dict[str, float]:
    who, _, kind = case.partition("-")
    if who == "plain":
        began = time.perf_counter()
        model = VisionTransformer(named_config("B/16", activation="gelu-tanh"), generator=torch.Generator())
        made = time.perf_counter() - began
    else:
        made = 0.0
        vitreous.load  # noqa: B018 - imported before the clock starts
    before, began = memory("VmRSS"), time.perf_counter()
    if who == "vitreous":
        vitreous.load(path)
    elif kind == "safetensors":
        model.load_state_dict(load_file(path))
    elif kind == "pth":
        model.load_state_dict(torch.load(path, weights_only=True))
    else:
        arrays = {name: torch.from_numpy(array) for name, array in np.load(path).items()}
        shapes = {name: tuple(array.shape) for name, array in arrays.items() if name != "vitreous"}
        plan = google.read(Found(shapes, "npz")).plan
        model.load_state_dict({ours: part.make(*(arrays[s] for s in part.sources)) for ours, part in plan.items()})
    return {"seconds": time.perf_counter() - began, "memory": memory("VmHWM") - before, "made": made}


def memory(entry: str) -> int:
    """Bytes of this process now (VmRSS) or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(entry))


if __name__ == "__main__":
    main()
