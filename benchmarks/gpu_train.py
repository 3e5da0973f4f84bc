"""What training does on an NVIDIA GPU: all that a machine without one cannot show, in one call.

    python benchmarks/gpu_train.py --data cifar10/ [--minutes 25] [--only NAME ...]    # results/gpu_train.json

    speed       images a second beside timm's model in a plain loop, both compiled
    recipes     20 steps of the ImageNet recipes at 224 pixels, of fine-tuning at 384, of masked patch prediction
    killed      a run that is killed and given again ends with the same weights, to the bit
    processes   DistributedDataParallel and FSDP2 under torchrun, one process on each GPU, over NCCL
    cifar10     the bundled models' recipes, longer and with stronger augmentation: 200 epochs, 30 of the twin

Each part is commands as a user gives them, and leaves its seconds, exit code and last lines; parts that no longer fit
into the minutes are left out, and said. With `--device cpu` the parts start on any machine, to see that they do, and
nothing is kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results" / "gpu_train.json"
STRONG = ["--batch-size=512", "--optimizer.warmup=1000", "--augmentation.policy=randaugment"]
STRONG += ["--augmentation.cutmix=1", "--augmentation.mixup=0.8", "--augmentation.erasing=0.25"]
LINES = 3  # of a command's output that are kept


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--data", required=True)
    asked.add_argument("--minutes", type=float, default=25.0)
    asked.add_argument("--device", default="cuda")
    asked.add_argument("--only", nargs="+", choices=("speed", "recipes", "killed", "processes", "cifar10"))
    asked.add_argument("--runs", type=Path, help="where runs are kept; a temporary folder if left out")
    given = asked.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no GPU is here; --device cpu only shows that the parts start")
    with tempfile.TemporaryDirectory() as folder:
        parts = Parts(given.device, time.monotonic() + 60 * given.minutes, given.runs or Path(folder))
        for name in given.only or ("speed", "recipes", "killed", "processes", "cifar10"):
            if name == "cifar10":
                parts.cifar10(given.data)
            else:
                getattr(parts, name)()
            if given.device == "cuda":
                machine = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "date": str(date.today())}
                RESULTS.write_text(json.dumps(machine | {"parts": parts.found}, indent=1) + "\n")


class Parts:
    """What is run, and what came of it."""

    def __init__(self, device: str, ends: float, runs: Path) -> None:
        self.device, self.ends, self.runs = device, ends, runs
        self.found: list[dict[str, Any]] = []

    def speed(self) -> None:
        """The benchmark beside timm's model."""
        self._run("speed", [sys.executable, str(Path(__file__).with_name("train_cost.py")), "--steps", "40"])

    def recipes(self) -> None:
        """Recipes that need a GPU start, on synthetic images."""
        images = "64" if self.device == "cuda" else "2"
        for name in ("imagenet1k-s16", "imagenet1k-b16", "finetune"):
            data = ["--data", f"synthetic:100x10x{384 if name == 'finetune' else 224}", "--model.classes", "10"]
            settings = ["--steps", "20", "--batch-size", images, "--accumulate", "1", "--workers", "8"]
            if name == "finetune":  # from the recipe before, which has another GELU than the paper's models
                start = str(self.runs / "recipe imagenet1k-b16" / "model")
                settings += ["--start", start, "--model.activation", "gelu"]
            self._train(f"recipe {name}", ["--preset", name, *data, *settings])
        masked = ["--preset", "cifar10-ti4", "--data", "synthetic:640x10x32", "--task", "masked-patches"]
        self._train("masked patches", [*masked, "--steps", "20"])

    def killed(self) -> None:
        """The weights of a run killed three times are those of one that was not."""
        settings = ["--preset", "cifar10-ti4", "--data", "synthetic:640x10x32", "--steps", "60"]
        settings += ["--keep.state-seconds", "0"]
        self._train("whole", settings)
        for _ in range(3):
            with subprocess.Popen(self._words("killed", settings), stderr=subprocess.DEVNULL) as run:
                time.sleep(15)
                run.send_signal(signal.SIGKILL)
        self._train("killed", settings)
        names = ("whole", "killed")
        weights = [hashlib.sha256((self.runs / name / "model/model.safetensors").read_bytes()) for name in names]
        self._keep("killed 3 times", same_weights=weights[0].digest() == weights[1].digest())

    def processes(self) -> None:
        """Each way to share a run among processes."""
        count = str(max(1, torch.cuda.device_count()))
        for parallel in ("ddp", "fsdp"):
            settings = ["--preset", "cifar10-ti4", "--data", "synthetic:640x10x32", "--steps", "40"]
            words = self._words(parallel, [*settings, "--parallel", parallel])
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count]
            self._run(parallel, [*torchrun, *words[1:]])

    def cifar10(self, data: str) -> None:
        """Both models that come along, as strong as a GPU makes them in minutes."""
        workers = ["--data", data, "--workers", str(max(1, (os.cpu_count() or 2) - 2))]
        self._train("cifar10-resnet", ["--preset", "cifar10-resnet", *workers, *STRONG, "--epochs", "30"])
        self._train("cifar10-ti4", ["--preset", "cifar10-ti4", *workers, *STRONG, "--epochs", "200"])

    def _words(self, name: str, settings: list[str]) -> list[str]:
        out = ["--out", str(self.runs / name), "--device", self.device]
        return [sys.executable, "-m", "vitreous", "train", *settings, *out]

    def _train(self, name: str, settings: list[str]) -> None:
        self._run(name, self._words(name, settings))
        metrics = self.runs / name / "metrics.jsonl"
        if metrics.exists() and (lines := metrics.read_text("utf-8").splitlines()):
            self.found[-1]["last_metrics"] = json.loads(lines[-1])

    def _run(self, name: str, words: list[str]) -> None:
        left = self.ends - time.monotonic()
        if left < 30:
            self._keep(name, left_out="no time was left")
            return
        began = time.monotonic()
        try:
            run = subprocess.run(words, capture_output=True, text=True, timeout=left)
            code, told = run.returncode, (run.stdout + run.stderr).splitlines()[-LINES:]
        except subprocess.TimeoutExpired:
            code, told = None, ["stopped: the minutes were over"]
        self._keep(name, seconds=round(time.monotonic() - began, 1), exit_code=code, told=told)

    def _keep(self, name: str, **what: Any) -> None:
        self.found.append({"part": name, **what})
        print(json.dumps(self.found[-1]), flush=True)


if __name__ == "__main__":
    main()
