"""Inspections made comparable: one name each, one unit for all, the images that all were shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from vitreous.checkpoints.words import epoch_of
from vitreous.errors import ConfigError
from vitreous.inspection import Inspection
from vitreous.measures.distance import uniform_distance
from vitreous.measures.entropy import highest_entropy
from vitreous.tokens import TokenLayout

MOST = 12
"""Models that one comparison can show; checkpoints of one run may be more."""


@dataclass(frozen=True)
class Measured:
    """One quantity of several models, in a unit that suits all of them.

    Attributes:
        values: for each model's name (layers, heads).
        uniform: for each name what a head has that looks at everything alike.
        name: what it is.
        unit: of the values, in words.
        short: the unit as in a table; empty for shares.
        digits: after the point, where a value is written.
    """

    values: Mapping[str, Tensor]
    uniform: Mapping[str, float]
    name: str
    unit: str
    short: str
    digits: int

    @property
    def words(self) -> str:
        """Name and unit, as at an axis."""
        return f"{self.name} ({self.unit})"

    @property
    def top(self) -> float:
        """Where an axis from 0 ends that has room for all models."""
        return 1.08 * max([*self.uniform.values(), *(float(value.max()) for value in self.values.values())])

    def written(self, value: float) -> str:
        """A value with its unit."""
        return f"{value:.{self.digits}f} {self.short}".strip()

    def change(self, value: float) -> str:
        """A change, with its sign, one digit finer."""
        digits = self.digits + 1
        return f"{round(value, digits) + 0.0:+.{digits}f} {self.short}".strip()


@dataclass(frozen=True)
class Compared:
    """Inspections of several models, by names that differ.

    Attributes:
        inspections: in the order given; of one run's checkpoints, by epoch.
        epochs: of each inspection, where all are checkpoints of one run; empty otherwise.
    """

    inspections: Mapping[str, Inspection]
    epochs: tuple[int, ...] = ()

    @property
    def is_same_size(self) -> bool:
        """Whether all models saw images of the same size in pixels, so that distances are in pixels."""
        return self._is_one(lambda layout: (layout.image_height, layout.image_width))

    @property
    def is_same_depth(self) -> bool:
        """Whether all models have the same number of layers."""
        return len({len(inspection.attention_distance) for inspection in self.inspections.values()}) == 1

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the images that all models were shown, in the first one's order."""
        first, *others = self.inspections.values()
        names = dict.fromkeys(first.image_names[: len(first.thumbnails)])
        return tuple(name for name in names if all(name in other.image_names for other in others))

    def shown(self) -> dict[str, tuple[Tensor, Tensor]]:
        """For each model thumbnails and rollouts of the images that all were shown.

        Thumbnails are (images, image_height, image_width, 3) uint8, rollouts (images, rows, columns).
        """
        found = {}
        for name, inspection in self.inspections.items():
            places = [inspection.image_names.index(image) for image in self.images]
            found[name] = inspection.thumbnails[places], inspection.rollout[places]
        return found

    def distance(self) -> Measured:
        """Mean attention distance: in pixels, or in diagonals of its own image where image sizes differ."""
        scale = {name: 1.0 if self.is_same_size else 1 / _diagonal(layout) for name, layout in self._layouts()}
        unit = ("pixels", "px", 1) if self.is_same_size else ("diagonals", "diag.", 3)
        return Measured(
            {name: seen.attention_distance * scale[name] for name, seen in self.inspections.items()},
            {name: uniform_distance(layout) * scale[name] for name, layout in self._layouts()},
            "mean attention distance",
            *unit,
        )

    def entropy(self) -> Measured:
        """Attention entropy: in bits, or as a share of the highest possible where numbers of tokens differ."""
        is_bits = self._is_one(lambda layout: layout.tokens)
        scale = {name: 1.0 if is_bits else 1 / highest_entropy(layout) for name, layout in self._layouts()}
        unit = ("bits", "bits", 2) if is_bits else ("share of log2(tokens)", "of max", 3)
        return Measured(
            {name: seen.attention_entropy * scale[name] for name, seen in self.inspections.items()},
            {name: highest_entropy(layout) * scale[name] for name, layout in self._layouts()},
            "attention entropy",
            *unit,
        )

    def prefix_mass(self) -> Measured:
        """Share of the patches' attention on prefix tokens, of the models that have such tokens."""
        with_prefix = {name: layout for name, layout in self._layouts() if layout.prefix}
        return Measured(
            {name: self.inspections[name].prefix_mass for name in with_prefix},
            {name: layout.prefix / layout.tokens for name, layout in with_prefix.items()},
            "attention on prefix tokens",
            "share, 0 to 1",
            "",
            3,
        )

    def chosen(self, most: int) -> Compared:
        """At most so many, evenly spaced, the first and the last among them."""
        count = len(self.inspections)
        if count <= most:
            return self
        indices = [round(step * (count - 1) / (most - 1)) for step in range(most)]
        names = list(self.inspections)
        return Compared(
            {names[index]: self.inspections[names[index]] for index in indices},
            tuple(self.epochs[index] for index in indices) if self.epochs else (),
        )

    def caveats(self) -> list[str]:
        """What cannot be compared, or only with care, in plain sentences; empty where all is alike."""
        inspections = self.inspections.values()
        found = []
        if len({inspection.images for inspection in inspections}) > 1:
            found.append("Averages are over different numbers of images.")
        if len({inspection.image_names for inspection in inspections}) > 1:
            found.append(
                f"The models were not shown the same images; {len(self.images) or 'none'} of them in common. "
                "Averages that differ may differ because of the images."
            )
        if not self.is_same_size:
            found.append(
                "The models see images of different sizes in pixels; distances are in diagonals of each model's own "
                "image."
            )
        if not self._is_one(lambda layout: (layout.rows, layout.columns)):
            found.append(
                "The grids differ: within a patch nothing can be seen, so a coarser grid has coarser maps, and its "
                "position embeddings and filters are for larger patches."
            )
        if not self._is_one(lambda layout: layout.tokens):
            found.append("The models have different numbers of tokens; entropies are shares of the highest possible.")
        if not self._is_one(lambda layout: layout.prefix):
            found.append(
                "The models have different numbers of prefix tokens, which take attention away from the patches; "
                "distances are not rescaled for it."
            )
        if not self._is_one(lambda layout: layout.class_token is None):
            found.append("Some models read out the class token, others the mean of the patches; rollouts start there.")
        if not self.is_same_depth:
            found.append("The models have different numbers of layers; lines are drawn over relative depth.")
        return found

    def _layouts(self) -> list[tuple[str, TokenLayout]]:
        return [(name, inspection.layout) for name, inspection in self.inspections.items()]

    def _is_one(self, say: Callable[[TokenLayout], object]) -> bool:
        return len({say(layout) for _, layout in self._layouts()}) == 1


def compare(inspections: Sequence[Inspection]) -> Compared:
    """The inspections side by side, each with a name of its own.

    They are checkpoints of one run if all models are called `epoch-NUMBER`, come from one folder and have the same
    shape; then they are sorted by epoch, and there may be any number.

    Raises:
        ConfigError: if there are fewer than 2, or more than 12 that are not checkpoints of one run.
    """
    if len(inspections) < 2:
        raise ConfigError(f"a comparison needs at least 2 models, but there is {len(inspections)}; name another")
    epochs = [epoch_of(_model(inspection)) for inspection in inspections]
    known = [epoch for epoch in epochs if epoch is not None]
    if len(set(known)) == len(inspections) and len({_kind(inspection) for inspection in inspections}) == 1:
        order = sorted(zip(known, inspections, strict=True), key=lambda pair: pair[0])
        return Compared({f"epoch {epoch}": inspection for epoch, inspection in order}, tuple(sorted(known)))
    check_number([_model(inspection) for inspection in inspections])
    names = [_model(inspection) for inspection in inspections]
    if len(set(names)) < len(names):
        names = [str(inspection.provenance.get("source", _model(inspection))) for inspection in inspections]
    named: dict[str, Inspection] = {}
    for name, inspection in zip(names, inspections, strict=True):
        unique, count = name, 1
        while unique in named:
            count += 1
            unique = f"{name} ({count})"
        named[unique] = inspection
    return Compared(named)


def check_number(models: Sequence[str]) -> None:
    """Raises ConfigError if so many models cannot be compared, before any is looked at."""
    if len(models) > MOST and not all(epoch_of(Path(model).name) is not None for model in models):
        raise ConfigError(
            f"{len(models)} models are too many for one comparison; give at most {MOST}, or checkpoints of one run"
        )


def _model(inspection: Inspection) -> str:
    return str(inspection.provenance.get("model", "Vision Transformer"))


def _kind(inspection: Inspection) -> tuple[object, ...]:
    """What checkpoints of one run have in common."""
    folder = Path(str(inspection.provenance.get("source", ""))).parent
    return folder, inspection.layout, inspection.attention_distance.shape


def _diagonal(layout: TokenLayout) -> float:
    return math.hypot(layout.image_height, layout.image_width)
