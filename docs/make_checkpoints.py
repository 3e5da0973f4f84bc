"""Makes docs/checkpoints.md: every format that is read, beside its own library, and what becomes of hostile files.

.venv/bin/python docs/make_checkpoints.py

The first table is what the tests of the catalogue measure, run now; the last is benchmarks/results/load_cost.json.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from vitreous.model.positions import RULES

HERE = Path(__file__).parent
ROOT = HERE.parent
OUT = HERE / "checkpoints.md"
CATALOGUE = "tests/checkpoints/formats/test_catalogue.py"
LOAD_COST = ROOT / "benchmarks" / "results" / "load_cost.json"

ROWS = {
    "C1": "safetensors whose container is broken",
    "C2": "names that attack who prints or uses them",
    "C5": "npz that lies, explodes or runs code",
    "C6": "pickles that run code",
    "C7": "pickles whose tensors do not fit their bytes",
    "C8": "pickles that take memory or time",
    "C9": "an index of several files that leads astray",
    "C10": "something else than the ending says",
    "C12": "traps of the file system",
}


def main() -> None:
    OUT.write_text(
        "\n\n".join([head(), formats(), settled(), positions(), written(), hostile(), cost()]) + "\n", "utf-8"
    )
    print(f"wrote {OUT.relative_to(ROOT)}")


def head() -> str:
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "transformers", "torchvision"))
    return (
        "# Checkpoints\n\n"
        "`vitreous.load(FILE)` opens every file below as one model, `VisionTransformer`, with the outputs of the "
        "file's own library. `vitreous describe FILE` says what was decided, and why: the format, every tensor used, "
        "renamed or ignored, and each setting that the tensors do not tell.\n\n"
        f"Made by `docs/make_checkpoints.py` with {libraries}."
    )


def formats() -> str:
    rows = [
        (
            case["form"],
            case["library"],
            f"{float(case['difference']):.0e}" if float(case["difference"]) else "0",
            shortened(case["decided"]),
            shortened(case["guessed"]) or "-",
        )
        for case in measured()
    ]
    heading = ("file", "compared with", "largest difference", "decided", "guessed, and said so")
    return (
        "## What is read\n\n"
        "Small models with random weights, none of them trivial, written by their own library and opened by their "
        "path. The difference is the largest of any logit or feature, in float32; a test holds it to 1e-4. Where the "
        "library is a repository, its own code ran once, and its outputs are stored in `tests/references` with the "
        "script that made them.\n\n" + table(heading, rows)
    )


def measured() -> list[dict[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = ["-q", "--tb=short", "-p", "no:cacheprovider", "-o", "junit_family=xunit1", f"--junitxml={report}"]
        command = [sys.executable, "-m", "pytest", *options, CATALOGUE]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if run.returncode:
            sys.exit(run.stdout)
        cases = xml.parse(report).getroot().iter("testcase")
        return [{entry.attrib["name"]: entry.attrib["value"] for entry in case.iter("property")} for case in cases]


def shortened(settings: str) -> str:
    """The settings that change what is computed; sizes and pictures are small models' own."""
    telling = ("heads", "norm_eps", "activation", "pooling", "positions ", "resampling", "rope_base", "stem_constants")
    return "; ".join(word for word in settings.split("; ") if word.startswith(telling) and " of the prefix" not in word)


def settled() -> str:
    return (
        "## What no tensor tells\n\n"
        "Heads behind one fused projection, the epsilon of the norms, which GELU, mean and deviation, crop and filter, "
        "the rule for other resolutions, what the head reads. Where neither the file nor its format says so, vitreous "
        "takes what is usual, marks it as a guess, and says how to settle it:\n\n"
        "```sh\n"
        "vitreous describe weights.pth\n"
        "vitreous describe weights.pth --set heads=6 activation=quick-gelu image_size=[384,192] weights=student\n"
        "vitreous convert weights.pth settled/ --set heads=6   # from now on nothing is guessed\n"
        "```\n\n"
        'From Python the same are arguments: `vitreous.load("weights.pth", heads=6)`.'
    )


def positions() -> str:
    rules = [(name, rule_in_words(name)) for name in RULES]
    return (
        "## Positions on another grid\n\n"
        "`ViTConfig.resampling` names whose rule moves position embeddings; the same grid keeps every bit.\n\n"
        + table(("rule", "what it does"), rules)
    )


def rule_in_words(name: str) -> str:
    rule = RULES[name]
    words = [rule.mode, "antialiased" if rule.antialias else "not antialiased"]
    words.append("corners aligned" if rule.align_corners else "half-pixel centres")
    if rule.excess:
        words.append(f"the new grid taken to be {rule.excess:g} longer")
    return ", ".join(words)


def written() -> str:
    rows = [
        ("`--to timm`", "folder", "vitreous, timm (`local-dir:`), transformers (`AutoModelForImageClassification`)"),
        ("`--to transformers`", "folder", "transformers (`ViTForImageClassification`, `AutoImageProcessor`), vitreous"),
        (
            "`--to google`",
            ".npz",
            "Google's loaders (by hand: `tests/references/open_in_google.py`), timm's `load_pretrained`, vitreous",
        ),
        ("`--to onnx`", ".onnx", "onnxruntime, run beside the model when it is written"),
    ]
    return (
        "## What is written\n\n"
        "`vitreous convert MODEL OUT --to ...` reads again what it wrote: every weight must have every bit. "
        "Preprocessing, class names and provenance travel along. What a format has no word for is refused by name, "
        "never left out.\n\n" + table(("", "what", "opened by"), rows)
    )


def hostile() -> str:
    counts = bad_checkpoints().counts()
    rows = [(row, ROWS[row], str(count)) for row, count in counts.items()]
    total = sum(counts.values())
    return (
        "## Hostile files\n\n"
        "Nothing in a file is ever run: pickles go through a reader of our own that knows tensors, containers and "
        "plain values, and refuses every other name. Sizes are checked against the file before memory is taken. These "
        f"{total} files are made and opened by the tests; each is refused in at most three lines with exit code "
        "3 or 5, or read to the same tensors as the honest file.\n\n" + table(("row", "what", "files"), rows)
    )


def bad_checkpoints() -> ModuleType:
    sys.path.insert(0, str(ROOT / "tests"))
    spec = importlib.util.spec_from_file_location("bad_checkpoints", ROOT / "tests" / "bad_checkpoints.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def cost() -> str:
    results = json.loads(LOAD_COST.read_text("utf-8"))
    rows = [
        (
            row["container"],
            row["case"],
            f"{row['seconds']:.2f} s",
            f"{row['time_ratio']:.2f}x",
            f"{row['memory_ratio']:.2f}x",
        )
        for row in results
    ]
    first = results[0]
    return (
        "## What it costs\n\n"
        f"ViT-B/16, a file of {first['file_mib']} MiB in the page cache, {first['machine']}, torch {first['torch']}, "
        f"{first['date']}, medians of {first['rounds']} alternating rounds (`benchmarks/load_cost.py`). Plain is the "
        "library's own read and `load_state_dict` into a model that is already there; vitreous also recognises, "
        "checks, hashes and builds. Memory is what the process grew by, as a share of the file; plain's model is not "
        "counted.\n\n" + table(("container", "", "time", "of plain", "memory"), rows)
    )


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
