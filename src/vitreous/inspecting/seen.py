"""What is kept of the images seen so far: sums for the averages, maps for the first images, facts of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from vitreous.capture.operator import AttentionOperator, RowStatistics
from vitreous.capture.watch import Watched
from vitreous.errors import NumericError
from vitreous.measures.filters import embedding_filters
from vitreous.measures.flow import attention_flow
from vitreous.measures.heads import HEAD_MEASURES
from vitreous.measures.moments import HeadMoments
from vitreous.measures.rollout import attention_rollout, read_out
from vitreous.measures.similarity import position_similarity
from vitreous.tokens import TokenLayout

Classes = tuple[tuple[str, float], ...]
"""An image's most likely classes, as (name, probability), most likely first."""


@dataclass(frozen=True)
class FirstImages:
    """What is kept of each shown image.

    Attributes:
        indices: which images of the data set, ascending.
        inputs: (shown, channels, image_height, image_width); what the model was given.
        rollout: (shown, rows, columns).
        class_attention: (shown, layers, heads, rows, columns).
        flow: (shown, rows, columns); None where it was not asked for.
        flow_cut: (shown, rows, columns) int8; likewise.
        predictions: one for each image, or none where the model gives no logits.
    """

    indices: tuple[int, ...]
    inputs: Tensor
    rollout: Tensor
    class_attention: Tensor
    predictions: tuple[Classes, ...]
    flow: Tensor | None = None
    flow_cut: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """All maps, by their names."""
        named = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in named.items() if isinstance(value, Tensor)}

    def merge(self, other: FirstImages, shown: int) -> FirstImages:
        """The first of both, at most `shown`."""
        indices = (*self.indices, *other.indices)
        order = sorted(range(len(indices)), key=indices.__getitem__)[:shown]
        predictions = (*self.predictions, *other.predictions)
        others = other.tensors()
        return FirstImages(
            indices=tuple(indices[place] for place in order),
            predictions=tuple(predictions[place] for place in order if predictions),
            **{name: torch.cat([own, others[name]])[order] for name, own in self.tensors().items()},
        )


@dataclass(frozen=True)
class ModelFacts:
    """What every pass shows alike, because it belongs to the model.

    Attributes:
        layout: which token is which.
        notes: what was left out, and why.
        tables: `filters`, `filters_variance` and `position_similarity` of an `Inspection`, those that there are.
    """

    layout: TokenLayout
    notes: tuple[str, ...]
    tables: dict[str, Tensor]

    @classmethod
    def of(cls, watched: Watched) -> ModelFacts:
        """What a pass showed."""
        notes, tables = list(watched.notes), {}
        positions = watched.positions()
        if positions is None:
            notes.append("position similarity: the model has no table of position embeddings for its patches")
        else:
            tables["position_similarity"] = position_similarity(positions.table)
        if watched.kernel is None:
            notes.append("filters: no patch embedding was seen")
        else:
            tables["filters"], tables["filters_variance"] = embedding_filters(watched.kernel)
        return cls(watched.layout, tuple(notes), tables)


@dataclass(frozen=True)
class Seen:
    """Everything that is kept of some batches. Never changed: `merge` makes the next one.

    Batches can come one by one or on several processes: the result is the same up to the order of float64 sums.

    Attributes:
        batches: how many.
        images: how many of theirs could be read.
        unread: (index, cause) of each that could not.
        moments: of every measure in `HEAD_MEASURES`.
        rollout_sum: (rows, columns) float64; sum over images.
        largest_error: of the proofs.
        first: the images to show; None before the first image that can be read.
        facts: of the model; None likewise.
    """

    batches: int = 0
    images: int = 0
    unread: tuple[tuple[int, str], ...] = ()
    moments: Mapping[str, HeadMoments] = field(default_factory=lambda: {name: HeadMoments() for name in HEAD_MEASURES})
    rollout_sum: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    largest_error: float = 0.0
    first: FirstImages | None = None
    facts: ModelFacts | None = None

    @property
    def done(self) -> int:
        """Images that are done with: read, or found unreadable."""
        return self.images + len(self.unread)

    def merge(self, other: Seen, shown: int) -> Seen:
        """This and what was seen elsewhere or later, with at most `shown` images to show."""
        moments = {name: copy(own) for name, own in self.moments.items()}
        for name, own in moments.items():
            own.merge(other.moments[name])
        first = self.first or other.first
        if self.first is not None and other.first is not None:
            first = self.first.merge(other.first, shown)
        return Seen(
            batches=self.batches + other.batches,
            images=self.images + other.images,
            unread=(*self.unread, *other.unread) if other.unread else self.unread,
            moments=moments,
            rollout_sum=self.rollout_sum + other.rollout_sum,
            largest_error=max(self.largest_error, other.largest_error),
            first=first,
            facts=self.facts or other.facts,
        )

    def wanted(self, shown: int) -> int:
        """How many more images are to be shown."""
        return shown - (0 if self.first is None else len(self.first.indices))


def see(
    watched: Watched,
    inputs: Tensor,
    indices: Sequence[int],
    predictions: Sequence[Classes],
    wanted: int,
    flow: Mapping[str, Any] | None,
) -> Seen:
    """What is kept of one pass; the facts of the model are left to the caller, who needs them only once.

    The rollout walks the layers down, and the statistics of the rows fall out of it.

    Args:
        watched: the pass.
        inputs: (batch, channels, image_height, image_width); what the model was given.
        indices: which images of the data set these are.
        predictions: one for each image, or none.
        wanted: how many of the batch are to be shown, at most.
        flow: options of `attention_flow`, for these; None makes none.

    Raises:
        ConfigError: if an option of the flow is wrong, or no solver is installed.
        MemoryLimitError: if the maps that the flow needs are too large.
        NumericError: if a distance is not finite, with the layer and the image.
    """
    layout, operators = watched.layout, watched.layers
    rollout = layout.to_grid(layout.patch_tokens(attention_rollout(operators, layout))).cpu()
    rows = RowStatistics.stack([one.statistics(layout.token_distances, layout.prefix) for one in operators])
    moments = {name: HeadMoments() for name in HEAD_MEASURES}
    for name, measure in HEAD_MEASURES.items():
        values = measure.values(rows, layout)  # (layers, images, heads, queries)
        if name == "attention_distance":
            _check_finite(values)
        moments[name].update(values, measure.highest(layout))
    shown = max(0, min(wanted, len(inputs)))
    first = None
    if shown:
        of_images = [[operator.image(index) for operator in operators] for index in range(shown)]
        maps = torch.stack([_read_out_maps(one, layout) for one in of_images])
        flows = {} if flow is None else _flows(of_images, layout, flow)
        kept = inputs[:shown].float().cpu()
        predicted = tuple(predictions[:shown])
        first = FirstImages(tuple(indices[:shown]), kept, rollout[:shown].float(), maps, predicted, **flows)
    return Seen(
        batches=1,
        images=len(inputs),
        moments=moments,
        rollout_sum=rollout.double().sum(0),
        largest_error=max(watched.errors),
        first=first,
    )


def _check_finite(values: Tensor) -> None:
    """Raises NumericError unless all of (layers, images, heads, queries) are finite."""
    broken = (~values.isfinite().flatten(2).all(2)).nonzero()
    if len(broken):
        layer, image = map(int, broken[0])
        raise NumericError(
            f"layer {layer}, image {image} of the batch: attention distance is not finite\n"
            "check the weights, the images and the precision",
            image=image,
        )


def _read_out_maps(operators: Sequence[AttentionOperator], layout: TokenLayout) -> Tensor:
    """Where the read-out token of one image looks: (layers, heads, rows, columns)."""
    token = read_out(layout)[None, None].to(operators[0].device)  # (1, 1, tokens)
    maps = [layout.patch_tokens(operator.pull(token)[0]) for operator in operators]
    return layout.to_grid(torch.stack(maps)).float().cpu()


def _flows(
    of_images: Sequence[Sequence[AttentionOperator]], layout: TokenLayout, options: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Attention flow of each image, and which cut limits it: each (images, rows, columns)."""
    found = [attention_flow(operators, layout, **options) for operators in of_images]
    flow, cut = (
        layout.to_grid(layout.patch_tokens(torch.cat([getattr(one, name) for one in found])))
        for name in ("flow", "cut")
    )
    return {"flow": flow.float(), "flow_cut": cut}
