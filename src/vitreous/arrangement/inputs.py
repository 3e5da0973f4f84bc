"""The images whose arrangement is changed, with labels where there are any, and whether models know their classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitreous.checking import check_count
from vitreous.checkpoints.loaded import LoadedModel
from vitreous.data.datasets import names_a_dataset, open_dataset
from vitreous.data.gather import Pictures, gather_pictures
from vitreous.data.images import SUFFIXES, shown
from vitreous.data.labelled import LabelledImages
from vitreous.data.preprocess import Preprocess
from vitreous.errors import CheckpointError, ConfigError
from vitreous.training.evaluate import check_class_names


@dataclass(frozen=True)
class ImageSet:
    """Images to be changed.

    Attributes:
        name: for titles.
        pictures: that were chosen.
        samples: (images,) int64; which of the source's images each is.
        labelled: where they come from, if that has labels; None otherwise.
    """

    name: str
    pictures: Pictures
    samples: Tensor
    labelled: LabelledImages | None = None

    def __len__(self) -> int:
        return len(self.pictures)

    @cached_property
    def labels(self) -> Tensor | None:
        """(images,) int64."""
        return None if self.labelled is None else torch.tensor(self.labelled.labels)[self.samples]


def open_images(data: str | Path | Sequence[str | Path], most: int | None = None) -> ImageSet:
    """The test part of a data set, or any pictures, which then have no labels.

    A folder that holds folders, and no picture beside them, is a data set: each folder in it names a class.

    Args:
        data: what `data.datasets.open_dataset` takes; or files and folders of pictures.
        most: so many at most, evenly spaced, so that a data set sorted by class shows all of them; None takes all.

    Raises:
        ConfigError: if `most` is below 1, or nothing is named.
        InputError: if there is no such source, or no picture in it.
    """
    if most is not None:
        check_count("most", most, least=1)
    listed = [data] if isinstance(data, (str, Path)) else list(data)
    labelled = open_dataset(listed[0]) if len(listed) == 1 and _has_labels(listed[0]) else None
    if labelled is None:
        pictures = gather_pictures(listed)
        name = shown(listed[0]) + (f" and {len(listed) - 1} more" if len(listed) > 1 else "")
    else:
        pictures = Pictures(labelled.image_names, labelled.read, content=labelled.content)
        name = shown(labelled.name)
    return choose_images(ImageSet(name, pictures, torch.arange(len(pictures)), labelled), most)


def choose_images(images: ImageSet, most: int | None) -> ImageSet:
    """At most so many of them, evenly spaced; all where `most` is None."""
    total = len(images)
    if most is None or total <= most:
        return images
    kept = torch.arange(most) * total // most
    return ImageSet(images.name, images.pictures.chosen(kept.tolist()), images.samples[kept], images.labelled)


def as_loaded(model: nn.Module | LoadedModel) -> LoadedModel:
    """A model with its preprocessing, as `vitreous.load` left it on the model.

    Raises:
        ConfigError: if a module does not say how its images are preprocessed.
    """
    if isinstance(model, LoadedModel):
        return model
    known: Mapping[str, Any] = getattr(model, "provenance", None) or {}
    if "preprocess" not in known:
        raise ConfigError(
            f"{type(model).__name__} does not say how its images are preprocessed\n"
            "open it with vitreous.load, or put it into a LoadedModel with its Preprocess"
        )
    return LoadedModel(
        model,
        known["name"],
        Preprocess.from_dict(known["preprocess"]),
        tuple(known["class_names"]),
        known["format"],
        known["file_hash"],
        tuple(known["notes"]),
    )


def common_classes(models: Sequence[LoadedModel], images: ImageSet) -> tuple[str, ...]:
    """The classes that all answers are among: the labels' names, else the models'; empty where none are known.

    Raises:
        CheckpointError: if models answer with different classes, or with others than the labels; with the difference.
    """
    known = [loaded for loaded in models if loaded.class_names]
    for other in known[1:]:
        if other.class_names != known[0].class_names:
            raise CheckpointError(
                f"{shown(known[0].name)} answers with the classes {_some(known[0])}, {shown(other.name)} with "
                f"{_some(other)}; compare models that were trained for the same classes in the same order"
            )
    if images.labelled is not None:
        for loaded in known:
            check_class_names(loaded, images.labelled)
        return images.labelled.class_names
    return known[0].class_names if known else ()


def check_class_counts(counts: Sequence[tuple[str, int]], class_names: Sequence[str]) -> None:
    """Nothing, if models have as many logits as each other, and as there are classes.

    Args:
        counts: each model's name and how many logits it has.
        class_names: of all, empty where they are not known.

    Raises:
        CheckpointError: if not.
    """
    name, expected = ("the data", len(class_names)) if class_names else counts[0]
    for other, classes in counts:
        if classes != expected:
            raise CheckpointError(
                f"{shown(other)} has {classes} classes, {shown(name)} has {expected}; compare models that were trained "
                "for the same classes in the same order"
            )


def _has_labels(source: str | Path) -> bool:
    if names_a_dataset(source):
        return True
    path = Path(source)
    if not path.is_dir():
        return False
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    return any(map(Path.is_dir, entries)) and not any(entry.suffix.lower() in SUFFIXES for entry in entries)


def _some(loaded: LoadedModel) -> str:
    names = [shown(name) for name in loaded.class_names[:3]]
    return f"{', '.join(names)} ({len(loaded.class_names)} in all)"
