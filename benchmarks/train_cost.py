"""Images a second in training, beside timm's model in a plain loop, and what the loader alone gives.

    python benchmarks/train_cost.py [--rounds N] [--steps N] [--cases ti4 s16]    # a table, and results/train_cost.json

Ti/4 on images of CIFAR-10's size and S/16 at 224 pixels, from first weights, with AdamW and clipping. The plain loop is
what one writes on a page: batch, zero_grad, autocast, cross-entropy, backward, clip, step. Both read the same batches
from the same loader, in the same precision, on the same device, compiled where a GPU is found; ours does besides what a
run does: it seeds dropout, sets the rate, checks each loss and sums the metrics. Rounds alternate in one process, the
first round is not counted, and medians are compared. The loader alone makes the same batches for nobody.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vitreous.checkpoints.optional import let_torchvision_import
from vitreous.data.augmentation import Augmentation
from vitreous.data.preprocess import Preprocess
from vitreous.data.training_batches import training_batches
from vitreous.model.config import ViTConfig
from vitreous.training import loop
from vitreous.training.config import Optim, TrainConfig
from vitreous.training.distributed import Ranks
from vitreous.training.metrics import Tally
from vitreous.training.preparing import Run, prepare
from vitreous.training.reproducible import reproducible

RESULTS = Path(__file__).parent / "results" / "train_cost.json"
CASES: dict[str, dict[str, Any]] = {
    "ti4": {
        "images": "synthetic:256x10x32",
        "model": ViTConfig((32, 32), (4, 4), classes=10, width=192, depth=12, heads=3),
        "timm": {"model_name": "vit_tiny_patch16_224", "img_size": 32, "patch_size": 4},
        "augmentation": Augmentation(shift=4.0, flip=True),
        "batch_size": 128,
    },
    "s16": {
        "images": "synthetic:16x10x224",
        "model": ViTConfig((224, 224), (16, 16), classes=10, width=384, depth=12, heads=6),
        "timm": {"model_name": "vit_small_patch16_224"},
        "augmentation": Augmentation(flip=True, policy="randaugment"),
        "batch_size": 32,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=8, help="in a round")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--batch-size", type=int, help="images of a step, in place of the case's own")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    arguments = parser.parse_args()
    rows = [measured(case, arguments) for case in arguments.cases]
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    for row in rows:
        speeds = "  ".join(f"{name} {row[name]:8,.1f} images/s" for name in ("vitreous", "timm", "loader"))
        print(f"{row['case']:5} {row['precision']:9} {speeds}  {row['ratio']:.2f}x of timm's")


def measured(case: str, arguments: argparse.Namespace) -> dict[str, Any]:
    chosen = CASES[case]
    size = chosen["model"].image_size
    config = TrainConfig(
        data=chosen["images"],
        model=chosen["model"],
        preprocess=Preprocess(size, "squash", 1.0),
        optimizer=Optim(learning_rate=1e-4, warmup=10),
        augmentation=chosen["augmentation"],
        batch_size=arguments.batch_size or chosen["batch_size"],
        steps=10**6,
        precision=arguments.precision,
        threads=arguments.threads,
        workers=arguments.workers,
    )
    with tempfile.TemporaryDirectory() as folder, reproducible(arguments.threads):
        run = prepare(config, Path(folder), Ranks(), progress=False)
        theirs = their_model(chosen["timm"], run)
        ways = {"vitreous": ours(run), "timm": plain(theirs, run), "loader": lambda part: None}
        found: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(arguments.rounds + 1):
            for name, step in ways.items():
                found[name].append(speed(run, step, arguments.steps, epoch=turn))
    medians = {name: round(statistics.median(speeds[1:]), 1) for name, speeds in found.items()}
    ratios = [a / b for a, b in zip(found["vitreous"][1:], found["timm"][1:], strict=True)]
    return {
        "case": case,
        "precision": run.arithmetic.precision,
        **medians,
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "batch_size": config.batch_size,
        "steps": arguments.steps,
        "date": str(date.today()),
        "machine": f"{run.arithmetic.processor}, {arguments.threads} threads, {platform.machine()}",
        "torch": torch.__version__,
    }


def speed(run: Run, step: Callable[[Any], None], steps: int, epoch: int) -> float:
    """Images a second over some steps, reading included."""
    images, began = 0, time.perf_counter()
    while steps > 0:
        with training_batches(run.images, run.plan, epoch=epoch, steps=steps) as batches:
            for part in batches:
                step(part)
                images, steps = images + len(part.samples), steps - 1
        epoch += 1000
    if run.arithmetic.device.type == "cuda":
        torch.cuda.synchronize()
    return images / (time.perf_counter() - began)


def ours(run: Run) -> Callable[[Any], None]:
    tally, done = Tally(run.images.images.image_names), [0]

    def step(part: Any) -> None:
        run.spread_out.train()
        tally.waiting.append(loop._step(run, done[0], 0, [part], 1e-4))
        done[0] += 1
        if run.arithmetic.device.type == "cpu" or len(tally.waiting) == loop.STEPS_AHEAD:
            tally.settle(1.0)

    return step


def their_model(names: dict[str, Any], run: Run) -> nn.Module:
    let_torchvision_import()
    import timm

    model: nn.Module = timm.create_model(**names, num_classes=run.plan.classes).to(run.arithmetic.device).train()
    if run.arithmetic.compiles:
        model.compile()
    return model


def plain(model: nn.Module, run: Run) -> Callable[[Any], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05, fused=True)
    device, dtype = run.arithmetic.device, run.arithmetic.dtype

    def step(part: Any) -> None:
        images, labels = part.images.to(device, non_blocking=True), part.targets.to(device, non_blocking=True)
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
