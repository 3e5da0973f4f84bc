"""The experiments on one model, each fed batch by batch; only sums are kept.

Each takes what the model made of the unchanged images, which is computed once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vitreous.arrangement.answers import Reading, compare
from vitreous.arrangement.bootstrap import Means
from vitreous.arrangement.changes import (
    hide_patches,
    roll_each,
    roll_offsets,
    shift,
    shift_directions,
    shuffle_grid,
    tile_orders,
)
from vitreous.arrangement.equivariance import Equivariance
from vitreous.arrangement.read_out import ReadOut
from vitreous.arrangement.subject import Subject
from vitreous.arrangement.without import (
    PositionTable,
    changed_positions,
    circular_padding,
    shuffled,
    transplanted,
    zeroed,
)
from vitreous.data.order import keyed_seed

SHUFFLES = 2
"""Permutations of the position embeddings whose answers are averaged."""

_SHUFFLING = 101  # what the permutations are drawn for


@dataclass(frozen=True)
class Shown:
    """Some images as one model sees them, and what it made of them.

    Attributes:
        images: (batch, channels, image_height, image_width), preprocessed.
        samples: (batch,) int64; which images of the source these are.
        labels: (batch,) int64; None without labels.
        weights: (batch, resamples), of the bootstrap.
        unchanged: the model's answers to them.
        maps: by layer (batch, rows, columns, width); empty where layers are not looked at.
        held_out: (batch,) bool; whether a read-out of positions is tested on the image, and not fitted to it.
        orders: by name (batch, patches) int64, in which patches are hidden.
    """

    images: Tensor
    samples: Tensor
    labels: Tensor | None
    weights: Tensor
    unchanged: Reading
    maps: Mapping[str, Tensor]
    held_out: Tensor
    orders: Mapping[str, Tensor]

    def count(self, means: Means, *changed: Reading) -> None:
        """Adds to some means what a change did to each image's answer; of several changes their average."""
        values = [compare(self.unchanged, reading, self.labels) for reading in changed]
        means.add(torch.stack(values).mean(0), self.weights)


class GridShuffle:
    """Images cut into k x k tiles in another order.

    Attributes:
        answers: by k; 1 is unchanged.
    """

    def __init__(self, subject: Subject, grids: Sequence[int], seed: int) -> None:
        self.answers = {k: Means() for k in grids}
        self._subject, self._seed = subject, seed

    def add(self, shown: Shown) -> None:
        """Counts more images in."""
        for k, means in self.answers.items():
            if k == 1:
                shown.count(means, shown.unchanged)
                continue
            moved = shuffle_grid(shown.images, tile_orders(self._seed, shown.samples, k), k)
            shown.count(means, self._subject.read(moved))


class PositionReadOut:
    """How well the place of a token is read from its features, layer by layer.

    In rolled images no content belongs to a place, so that only what the model itself adds can tell it: the table of
    position embeddings, or the zeros around a map. Without these nothing should.

    Attributes:
        without: what is taken away in the last condition, in words; empty where the model has nothing that can be.
    """

    def __init__(self, subject: Subject, seed: int) -> None:
        self.without = _words_for_loss(subject)
        self._subject, self._seed = subject, seed
        conditions = ["images as they are", "rolled images"]
        conditions += [f"rolled images, {self.without}"] * bool(self.without)
        self._read_outs = {name: self._new() for name in conditions}

    def add(self, shown: Shown) -> None:
        """Counts more images in, if layers are looked at."""
        if not shown.maps:
            return
        offsets = roll_offsets(self._seed, shown.samples, self._subject.image_size)
        rolled = roll_each(shown.images, offsets)
        for condition, read_outs in self._read_outs.items():
            if condition == "images as they are":
                maps = shown.maps
            elif condition == "rolled images":
                _, maps = self._subject.read_layers(rolled)
            else:
                with _losing_positions(self._subject):
                    _, maps = self._subject.read_layers(rolled)
            for name, read_out in read_outs.items():
                read_out.add(maps[name], shown.held_out)

    def result(self) -> dict[str, tuple[float, ...]]:
        """By condition the R^2 of each layer on held-out images."""
        return {
            condition: tuple(read_out.r_squared() for read_out in read_outs.values())
            for condition, read_outs in self._read_outs.items()
        }

    def _new(self) -> dict[str, ReadOut]:
        layers = self._subject.layers
        return {name: ReadOut(grid) for name, grid in zip(layers.names, layers.grids, strict=True)}


class PositionEmbeddings:
    """Position embeddings set to zero, given to other patches, or taken from another checkpoint.

    They are given to other patches in a few orders, drawn from the seed and the same for all images.

    Attributes:
        answers: "zeroed", "shuffled", and "transplanted" where there is a donor; empty for a model without a table.

    Args:
        subject: the model.
        seed: of the permutations.
        donor: another model's table.

    Raises:
        ConfigError: if the donor's embeddings are of another width.
    """

    def __init__(self, subject: Subject, seed: int, donor: PositionTable | None) -> None:
        self._subject = subject
        self._tables: dict[str, list[Tensor]] = {}
        if (table := subject.table) is not None:
            self._tables["zeroed"] = [zeroed(table)]
            self._tables["shuffled"] = [
                shuffled(table, torch.Generator().manual_seed(keyed_seed(seed, _SHUFFLING, number)))
                for number in range(SHUFFLES)
            ]
            if donor is not None:
                self._tables["transplanted"] = [transplanted(table, donor)]
        self.answers = {name: Means() for name in self._tables}

    def add(self, shown: Shown) -> None:
        """Counts more images in."""
        table = self._subject.table
        if table is None:
            return
        for name, tables in self._tables.items():
            readings = []
            for values in tables:
                with changed_positions(table, values):
                    readings.append(self._subject.read(shown.images))
            shown.count(self.answers[name], *readings)


class Translation:
    """Images shifted by a few pixels, each in a direction drawn for it.

    Attributes:
        answers: by pixels.
    """

    def __init__(self, subject: Subject, seed: int) -> None:
        half, whole = max(1, min(subject.layers.patch_size) // 2), min(subject.layers.patch_size)
        pixels = sorted({1, half, whole})
        self.answers = {pixel: Means() for pixel in pixels if pixel < min(subject.image_size)}
        self._subject, self._seed = subject, seed
        layers = subject.layers
        self._layers = {
            pixel: {name: Equivariance(stride) for name, stride in zip(layers.names, layers.strides, strict=True)}
            for pixel in self.answers
        }

    def add(self, shown: Shown) -> None:
        """Counts more images in."""
        directions = shift_directions(self._seed, shown.samples)
        for pixels, means in self.answers.items():
            moved = shift(shown.images, directions * pixels)
            if not shown.maps:
                shown.count(means, self._subject.read(moved))
                continue
            reading, maps = self._subject.read_layers(moved)
            shown.count(means, reading)
            for name, equivariance in self._layers[pixels].items():
                equivariance.add(shown.maps[name], maps[name], directions * pixels)

    def equivariance(self) -> dict[int, tuple[float | None, ...]]:
        """By pixels the error of each layer."""
        return {pixels: tuple(one.error() for one in layers.values()) for pixels, layers in self._layers.items()}


@dataclass
class Occlusion:
    """A growing share of patches hidden, in several orders.

    Attributes:
        subject: the model.
        grid: (rows, columns) of patches.
        counts: patches hidden, ascending; neither none nor all, which cost nothing.
        answers: by order, then by patches hidden, from none to all.
    """

    subject: Subject
    grid: tuple[int, int]
    counts: Sequence[int]
    answers: dict[str, dict[int, Means]] = field(default_factory=dict)
    _hidden: Reading | None = None

    def add(self, shown: Shown) -> None:
        """Counts more images in."""
        patches = self.grid[0] * self.grid[1]
        if self._hidden is None:  # the same for all images
            self._hidden = self.subject.read(torch.zeros_like(shown.images[:1]))
        ends = {0: shown.unchanged, patches: self._hidden.for_each(len(shown.images))}
        for name, order in shown.orders.items():
            means = self.answers.setdefault(name, {count: Means() for count in (0, *self.counts, patches)})
            for count, of_count in means.items():
                reading = ends.get(count)
                if reading is None:
                    reading = self.subject.read(hide_patches(shown.images, order, count, self.grid))
                shown.count(of_count, reading)


def _words_for_loss(subject: Subject) -> str:
    """What tells a model the place, and can be taken away."""
    kind, has_table = subject.layers.kind, subject.table is not None
    return ", ".join(["no positions"] * has_table + ["no zero padding"] * (kind != "ViT"))


@contextmanager
def _losing_positions(subject: Subject) -> Iterator[None]:
    """Inside, a model has neither position embeddings nor zeros around its maps."""
    with ExitStack() as stack:
        if subject.table is not None:
            stack.enter_context(changed_positions(subject.table, zeroed(subject.table)))
        if subject.layers.kind != "ViT":
            stack.enter_context(circular_padding())
        yield
