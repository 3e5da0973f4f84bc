"""Makes docs/training.md: what training was measured to do, from the files that the measurements left.

    python docs/make_training.py

Figures come from the cards of the bundled models, from benchmarks/results, and from docs/ablations, where a folder is
what `vitreous ablate NAME --out` left. What was not measured is not in it.
"""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

from vitreous.checkpoints.words import BUNDLED, bundled_names
from vitreous.training.recipes import PRESETS

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks" / "results"
ABLATIONS = HERE / "ablations"
OUT = HERE / "training.md"

HEAD = """# Training

    vitreous train --preset NAME [--data DATA] --out RUN      # or --preset settings.yaml; every setting is an option
    vitreous train --preset NAME --out RUN                    # again: goes on where it was stopped or killed
    torchrun --nproc-per-node 2 -m vitreous train ...         # processes share each batch

A run is a folder: `config.yaml`, `metrics.jsonl`, `curves.png`, `states/` while it runs, `model/` when it is done.
Data are a folder with `train/` and `test/`, each with a folder for each class; parquet files in Hugging Face's layout;
WebDataset tars; `hf:NAME`; `digits`; `synthetic`.

## What a killed run loses: nothing

The order of the images, every augmentation and every dropout mask is drawn from (seed, epoch, sample), not from a
generator that has a state. A state is all tensors after a step, with a checksum, written beside its place, flushed and
renamed. So a run that was killed anywhere ends with the same bits as one that was not, on the same kind of machine with
the same versions, threads and processes; where one of these changed, it goes on and says that the bits may differ.
Other settings, or data with other images, labels or sizes of files, are refused; pixels that changed in a file of the
same size are not noticed, because that would mean to read all files.

The tests kill a run 100 times and compare the hash of the weights; they fail each call to the disk in each way and look
for what is neither the old nor the new file; they cut the power after each call. `make soak` does more of the same:
"""


def main() -> None:
    OUT.write_text(page(), "utf-8")
    print(f"wrote {OUT.relative_to(HERE.parent)}")


def page() -> str:
    parts = [HEAD, faults(), recipes(), bundled(), throughput(), ablations()]
    return "\n".join(part for part in parts if part)


def faults() -> str:
    return table(json.loads((RESULTS / "soak.json").read_text("utf-8")))


def recipes() -> str:
    text = "## Recipes\n"
    for name, recipe in PRESETS.items():
        told = textwrap.dedent("    " + (recipe.__doc__ or "").strip())
        text += f"\n### {name}\n\n{told}\n"
    return text


def bundled() -> str:
    text = "## Models that come along\n\n| model | test accuracy, one run, seed 0 | card |\n| --- | --- | --- |\n"
    pictures = ""
    for name in bundled_names():
        card = (BUNDLED / name / "README.md").read_text("utf-8")
        found = re.search(r"\*\*([\d.]+%)\*\* of the [\d,]+ test images \(95 % interval ([\d.]+% to [\d.]+%)\)", card)
        assert found is not None, name
        link = f"../src/vitreous/bundled/{name}/README.md"
        text += f"| `{name}` | {found[1]} ({found[2]}) | [data, recipe, classes, limits]({link}) |\n"
        pictures += f"\n![How {name} learned](training/{name}.png)\n"
    return text + pictures


def throughput() -> str:
    text = ""
    for title, name in (("Speed", "train_cost"), ("Decoding", "decode_cost"), ("Few-shot evaluation", "few_shot")):
        path = RESULTS / f"{name}.json"
        if not path.exists():
            continue
        found = json.loads(path.read_text("utf-8"))
        rows = found if isinstance(found, list) else found.get("rows", [found])
        text += f"\n## {title}\n\n`benchmarks/{name}.py`\n\n{table(rows)}"
    return text


def ablations() -> str:
    text = ""
    for folder in sorted(ABLATIONS.glob("*")) if ABLATIONS.is_dir() else []:
        picture = f"![{folder.name}](ablations/{folder.name}/{folder.name}.png)"
        text += f"\n### {folder.name}\n\n{(folder / 'table.md').read_text('utf-8')}\n{picture}\n"
    about = "`vitreous ablate NAME --data cifar10/ --out RUNS`: a ViT of 0.14 million parameters, learned briefly."
    return f"\n## Ablations\n\n{about}\n{text}" if text else ""


def table(rows: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [" | ".join(name.replace("_", " ") for name in names), " | ".join("---" for _ in names)]
    lines += [" | ".join(_cell(row.get(name, "")) for name in names) for row in rows]
    return "".join(f"| {line} |\n" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    main()
