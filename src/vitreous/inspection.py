"""What was seen inside one model on one set of images: numbers, units, and where they come from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from vitreous.tokens import TokenLayout


@dataclass(frozen=True)
class Inspection:
    """Everything that figures and reports show; computed once, shown many times.

    A measure that a model has no place for (position embeddings of a rotary model, say) is None, and
    `provenance["notes"]` says why.

    Attributes:
        layout: which token is which.
        attention_distance: (layers, heads) pixels; mean over queries and images of the expected distance between
            a patch and the patches it attends to, as in the paper: class token left out, not renormalised.
        attention_distance_spread: (layers, heads) pixels; standard deviation of the above over images.
        attention_distance_renormalized: (layers, heads) pixels; the same, each row's patches rescaled to sum to 1.
        attention_entropy: (layers, heads) bits; mean over all queries and images of the entropy of a query's
            attention over all keys.
        prefix_mass: (layers, heads) in [0, 1]; mean share of a patch's attention that goes to prefix tokens.
        rollout: (images, rows, columns); share of each patch in the read-out token after all layers.
        class_attention: (shown, layers, heads, rows, columns); where the read-out token looks, first images only.
        thumbnails: (shown, image_height, image_width, 3) uint8; the model's input, undone to colours.
        image_names: one per image, in order; the first `shown` belong to the maps and thumbnails.
        predictions: for each shown image its most likely classes, as (name, probability), most likely first;
            empty where the model's output is no vector of logits.
        filters: (components, channels, height, width); principal components of the patch embedding.
        filters_variance: (components,) in [0, 1]; share of the filters' variance that each explains.
        position_similarity: (rows, columns, rows, columns) in [-1, 1]; cosine similarity of position embeddings.
        position_structure: locality, row_column and periodicity, each in [-1, 1]; see `measures.similarity`.
        provenance: model, file hash, preprocessing, versions, proof of the capture, notes.
    """

    layout: TokenLayout
    attention_distance: Tensor
    attention_distance_spread: Tensor
    attention_distance_renormalized: Tensor
    attention_entropy: Tensor
    prefix_mass: Tensor
    rollout: Tensor
    class_attention: Tensor
    thumbnails: Tensor
    image_names: tuple[str, ...]
    predictions: tuple[tuple[tuple[str, float], ...], ...] = ()
    filters: Tensor | None = None
    filters_variance: Tensor | None = None
    position_similarity: Tensor | None = None
    position_structure: dict[str, float] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
