"""Photographs a second, from files to 224-pixel tensors, beside the usual Pillow pipeline.

    python benchmarks/decode_cost.py FOLDER [--rounds N] [--images N]    # a table, and results/decode_cost.json

One thread, files in the page cache. The usual pipeline is timm's for evaluation: Pillow decodes and resizes, bicubic,
224 of 256 pixels. Beside it, with the same geometry: Pillow decodes and torch resizes; simplejpeg decodes and Pillow
resizes, which gives the same pixels as the first; simplejpeg decodes and torch resizes. Rounds alternate, and medians
are compared. `largest_difference` is that of a pixel from the usual pipeline's, of 255.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitreous.data import images as decoding
from vitreous.data.gather import gather_pictures
from vitreous.data.preprocess import Preprocess

RESULTS = Path(__file__).parent / "results" / "decode_cost.json"
PILLOW = Preprocess()
TORCH = replace(PILLOW, resampler="torch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pictures = gather_pictures(arguments.folder).spread(arguments.images)
    cases = {
        "Pillow, Pillow": lambda index: usual(pictures.names[index]),
        "Pillow, torch": lambda index: pictures.pixels(index, TORCH),
        "simplejpeg, Pillow": lambda index: pictures.pixels(index, PILLOW),
        "simplejpeg, torch": lambda index: pictures.pixels(index, TORCH),
    }
    wanted = [usual(name) for name in pictures.names]
    speeds: dict[str, list[float]] = {name: [] for name in cases}
    differences: dict[str, float] = {}
    for _ in range(arguments.rounds):
        for name, case in cases.items():
            with without_simplejpeg() if name == "Pillow, torch" else with_it():
                began = time.perf_counter()
                made = [case(index) for index in range(len(pictures))]
                speeds[name].append(len(pictures) / (time.perf_counter() - began))
            differences[name] = max((a.int() - b.int()).abs().max().item() for a, b in zip(made, wanted, strict=True))
    rows = [
        {
            "case": name,
            "images": len(pictures),
            "images_per_second": round(statistics.median(speeds[name]), 1),
            "slowest": round(min(speeds[name]), 1),
            "fastest": round(max(speeds[name]), 1),
            "times_the_usual": round(statistics.median(map(quotient, speeds[name], speeds["Pillow, Pillow"])), 3),
            "largest_difference": differences[name],
            "date": date.today().isoformat(),
            "machine": f"one thread, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
            "versions": {name: version(name) for name in ("torch", "pillow", "simplejpeg")},
        }
        for name in cases
    ]
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    for row in rows:
        print(
            f"{row['case']:20} {row['images_per_second']:7.1f} images/s  {row['times_the_usual']:5.2f}x  "
            f"differs by {row['largest_difference']} of 255 at most"
        )


def usual(path: str) -> Tensor:
    """What timm's and torchvision's evaluation transforms do, written down: (3, 224, 224) uint8."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    share = 256 / min(image.size)
    size = [256 if side == min(image.size) else int(side * share) for side in image.size]
    image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (round((side - 224) / 2) for side in image.size)
    image = image.crop((left, top, left + 224, top + 224))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def quotient(speed: float, of: float) -> float:
    return speed / of


@contextmanager
def without_simplejpeg() -> Iterator[None]:
    with patch.object(decoding, "jpeg_pixels", lambda file, image: None):
        yield


@contextmanager
def with_it() -> Iterator[None]:
    yield


if __name__ == "__main__":
    main()
