"""Images a second of looking inside ViT-B/16 over a folder of photographs, beside the plain forward pass.

    python benchmarks/stream_cost.py FOLDER [--workers N]    # a table, and results/stream_cost.json

Both decode every picture of the folder in the same way, with the same batches and workers, and run the same model of
random weights. Rounds alternate, a round is a few batches, and the medians are compared.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from itertools import pairwise
from pathlib import Path

import torch

from vitreous.data.gather import Pictures, gather_pictures
from vitreous.data.loading import load_batches, workers_for
from vitreous.data.preprocess import Preprocess
from vitreous.data.transforms import normalise
from vitreous.inspecting.inspector import inspect_model
from vitreous.model.presets import named_config
from vitreous.model.vit import VisionTransformer

RESULTS = Path(__file__).parent / "results" / "stream_cost.json"
BATCH = 16
PREPROCESS = Preprocess()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=4)
    arguments = parser.parse_args()
    pictures = gather_pictures(arguments.folder)
    model = VisionTransformer(named_config("B/16"), generator=torch.Generator().manual_seed(0)).eval()
    workers = workers_for(len(pictures), torch.device("cpu")) if arguments.workers is None else arguments.workers

    def plain(some: Pictures) -> None:
        batches = [range(first, min(first + BATCH, len(some))) for first in range(0, len(some), BATCH)]
        with load_batches(some, PREPROCESS, batches, workers) as loaded, torch.no_grad():
            for batch in loaded:
                model(normalise(batch.images, PREPROCESS))

    def inspect(some: Pictures) -> None:
        inspect_model(model, some, preprocess=PREPROCESS, batch_size=BATCH, workers=workers)

    cases: dict[str, Callable[[Pictures], None]] = {"plain forward pass": plain, "inspect_model": inspect}
    speeds: dict[str, list[float]] = {name: [] for name in cases}
    edges = [round(n * len(pictures) / arguments.rounds) for n in range(arguments.rounds + 1)]
    for first, last in pairwise(edges):
        some = pictures.chosen(list(range(first, last)))
        for name, case in cases.items():
            began = time.perf_counter()
            case(some)
            speeds[name].append(len(some) / (time.perf_counter() - began))
    machine = f"{torch.get_num_threads()} cores, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    rows = [
        {
            "case": name,
            "images": len(pictures),
            "images_per_second": round(statistics.median(found), 2),
            "share_of_plain": round(
                statistics.median(a / b for a, b in zip(found, speeds["plain forward pass"], strict=True)), 3
            ),
            "workers": workers,
            "batch": BATCH,
            "date": str(date.today()),
            "machine": machine,
            "torch": torch.__version__,
        }
        for name, found in speeds.items()
    ]
    for row in rows:
        print(f"{row['case']:20} {row['images_per_second']:6} images/s  {row['share_of_plain']:.0%} of plain")
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
