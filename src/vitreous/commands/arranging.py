"""arrangement."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from vitreous.checking import check_count
from vitreous.commands.words import File
from vitreous.errors import ConfigError

if TYPE_CHECKING:
    from vitreous.arrangement.result import Arrangement, Faces, Interval
    from vitreous.checkpoints.loaded import LoadedModel


@dataclass(frozen=True)
class Arrange:
    """Measure what models make of the same parts in another place: a ViT, a CNN and the claim between them.

    Images are cut into tiles and shuffled, shifted and hidden in part; position embeddings are zeroed, shuffled and
    transplanted; positions are read out of every layer. Effects have 95 % intervals, differences are of pairs.
    """

    models: Annotated[Positional[tuple[str, ...]], arg(metavar="MODEL ...")]
    """One model or several, such as cifar10-ti4 cifar10-resnet; each as `vitreous inspect` takes it."""
    data: str
    """A data set, whose test part is shown; or files and folders of images without labels, then without accuracy."""
    out: Path = Path("arrangement.html")
    """The report, one HTML file."""
    json: File = None
    """Every number, as one JSON file."""
    figures: File = None
    """A folder for the figures, each as PDF and PNG."""
    most: int = 2000
    """Look at so many images at most, evenly spaced."""
    all: bool = False
    """Look at all images, however many there are."""
    grids: Annotated[tuple[int, ...], arg(metavar="K ...")] = (1, 2, 4, 8)
    """Images are cut into K x K tiles; where K does not divide the image the nearest number that does."""
    transplant: Annotated[str | None, arg(metavar="MODEL")] = None
    """Another checkpoint, whose position embeddings the models are given; left out, that experiment is."""
    faces: int = 0
    """Train the five small models of the faces task with so many seeds, about a minute each; 0 shows what was
    measured when vitreous was released."""
    seed: int = 0
    """Of every permutation, shift and resample."""
    batch_size: int = 32
    """Images in a forward pass."""
    device: str = "auto"
    """Where to compute: auto (a GPU where there is one), cpu, cuda, cuda:1."""

    def run(self) -> None:
        """Measures, writes the page, prints the table and the sentence."""
        from vitreous.arrangement.effects import sentence
        from vitreous.arrangement.inputs import open_images
        from vitreous.arrangement.measure import measure_arrangement
        from vitreous.atomic import check_writable, write_atomically

        try:
            from vitreous.figures.arrangement import write_arrangement_figures
            from vitreous.pages.arrangement import write_arrangement
        except ImportError as missing:
            raise ConfigError(str(missing)) from missing

        if not self.models:
            raise ConfigError("no model was named; name one or several, such as cifar10-ti4 cifar10-resnet")
        check_count("faces", self.faces, least=0)
        outputs = [self.out, *([self.json] if self.json else [])]
        if len({path.resolve() for path in outputs}) < len(outputs):
            raise ConfigError("two results are to be written to the same file; give each its own name")
        for path in (*outputs, *([self.figures / "figure.pdf"] if self.figures else [])):
            check_writable(path)
        models = [self._open(name) for name in self.models]
        donor = None if self.transplant is None else self._open(self.transplant)
        images = open_images(self.data, most=None if self.all else self.most)
        found = measure_arrangement(
            models,
            images,
            grids=self.grids,
            seed=self.seed,
            batch_size=self.batch_size,
            transplant=donor,
            progress=True,
        )
        faces = self._faces()
        if self.json is not None:
            plain = {**found.to_dict(), "sentence": sentence(found), "faces": faces and faces.to_dict()}
            write_atomically(self.json, json.dumps(plain, allow_nan=False) + "\n")
        if self.figures is not None:
            write_arrangement_figures(found, faces, self.figures)
        write_arrangement(found, self.out, faces)
        print("\n".join(_table(found)))
        print(f"\n{sentence(found)}")
        print(f"report: {self.out}")

    def _open(self, name: str) -> LoadedModel:
        from vitreous.checkpoints.sources import open_model
        from vitreous.inspecting.ranks import device_of_this_process

        opened = open_model(name)
        opened.model.to(device_of_this_process(self.device))
        return opened

    def _faces(self) -> Faces | None:
        """Trained now, or as it was measured."""
        from vitreous.arrangement.face_task import measured_faces, run_faces

        if not self.faces:
            return measured_faces()
        folder = self.out.with_name(f"{self.out.stem}-faces")
        return run_faces(self.faces, folder=folder)


def _table(found: Arrangement) -> list[str]:
    """The effect sizes, a line each, then what was left out."""
    from vitreous.data.images import shown

    rows = [
        (effect.question, shown(effect.of), effect.measure, f"{_words(effect.size)} {effect.unit}".strip())
        for effect in found.effects
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)] if rows else []
    lines = [f"{found.images:,} images of {shown(found.data)}; 95 % intervals in brackets", ""]
    for row in rows:
        lines.append("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]))
    return lines + [f"note: {shown(note)}" for note in found.notes]


def _words(size: Interval) -> str:
    numbers = (number for number in (size.value, size.low, size.high) if number is not None)
    value, *ends = (f"{round(number, 4) + 0.0:.3g}" for number in numbers)
    return f"{value} ({' to '.join(ends)})" if ends else value
