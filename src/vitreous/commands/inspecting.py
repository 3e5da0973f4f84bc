"""inspect."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from vitreous.commands.words import File
from vitreous.errors import ConfigError

if TYPE_CHECKING:
    from vitreous.data.gather import Pictures
    from vitreous.inspection import Inspection


@dataclass(frozen=True)
class Inspect:
    """Look inside models: where attention goes, how far each head looks, what positions and filters are.

    Several models, or RUN/checkpoints of a training run, give one page that compares them. A run that was interrupted
    goes on when the same command is given again. `torchrun --nproc-per-node 2 -m vitreous inspect ...` shares the
    images among processes.
    """

    words: Annotated[Positional[tuple[str, ...]], arg(metavar="MODEL ... IMAGES ...")]
    """One model or several, each a folder, timm:NAME, hf:ORG/NAME, torchvision:NAME or package.module:function; then
    image files and folders, a parquet file, or digits."""
    out: Path = Path("report.html")
    """The report, one HTML file."""
    json: File = None
    """Every number, as one JSON file; of several models a list."""
    save: File = None
    """The inspection itself, one safetensors file that `Inspection.load` reads; of several models one each."""
    figures: File = None
    """A folder for the figures, each as PDF and PNG."""
    most: int = 128
    """Look at so many images at most, evenly spaced; the paper averages over 128."""
    all: bool = False
    """Look at all images, however many there are."""
    shown: int = 8
    """Images to show in the report."""
    batch_size: int = 16
    """Images in a forward pass."""
    device: str = "auto"
    """Where to compute: auto (a GPU where there is one), cpu, cuda, cuda:1."""
    workers: int | None = None
    """Processes that decode images ahead of the model; left out, as many as are worth it. 0 decodes in between."""
    strict: bool = False
    """Stop at the first image that cannot be read. Without it such images are left out and listed in skipped.tsv."""
    sizes: Literal["resize", "group"] = "resize"
    """resize: all images become as large as the model was made for. group: each keeps its own size, cut to whole
    patches, and each size has its own numbers, for one model that takes any size."""
    flow: int | None = None
    """Also attention flow of the images shown, through the last so many layers; 0 takes all layers."""
    flow_heads: str = "mean"
    """How heads become one for the flow: mean, max, min, or the index of a head."""
    flow_top_k: int | None = None
    """Leave each query only its so many strongest keys in the flow."""

    def run(self) -> None:
        """Inspects, writes the page, prints a summary."""
        from vitreous.atomic import check_writable, write_atomically
        from vitreous.checkpoints.words import split_models
        from vitreous.compared import check_number
        from vitreous.data.gather import gather_pictures
        from vitreous.inspecting.partial import delete_partial
        from vitreous.inspecting.ranks import joined_ranks
        from vitreous.summaries import count, table

        try:
            import vitreous.pages.comparison  # noqa: F401 - before the work, not after it
        except ImportError as missing:
            raise ConfigError(str(missing)) from missing

        models, sources = split_models(self.words)
        check_number(models)
        if self.sizes == "group" and len(models) > 1:
            raise ConfigError(f"sizes group is for one model, but {len(models)} were named; look at them one by one")
        skipped = self.out.with_name("skipped.tsv")
        numbers = [f".{n}" for n in range(1, len(models) + 1)] if len(models) > 1 else [""]
        partials = [self.out.with_name(f"{self.out.name}{number}.partial") for number in numbers]
        outputs = [path for path in (self.out, self.json, self.save, skipped, *partials) if path is not None]
        for path in (*outputs, *([self.figures / "figure.pdf"] if self.figures else [])):
            check_writable(path)
        pictures = gather_pictures(sources)
        _check_different(outputs, (*sources, *pictures.names))
        chosen = pictures if self.all else pictures.spread(self.most)
        with joined_ranks() as rank:
            found = [self._inspect(model, chosen, partial) for model, partial in zip(models, partials, strict=True)]
        if rank:
            return
        inspections = [inspection for of_model in found for inspection in of_model]
        left_out = list(dict.fromkeys(row for inspection in inspections for row in inspection.skipped))
        if left_out or skipped.exists():  # an earlier run's list is replaced, if only by an empty one
            write_atomically(skipped, table(("image", "cause"), left_out))
        self._write(inspections, len(pictures))
        for partial in partials:
            delete_partial(partial)
        if left_out:
            print(f"skipped: {count(len(left_out), 'image')} that cannot be read, listed in {skipped}")

    def _inspect(self, model: str, pictures: Pictures, partial: Path) -> list[Inspection]:
        from vitreous.checkpoints.sources import open_model
        from vitreous.data.images import shown
        from vitreous.inspecting.inspector import inspect_model
        from vitreous.inspecting.ranks import device_of_this_process
        from vitreous.inspecting.sizes import inspect_sizes

        loaded = open_model(model)
        loaded.model.to(device_of_this_process(self.device))
        options: dict[str, Any] = {
            "batch_size": self.batch_size, "shown": self.shown, "preprocess": loaded.preprocess, "name": loaded.name,
            "class_names": loaded.class_names, "workers": self.workers, "strict": self.strict, "resume": partial,
            "flow": self._flow(), "progress": f"inspecting {shown(loaded.name)[:40]}",
        }  # fmt: skip
        if self.sizes == "group":
            return inspect_sizes(loaded.model, pictures, **options)
        return [inspect_model(loaded.model, pictures, **options)]

    def _flow(self) -> dict[str, Any] | None:
        """Options of `attention_flow`; None where no flow was asked for."""
        if self.flow is None:
            return None
        layers = slice(-self.flow or None, None)
        heads = int(self.flow_heads) if self.flow_heads.isdecimal() else self.flow_heads
        return {"layers": layers, "heads": heads, "top_k": self.flow_top_k}

    def _write(self, inspections: list[Inspection], available: int) -> None:
        """All that was asked for."""
        from vitreous.atomic import write_atomically
        from vitreous.compared import compare
        from vitreous.figures.comparison import write_comparison_figures
        from vitreous.figures.files import write_figures
        from vitreous.pages.comparison import write_comparison
        from vitreous.pages.report import write_report
        from vitreous.summaries import comparison, summary

        first, several = inspections[0], len(inspections) > 1
        if self.json is not None:
            plain = [inspection.to_dict() for inspection in inspections]
            write_atomically(self.json, json.dumps(plain if several else plain[0]))
        for number, inspection in enumerate(inspections if self.save is not None else (), 1):
            assert self.save is not None
            inspection.save(self.save.with_stem(f"{self.save.stem}-{number}") if several else self.save)
        if several:
            compared = compare(inspections)
            if self.figures is not None:
                write_comparison_figures(compared, self.figures)
            write_comparison(inspections, self.out)
            print(comparison(compared.inspections))
        else:
            if self.figures is not None:
                write_figures(first, self.figures)
            write_report(first, self.out)
            print(summary(first, available))
        print(f"{'comparison' if several else 'report'}: {self.out}")


def _check_different(outputs: list[Path], images: tuple[str, ...]) -> None:
    """Raises ConfigError if two results, or a result and an image, are the same file."""
    places = [path.resolve() for path in outputs]
    if len(set(places)) < len(places):
        raise ConfigError("two results are to be written to the same file; give each its own name")
    there = {(status.st_dev, status.st_ino): path for path in outputs if (status := _status(path))}
    for image in images if there else ():
        status = _status(Path(image))
        if status and (status.st_dev, status.st_ino) in there:
            raise ConfigError(f"{image} is one of the images and would be replaced; choose another name")


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (OSError, ValueError):
        return None
