"""Time of few-shot evaluation, and of the other probes, from features that are in memory.

    python benchmarks/few_shot.py [--rounds N]    # a table, and results/few_shot.json

10,000 training and 10,000 test features of width 192, drawn around a centre for each class. Few-shot evaluation is 1,
5, 10 and 25 shots with three draws each, of one layer; beside it stands one least squares over all 10,000 images at
once, and the same written with `numpy.linalg.solve`, which is what a dense solve costs. Medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitreous.training.features import Features
from vitreous.training.few_shot import L2, few_shot, fit_few_shot
from vitreous.training.linear_probe import linear_probe
from vitreous.training.neighbours import nearest_neighbours

RESULTS = Path(__file__).parent / "results" / "few_shot.json"
IMAGES, WIDTH = 10_000, 192


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    rows = [measured(name, classes, work, rounds) for classes in (10, 100) for name, work in cases(classes).items()]
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    for row in rows:
        print(f"{row['case']:28} {row['classes']:4} classes {row['seconds']:8.3f} s")


def cases(classes: int) -> dict[str, Callable[[], Any]]:
    learned, tested = features(classes, seed=1), features(classes, seed=2)
    values, labels = learned.values[0], learned.labels
    return {
        "few-shot, 4 shots x 3 draws": lambda: few_shot(learned, tested, labels, classes),
        "least squares over all": lambda: fit_few_shot(values, labels, classes).predict(tested.values[0]),
        "the same by numpy's solve": lambda: dense(values, labels, classes, tested.values[0]),
        "linear probe": lambda: linear_probe(learned, tested, classes),
        "k-NN": lambda: nearest_neighbours(learned, tested, classes),
    }


def features(classes: int, seed: int) -> Features:
    centres = torch.randn(classes, WIDTH, generator=torch.Generator().manual_seed(0)) / 4
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (IMAGES,), generator=generator)
    values = centres[labels] + torch.randn(IMAGES, WIDTH, generator=generator)
    return Features(("read-out",), (values,), labels, torch.arange(IMAGES))


def dense(values: torch.Tensor, labels: torch.Tensor, classes: int, asked: torch.Tensor) -> np.ndarray:
    known, wanted = values.double().numpy(), asked.double().numpy()
    mean, deviation = known.mean(0), known.std(0) + 1e-5
    known = np.hstack([(known - mean) / deviation, np.full((len(known), 1), 100.0)])
    wanted = np.hstack([(wanted - mean) / deviation, np.full((len(wanted), 1), 100.0)])
    targets = 2 * np.eye(classes)[labels.numpy()] - 1
    weights = np.linalg.solve(known.T @ known + L2 * np.eye(WIDTH + 1), known.T @ targets)
    return (wanted @ weights).argmax(1)


def measured(name: str, classes: int, work: Callable[[], Any], rounds: int) -> dict[str, Any]:
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return {
        "case": name,
        "classes": classes,
        "images": IMAGES,
        "width": WIDTH,
        "seconds": round(statistics.median(seconds), 4),
        "rounds": rounds,
        "date": str(date.today()),
        "machine": f"{torch.get_num_threads()} cores, {platform.machine()}",
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()
