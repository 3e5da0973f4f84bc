"""probe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from vitreous.checking import check_count
from vitreous.commands.words import File, Model, check_figure, print_json

if TYPE_CHECKING:
    from torch import Tensor

    from vitreous.checkpoints.loaded import LoadedModel
    from vitreous.data.labelled import LabelledImages
    from vitreous.training.few_shot import FewShot
    from vitreous.training.linear_probe import LinearProbe
    from vitreous.training.neighbours import NearestNeighbours

    Found = FewShot | LinearProbe | NearestNeighbours

How = Literal["few-shot", "linear", "k-nn"]


@dataclass(frozen=True)
class Probe:
    """Measure how well a data set's classes can be read from each layer of a model, whose weights stay as they are.

    few-shot: least squares on 1, 5, 10 and 25 images of each class, as in the paper. linear: logistic regression on
    the training part. k-nn: the nearest images of the training part vote, as for DINO.
    """

    model: Model
    """A file or folder in any known format, or a training run's folder."""
    data: Annotated[Positional[str], arg(metavar="DATA")]
    """A data set with a training and a test part: a folder, parquet files, or digits."""
    how: How = "few-shot"
    """few-shot, linear or k-nn."""
    most: int | None = None
    """Look at so many images of each part at most, evenly spaced; few-shot still draws from the whole training part."""
    batch_size: int = 64
    """Images in a forward pass."""
    device: str = "auto"
    """Where to compute: auto (a GPU where there is one), cpu, cuda, cuda:1."""
    workers: int | None = None
    """Processes that decode images ahead of the model; left out, as many as are worth it."""
    figure: File = None
    """Draw accuracy against depth: a PNG, PDF or SVG file."""
    json: bool = False
    """Print one JSON object."""

    def run(self) -> None:
        """Probes and prints."""
        from vitreous.checkpoints.sources import open_model
        from vitreous.data.datasets import open_dataset
        from vitreous.inspecting.ranks import device_of_this_process
        from vitreous.training.changes import check_same_classes

        if self.most is not None:
            check_count("most", self.most, least=1)
        check_figure(self.figure)
        loaded = open_model(self.model)
        learned, tested = open_dataset(self.data, "train"), open_dataset(self.data, "test")
        check_same_classes(learned, tested)
        loaded.model.to(device_of_this_process(self.device))
        found, images = self._probe(loaded, learned, tested)
        if self.figure is not None:
            _draw(found, len(tested.class_names), f"{loaded.name}: {self.data}, {self.how}", self.figure)
        if self.json:
            counts = {"classes": len(tested.class_names), "train_images": images[0], "test_images": images[1]}
            print_json({"model": loaded.name, "data": self.data, **counts, **found.to_dict()})
            return
        print("\n".join(_report(found, loaded.name, tested, images)))
        if self.figure is not None:
            print(f"figure: {self.figure}")

    def _probe(
        self, loaded: LoadedModel, learned: LabelledImages, tested: LabelledImages
    ) -> tuple[Found, tuple[int, int]]:
        """The result, and how many images of each part were looked at."""
        import torch

        from vitreous.progress import progress_bar
        from vitreous.training.features import layer_features
        from vitreous.training.few_shot import few_shot, few_shot_samples
        from vitreous.training.linear_probe import linear_probe
        from vitreous.training.neighbours import nearest_neighbours, possible_neighbours

        classes, labels = len(learned.class_names), torch.tensor(learned.labels)
        options: dict[str, Any] = {"batch_size": self.batch_size, "workers": self.workers, "progress": True}
        samples = few_shot_samples(labels, classes) if self.how == "few-shot" else self._spread(learned)
        known = layer_features(loaded, learned, samples=samples, **options)
        asked = layer_features(loaded, tested, samples=self._spread(tested), **options)
        images = len(known.labels), len(asked.labels)
        if self.how == "few-shot":
            return few_shot(known, asked, labels, classes), images
        if self.how == "k-nn":
            return nearest_neighbours(known, asked, classes, neighbours=possible_neighbours(images[0])), images
        with progress_bar("linear probe", len(known.layers)) as advance:
            return linear_probe(known, asked, classes, advance=advance), images

    def _spread(self, images: LabelledImages) -> Tensor:
        """Indices of as many images as are wanted, evenly spaced."""
        import torch

        count = len(images) if self.most is None else min(self.most, len(images))
        return torch.arange(count) * len(images) // count


def _report(found: Found, model: str, tested: LabelledImages, images: tuple[int, int]) -> Iterator[str]:
    """The result in words: what was done, a line for each layer, what was left out."""
    from vitreous.data.images import shown

    classes = len(tested.class_names)
    yield f"{shown(model)} on {shown(tested.name)}: {classes} classes, {images[0]} training and {images[1]} test images"
    yield f"accuracy in %, {found.words}; chance is {100 / classes:.3g}"
    yield ""
    columns = {name: _cells(values) for name, values in found.lines.items()}
    width = max(len(cell) for column in (*columns.values(), list(columns)) for cell in column)
    yield f"{'':10}" + "".join(f"  {name:>{width}}" for name in columns)
    for layer, name in enumerate(found.layers):
        yield f"{name:10}" + "".join(f"  {column[layer]:>{width}}" for column in columns.values())
    yield from found.notes


def _cells(values: Tensor) -> Sequence[str]:
    if values.ndim == 1:
        return [f"{100 * share:.1f}" for share in values.tolist()]
    return [f"{100 * draws.mean():.1f} ± {100 * draws.std():.1f}" for draws in values]


def _draw(found: Found, classes: int, title: str, path: Path) -> None:
    from vitreous.figures.files import write_figure
    from vitreous.figures.probe import draw_probe

    write_figure(draw_probe(found.layers, found.lines, chance=1 / classes, title=title), path)
