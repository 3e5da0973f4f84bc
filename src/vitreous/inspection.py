"""What was seen inside one model on one set of images: numbers, units, and where they come from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from vitreous.atomic import write_atomically
from vitreous.errors import InputError
from vitreous.measures.distance import depth_trend
from vitreous.tokens import TokenLayout

FORMAT = "vitreous-inspection-2"


@dataclass(frozen=True)
class Inspection:
    """Everything that figures and reports show; computed once, shown many times.

    A measure that a model has no place for (position embeddings of a rotary model, say) is None, and
    `provenance["notes"]` says why.

    Histograms count queries of all images, in bins of equal width from 0 to the largest value that is possible:
    `measures.heads.HEAD_MEASURES` has it. Spreads are standard deviations over images.

    Attributes:
        layout: which token is which.
        images: how many images the averages are over.
        attention_distance: (layers, heads) pixels; mean over queries and images of the expected distance between
            a patch and the patches it attends to, as in the paper: class token left out, not renormalised.
        attention_distance_spread: (layers, heads) pixels.
        attention_distance_histogram: (layers, heads, bins) patches.
        attention_distance_renormalized: (layers, heads) pixels; the same, each row's patches rescaled to sum to 1.
        attention_entropy: (layers, heads) bits; mean over all queries and images of the entropy of a query's
            attention over all keys.
        attention_entropy_spread: (layers, heads) bits.
        attention_entropy_histogram: (layers, heads, bins) tokens.
        prefix_mass: (layers, heads) in [0, 1]; mean share of a patch's attention that goes to prefix tokens.
        prefix_mass_spread: (layers, heads).
        prefix_mass_histogram: (layers, heads, bins) patches.
        rollout_mean: (rows, columns); share of each patch in the read-out token after all layers, mean over images.
        rollout: (shown, rows, columns); the same of the first images.
        class_attention: (shown, layers, heads, rows, columns); where the read-out token looks.
        thumbnails: (shown, image_height, image_width, 3) uint8; the model's input, undone to colours.
        image_names: (shown,); of the first images.
        predictions: for each shown image its most likely classes, as (name, probability), most likely first;
            empty where the model's output is no vector of logits.
        flow: (shown, rows, columns) in [0, 1]; the largest flow between each patch and the read-out token.
        flow_cut: (shown, rows, columns) int8; what limits it, an index into `measures.flow_solver.CUTS`.
        filters: (components, channels, height, width); principal components of the patch embedding.
        filters_variance: (components,) in [0, 1]; share of the filters' variance that each explains.
        position_similarity: (rows, columns, rows, columns) in [-1, 1]; cosine similarity of position embeddings.
        position_structure: locality, row_column and periodicity; see `measures.similarity.position_structure`.
        skipped: (name, cause) of every image that could not be read; they are in no other number.
        provenance: model, file hash, preprocessing, versions, proof of the capture, notes.
    """

    layout: TokenLayout
    images: int
    attention_distance: Tensor
    attention_distance_spread: Tensor
    attention_distance_histogram: Tensor
    attention_distance_renormalized: Tensor
    attention_entropy: Tensor
    attention_entropy_spread: Tensor
    attention_entropy_histogram: Tensor
    prefix_mass: Tensor
    prefix_mass_spread: Tensor
    prefix_mass_histogram: Tensor
    rollout_mean: Tensor
    rollout: Tensor
    class_attention: Tensor
    thumbnails: Tensor
    image_names: tuple[str, ...]
    predictions: tuple[tuple[tuple[str, float], ...], ...] = ()
    flow: Tensor | None = None
    flow_cut: Tensor | None = None
    filters: Tensor | None = None
    filters_variance: Tensor | None = None
    position_similarity: Tensor | None = None
    position_structure: dict[str, float] = field(default_factory=dict)
    skipped: tuple[tuple[str, str], ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def depth_trend(self) -> dict[str, float]:
        """How distance and its spread over heads change with depth; see `measures.distance.depth_trend`."""
        return depth_trend(self.attention_distance)

    def to_dict(self) -> dict[str, Any]:
        """Every number as plain data, ready for JSON; thumbnails are left out."""
        plain = {item.name: _plain(getattr(self, item.name)) for item in fields(self) if item.name != "thumbnails"}
        return plain | {"depth_trend": _plain(self.depth_trend)}

    def save(self, path: str | Path) -> None:
        """Writes everything to one safetensors file, whole or not at all.

        Raises:
            OutputError: if it cannot be written.
        """
        tensors = {name: tensor.contiguous() for name, tensor in self._values() if isinstance(tensor, Tensor)}
        others = {name: value for name, value in self._values() if not isinstance(value, Tensor)}
        header = json.dumps(others | {"layout": asdict(self.layout)})
        write_atomically(Path(path), to_safetensors(tensors, {"format": FORMAT, "inspection": header}))

    @classmethod
    def load(cls, path: str | Path) -> Inspection:
        """Reads what `save` wrote; needs no model.

        Raises:
            InputError: if the file is missing, damaged, or no inspection.
        """
        try:
            with safe_open(path, "pt") as file:
                header = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            if header.get("format") != FORMAT:
                raise InputError(
                    f"{path} is a safetensors file, but no inspection of this version; "
                    "write one with inspection.save(path)"
                )
            values: dict[str, Any] = json.loads(header["inspection"]) | tensors
            values["layout"] = TokenLayout(**values["layout"])
            values["image_names"] = tuple(values["image_names"])
            values["predictions"] = tuple(tuple((n, p) for n, p in image) for image in values["predictions"])
            values["skipped"] = tuple((name, cause) for name, cause in values.get("skipped", ()))
            return cls(**values)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as cause:
            raise InputError(
                f"{path} cannot be read as an inspection: {cause}; write one with inspection.save(path)"
            ) from cause

    def _values(self) -> Iterator[tuple[str, Any]]:
        return ((item.name, getattr(self, item.name)) for item in fields(self))


def _plain(value: Any) -> Any:
    """Plain data: tensors as nested lists of numbers with seven digits, NaN as None."""
    if isinstance(value, Tensor):
        return _plain(value.tolist())
    if isinstance(value, TokenLayout):
        return asdict(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if value == value and abs(value) != float("inf") else None
    return value
