"""All experiments on one model together, and what came out of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from vitreous.arrangement.answers import MEASURES, summarised
from vitreous.arrangement.bootstrap import Resampled, combined
from vitreous.arrangement.changes import usable_grids
from vitreous.arrangement.effects import Sampled, shuffle_question
from vitreous.arrangement.experiments import (
    GridShuffle,
    Occlusion,
    PositionEmbeddings,
    PositionReadOut,
    Shown,
    Translation,
)
from vitreous.arrangement.result import ModelArrangement
from vitreous.arrangement.subject import Subject
from vitreous.arrangement.without import PositionTable


@dataclass(frozen=True)
class Plan:
    """What is done to the images of every model.

    Attributes:
        grids: wanted numbers of tiles a side.
        hidden_grid: (rows, columns) of the patches that are hidden.
        counts: how many of them, ascending; neither none nor all.
        seed: of all that is drawn.
        reads_positions: whether there are images to read positions out of, and others to test that on.
    """

    grids: tuple[int, ...]
    hidden_grid: tuple[int, int]
    counts: tuple[int, ...]
    seed: int
    reads_positions: bool


class Measured:
    """One model, and what is measured of it.

    Attributes:
        subject: the model.
        notes: what was done in another way, or left out.

    Args:
        subject: the model.
        plan: what is done to the images.
        donor: position embeddings to transplant, if they are of the width of this model's; None for none.
    """

    def __init__(self, subject: Subject, plan: Plan, donor: PositionTable | None) -> None:
        self.subject = subject
        grids, notes = usable_grids(plan.grids, subject.image_size)
        self.notes = [*notes, *subject.notes]
        self._shuffle = GridShuffle(subject, grids, plan.seed)
        self._read_out = PositionReadOut(subject, plan.seed) if plan.reads_positions else None
        self._positions = PositionEmbeddings(subject, plan.seed, self._fitting(donor))
        self._translation = Translation(subject, plan.seed)
        self._occlusion = Occlusion(subject, plan.hidden_grid, plan.counts)
        if subject.attends and subject.table is None:
            self.notes.append(f"{subject.name} has no table of position embeddings, so that none were changed.")

    def add(self, shown: Shown) -> None:
        """Counts more images in."""
        self._shuffle.add(shown)
        if self._read_out is not None:
            self._read_out.add(shown)
        self._positions.add(shown)
        self._translation.add(shown)
        self._occlusion.add(shown)

    def result(self, *, has_labels: bool) -> ModelArrangement:
        """What came out, as plain numbers."""
        subject, patches = self.subject, self._patches
        return ModelArrangement(
            name=subject.name,
            kind=subject.layers.kind,
            parameters=subject.parameters,
            image_size=subject.image_size,
            patch_size=subject.layers.patch_size,
            shuffled={k: summarised(means) for k, means in self._shuffle.answers.items()},
            layers=subject.layers.names,
            read_out={} if self._read_out is None else self._read_out.result(),
            positions={name: summarised(means) for name, means in self._positions.answers.items()},
            shifted={pixels: summarised(means) for pixels, means in self._translation.answers.items()},
            equivariance=self._translation.equivariance(),
            occluded={
                order: {count / patches: summarised(means) for count, means in by_count.items()}
                for order, by_count in self._occlusion.answers.items()
            },
            areas={order: self._area(order, has_labels).interval() for order in self._occlusion.answers},
        )

    def sampled(self, *, has_labels: bool) -> Sampled:
        """The same answers with all their resamples, for differences of models."""
        changed = {shuffle_question(k): means for k, means in self._shuffle.answers.items() if k > 1}
        changed |= {f"position embeddings {name}": means for name, means in self._positions.answers.items()}
        changed |= {f"shifted by {pixels} px": means for pixels, means in self._translation.answers.items()}
        areas = {f"occlusion, {order}": self._area(order, has_labels) for order in self._occlusion.answers}
        subject = self.subject
        return Sampled(subject.name, subject.layers.kind, self._shuffle.answers[1], changed, areas)

    def _fitting(self, donor: PositionTable | None) -> PositionTable | None:
        table = self.subject.table
        if donor is None or table is None or donor.values.shape[-1] == table.values.shape[-1]:
            return donor
        self.notes.append(
            f"The position embeddings to transplant have {donor.values.shape[-1]} numbers a patch, those of "
            f"{self.subject.name} {table.values.shape[-1]}, so that it kept its own."
        )
        return None

    @property
    def _patches(self) -> int:
        rows, columns = self._occlusion.grid
        return rows * columns

    def _area(self, order: str, has_labels: bool) -> Resampled:
        """Under the curve of an order, by trapezoids from no patch to all."""
        answers = self._occlusion.answers[order]
        index = MEASURES.index("accuracy" if has_labels else "agreement")
        widths: dict[int, float] = dict.fromkeys(answers, 0.0)
        for one, other in pairwise(answers):
            for count in (one, other):
                widths[count] += (other - one) / self._patches / 2
        return combined([(width, answers[count].measure(index)) for count, width in widths.items()])


def hidden_counts(shares: Sequence[float], patches: int) -> tuple[int, ...]:
    """How many patches these shares are, ascending, each once; without none and all."""
    return tuple(sorted({round(share * patches) for share in shares} - {0, patches}))


def hidden_grid(subject: Subject, layout: tuple[int, int] | None) -> tuple[int, int]:
    """The patches that are hidden: those of the model with attention, else a CNN's positions, at least 4 x 4."""
    if layout is not None:
        return layout
    height, width = subject.image_size
    patch_height, patch_width = subject.layers.patch_size
    return max(4, height // patch_height), max(4, width // patch_width)
