"""Makes a model that comes with vitreous of a finished run: weights in bfloat16, and a card with what was measured.

    python docs/make_bundled.py cifar10-resnet runs/cnn --data cifar10/ --machine "2 cores of an x86-64 server"
    python docs/make_bundled.py cifar10-ti4 runs/first runs/second runs/third --data cifar10/ --machine "..."

Of several runs each started from the model of the one before: their times and epochs count, and their curves become
one, in docs/training/. The accuracy is that of the weights as they are written, over the whole test part.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from pathlib import Path
from typing import Any

import torch

from vitreous.atomic import write_atomically
from vitreous.checkpoints.saving import save
from vitreous.checkpoints.sources import open_model
from vitreous.checkpoints.words import BUNDLED
from vitreous.data.datasets import open_dataset
from vitreous.figures.curves import draw_curves
from vitreous.figures.files import write_figure
from vitreous.training.evaluate import Evaluation, evaluate
from vitreous.training.runs import read_metrics

HERE = Path(__file__).parent
MOST_BYTES = 12_000_000

CARD = """# {name}

{what}

{table}
## Training

{images:,} images of CIFAR-10's training part (Krizhevsky 2009), {epochs} epochs, seed {seed}, one run:

{commands}

{hours} on {machine}.{stages}
The weights are those after the last step; no others were chosen by the test part. They were rounded to bfloat16 for
this file, and the accuracies below are of the rounded ones.

## Accuracy

**{top1:.2%}** of the 10,000 test images (95 % interval {low:.1%} to {high:.1%}), {top5:.2%} among the first five;
loss {loss:.3f} nats.

| class | right | taken most often for |
| --- | --- | --- |
{classes}

## Limits

- It knows ten classes and answers with one of them, whatever it is shown.
- It was trained on photographs of 32 x 32 pixels. A larger one is resized to that; most of what is in it is lost.
- {honest}
- CIFAR-10's images were collected from the web without asking who is in them, and about 3 % of the test images have a
  near copy in the training part (Barz & Denzler 2020): accuracy on new pictures is lower.
- It is here to be looked into, not to be relied on.

## Use

    vitreous predict {name} photo.jpg
    vitreous describe {name}
"""

COMMANDS = {
    "cifar10-ti4": """    vitreous train --preset cifar10-ti4 --data cifar10/ --out first
    vitreous train --preset cifar10-ti4 --data cifar10/ --start first/model --optimizer.learning-rate 0.0012 \\
        --optimizer.warmup 200 --augmentation.policy randaugment --augmentation.cutmix 1 \\
        --augmentation.mix-probability 0.3 --out second
    vitreous train --preset cifar10-ti4 --data cifar10/ --start second/model --optimizer.learning-rate 0.0007 \\
        --optimizer.warmup 100 --augmentation.policy randaugment --augmentation.cutmix 1 \\
        --augmentation.mix-probability 0.3 --epochs 14 --out third""",
    "cifar10-resnet": "    vitreous train --preset cifar10-resnet --data cifar10/ --out run",
}
ABOUT = {
    "cifar10-ti4": (
        "A plain Vision Transformer as in the paper, with patches of 4 x 4 pixels, a class token and learned\n"
        "positions; the size is that of ViT-Lite-6/4 (Hassani et al. 2021, arXiv 2104.05704).",
        "It was trained for {hours} on a CPU: plain ViTs of this size reach more with a longer training.\n"
        "- That there was a third command, and no fourth, was decided by the test part, whose accuracy is so a little\n"
        "  too good. The first 357 steps of that command ran on two threads, which rounds differently.",
    ),
    "cifar10-resnet": (
        "A ResNet without attention, the twin of `cifar10-ti4`: about as many parameters, the same 8 x 8 map of\n"
        "features, the same data, the augmentation of its later epochs, and fewer of them, each of which takes longer.",
        "It was trained for {hours} on a CPU: ResNets of this size reach above 90 % with a longer training.",
    ),
}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("name", choices=sorted(ABOUT))
    asked.add_argument("runs", type=Path, nargs="+")
    asked.add_argument("--data", required=True)
    asked.add_argument("--machine", required=True)
    given = asked.parse_args()
    trained = open_model(given.runs[-1])
    folder = BUNDLED / given.name
    provenance = dict(trained.model.provenance["saved"])
    provenance["data"] = provenance["data"] | {"name": "cifar10"}
    start = re.findall(r"--start (\S+)", COMMANDS[given.name])[-1:]
    provenance["config"] = provenance["config"] | {"data": "cifar10", "start": start[0] if start else None}
    save(trained.model.bfloat16(), folder, provenance=provenance)
    opened = open_model(folder)
    found = evaluate(opened, open_dataset(given.data), batch_size=500, progress=True)
    write_atomically(folder / "README.md", card(given.name, folder, found, provenance, given.runs, given.machine))
    write_figure(draw_curves({given.name: joined(given.runs)}), HERE / "training" / f"{given.name}.png")
    size = (folder / "model.safetensors").stat().st_size
    assert size <= MOST_BYTES, f"{size} bytes are too many for the repository"
    print(f"{folder}: {found.top1:.2%}, {size:,} bytes")


def card(name: str, folder: Path, found: Evaluation, provenance: dict, runs: list[Path], machine: str) -> str:
    saved = (folder / "README.md").read_text(encoding="utf-8")
    front, _, rest = saved.partition("# Vision Transformer\n")
    table, _, _ = rest.partition("```python")
    low, high = wilson(found.top1, found.images)
    what, honest = ABOUT[name]
    last = [json.loads((run / "metrics.jsonl").read_text("utf-8").splitlines()[-1]) for run in runs]
    hours = f"{sum(line['elapsed_seconds'] for line in last) / 60:.0f} minutes"
    shares = [f"{line['test_top1']:.1%} in {line['elapsed_seconds'] / 60:.0f}" for line in last]
    return front + CARD.format(
        name=name,
        what=what,
        table=table.strip() + "\n",
        images=provenance["data"]["train_images"],
        epochs=" + ".join(str(line["epoch"]) for line in last),
        commands=COMMANDS[name],
        seed=provenance["config"]["seed"],
        hours=hours,
        machine=machine,
        stages=f"\nAfter each command: {', '.join(shares)} minutes." if len(last) > 1 else "",
        top1=found.top1,
        low=low,
        high=high,
        top5=found.top5,
        loss=found.loss,
        classes="\n".join(rows(found)),
        honest=honest.format(hours=hours),
    )


def joined(runs: list[Path]) -> list[dict[str, Any]]:
    """Metrics of runs that started from each other, as if they were one."""
    lines: list[dict[str, Any]] = []
    for run in runs:
        before, found = lines[-1]["step"] if lines else 0, read_metrics(run)
        if all("epoch" in line for line in found):  # of a version that wrote no lines in between
            means = [{name: line[name] for name in ("step", "train_loss_nats")} for line in found]
            found = [line for pair in zip(means, found, strict=True) for line in pair]
        lines += [line | {"step": before + line["step"]} for line in found]
    return lines


def rows(found: Evaluation) -> list[str]:
    wrong = found.confusion - torch.diag(found.confusion.diag())
    return [
        f"| {name} | {share:.1%} | {found.class_names[int(wrong[n].argmax())]} ({int(wrong[n].max())} of "
        f"{int(found.confusion[n].sum()):,}) |"
        for n, (name, share) in enumerate(zip(found.class_names, found.per_class.tolist(), strict=True))
    ]


def wilson(share: float, images: int) -> tuple[float, float]:
    """The 95 % interval of a share. Source: Wilson 1927."""
    z = 1.959964
    centre = share + z * z / (2 * images)
    half = z * math.sqrt(share * (1 - share) / images + z * z / (4 * images * images))
    return (centre - half) / (1 + z * z / images), (centre + half) / (1 + z * z / images)


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
