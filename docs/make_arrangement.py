r"""Makes docs/arrangement.md of what the measurements left; by hand are only the numbers of trials, in `LIMITS`.

    vitreous arrangement cifar10-ti4 cifar10-resnet --data cifar10/ --transplant RUN --faces 5 \
        --out arrangement.html --json docs/arrangement/numbers.json --figures figures/
    python docs/make_arrangement.py figures/ --machine "2 cores of an x86-64 server"

The figures come to docs/arrangement/, and the faces' numbers into the package, where the pages show them from.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from vitreous.arrangement.face_task import MEASURED
from vitreous.arrangement.result import Faces
from vitreous.atomic import write_atomically
from vitreous.training.confidence import estimate

HERE = Path(__file__).parent
FOLDER = HERE / "arrangement"
OUT = HERE / "arrangement.md"

HEAD = """# Arrangement

    vitreous arrangement MODEL ... --data DATA --out arrangement.html --json arrangement.json

A lecture on "An Image is Worth 16x16 Words" opens with a claim: a CNN sees the same face whether eyes, nose and mouth
are in their places or moved about, so it fails to encode space, and that is why Transformers win. The command measures
it, for any models and images: ViT, hybrid or CNN. The same as functions:

```python
import vitreous

models = [vitreous.load("cifar10-ti4"), vitreous.load("cifar10-resnet")]
found = vitreous.measure_arrangement(models, "photos/")
print(found.effects)
vitreous.write_arrangement(found, "arrangement.html")
```
"""

LIMITS = """## Limits

- Two small models, one training run each: an interval tells what other images would change, not what another run would.
  They learned the same images, but not equally long: the ViT saw each 54 times, the first 20 without RandAugment and
  CutMix, the CNN 7 times with both.
- Shuffled tiles have edges that no photograph has, and both models were trained without such edges: a fall of accuracy
  is due to these as well as to the arrangement.
- A linear read-out shows what can be read from features, not what the model uses.
- The faces task shows what an architecture can learn when arrangement is all that is asked; nothing forces a model of
  photographs to learn it. All models had the same faces and as many steps. The CNNs' learning rate was the first that
  was tried, the ViT's settings were chosen among about twelve by the accuracy on test faces; its positions start at a
  deviation of 0.5, with 0.02 it stayed at chance.
- Faces move little up and down, so absolute places tell much: a ridge regression on blurred pixels tells 79 to 86 % of
  the kinds seen, 64 to 90 % of the others.
"""


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("figures", type=Path)
    asked.add_argument("--machine", required=True)
    given = asked.parse_args()
    found: dict[str, Any] = json.loads((FOLDER / "numbers.json").read_text("utf-8"))
    found["data"] = Path(found["data"]).name  # where things lie on one machine tells nobody anything
    donor = found["provenance"]["transplant"]
    for source in (*found["provenance"]["models"].values(), *([donor] if donor else [])):
        source["source"] = Path(source["source"]).name
    write_atomically(FOLDER / "numbers.json", json.dumps(found, indent=1) + "\n")
    for picture in sorted(given.figures.glob("*.png")):
        shutil.copy(picture, FOLDER / picture.name)
    write_atomically(MEASURED, json.dumps(found["faces"], indent=1) + "\n")
    parts = [HEAD, two_models(found, given.machine), faces(Faces.from_dict(found["faces"])), LIMITS]
    OUT.write_text("\n".join(parts), "utf-8")
    print(f"wrote {OUT.relative_to(HERE.parent)}")


def two_models(found: dict[str, Any], machine: str) -> str:
    names = " and ".join(f"`{model['name']}`" for model in found["models"])
    told = found["provenance"]
    text = f"## {names} on {found['images']:,} images of `{found['data']}`\n\n{found['sentence']}\n\n"
    text += f"{told['date']}, {machine}, {told['seconds']:.0f} seconds; vitreous {told['versions']['vitreous']}, "
    text += f"torch {told['versions']['torch']}, seed {found['seed']}. Intervals are of {found['resamples']:,} "
    text += "bootstrap samples of the images, the same for all models: differences are of pairs.\n\n"
    text += "| question | model | measure | size | 95 % interval |\n| --- | --- | --- | --- | --- |\n"
    for effect in found["effects"]:
        size = effect["size"]
        within = "" if size["low"] is None else f"{size['low']:.3g} to {size['high']:.3g}"
        text += f"| {effect['question']} | {effect['of']} | {effect['measure']} | "
        text += f"{size['value']:.3g} {effect['unit']} | {within} |\n"
    text += "".join(f"\n- {note}" for note in found["notes"]) + ("\n" if found["notes"] else "")
    for picture in sorted(FOLDER.glob("*.png")):
        text += f"\n![{picture.stem}](arrangement/{picture.name})\n"
    return text


def faces(found: Faces) -> str:
    kinds = list(found.models[0].accuracies)
    text = "## The faces task\n\nParts of a face are drawn in many styles; is their arrangement right or wrong? "
    text += f"{len(found.seeds)} seeds, {found.steps} steps of {found.batch_size} drawings, tested on "
    text += f"{found.test_images:,} of each kind: chance is 50 %. Each drawing of the test comes once right and once "
    text += (
        "wrong, so a model that cannot tell arrangements, such as the BagNet, has 50 % exactly. Accuracy in %, mean "
    )
    text += f"and 95 % t-interval over the seeds; {', '.join(found.kinds_unseen)} were not seen in training. "
    text += f"{found.provenance['date']}, {found.provenance['threads']} thread a run on a shared machine.\n\n"
    head = ["model", "parameters", "sees (pixels)", *kinds, "seconds a run"]
    text += f"| {' | '.join(head)} |\n| {' | '.join(['---'] * len(head))} |\n"
    for model in found.models:
        cells = [model.name, f"{model.parameters:,}", str(model.sees)]
        for kind in kinds:
            one = estimate(model.accuracies[kind])
            half = "" if one.half_width is None else f" ± {100 * one.half_width:.1f}"
            cells.append(f"{100 * one.mean:.1f}{half}")
        cells.append(f"{max(model.seconds):.0f} at most")
        text += f"| {' | '.join(cells)} |\n"
    return text


if __name__ == "__main__":
    main()
