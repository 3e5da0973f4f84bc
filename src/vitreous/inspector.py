"""Looking inside a model: one pass over the images, every measure at once."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitreous.capture.operator import AttentionOperator, RowStatistics
from vitreous.capture.watch import Watched, watch_attention
from vitreous.data.gather import Pictures, gather_pictures
from vitreous.data.preprocess import Preprocess
from vitreous.data.transforms import to_tensor, undo
from vitreous.errors import ConfigError, InputError, NumericError, ShapeError
from vitreous.inspection import Inspection
from vitreous.measures.filters import embedding_filters
from vitreous.measures.heads import HEAD_MEASURES
from vitreous.measures.moments import HeadMoments
from vitreous.measures.rollout import attention_rollout, read_out
from vitreous.measures.similarity import position_similarity, position_structure
from vitreous.model.forward import run_model
from vitreous.progress import progress_bar
from vitreous.tokens import TokenLayout

Images = Tensor | Pictures | str | Path | Sequence[str | Path]

TOP = 5
"""Classes listed for each shown image."""


def inspect_model(
    model: nn.Module,
    images: Images,
    *,
    batch_size: int = 16,
    shown: int = 8,
    layout: TokenLayout | None = None,
    preprocess: Preprocess | None = None,
    class_names: Sequence[str] = (),
    names: Sequence[str] = (),
    name: str | None = None,
    progress: bool = False,
) -> Inspection:
    """Looks inside a model on some images, with all of the paper's measures, in about the time of the forward pass.

    Args:
        model: any PyTorch ViT, in eval mode (it is run as it is, without gradients, on its own device).
        images: (batch, channels, image_height, image_width) float, already preprocessed; or files and folders, the
            name of a built-in data set, or what `data.gather` makes of them.
        batch_size: images in a forward pass.
        shown: images whose maps by layer and head are kept; the averages are over all.
        layout: which token is which, where it cannot be seen.
        preprocess: for pictures: what the model wants done to them; None takes what the model was loaded with. For
            tensors: how to undo their colours in thumbnails.
        class_names: of the logits; none takes what the model was loaded with.
        names: of the images in a tensor.
        name: of the model, in titles.
        progress: whether to draw a bar on standard error.

    Raises:
        CaptureError: if no attention is seen, or it cannot be told which token is which, or a proof fails.
        ConfigError: if the model is in training mode, pictures come without a preprocessing, or a number is out of
            range.
        InputError: if an image cannot be read, or there is none.
        NumericError: if a measure is NaN.
        ShapeError: if a tensor of images does not have four axes, or the model refuses its size.

    Source: Dosovitskiy et al. 2021, figures 6, 7 and 11; Abnar & Zuidema 2020, equation 1. Each measure cites its own.
    """
    if batch_size < 1 or shown < 1:
        raise ConfigError(f"batch_size is {batch_size} and shown is {shown}; both are at least 1")
    known: Mapping[str, Any] = getattr(model, "provenance", None) or {}
    if preprocess is None and "preprocess" in known:
        preprocess = Preprocess.from_dict(known["preprocess"])
    source = _Images(images, preprocess, tuple(names))
    seen = _Seen(tuple(class_names or known.get("class_names", ())), shown)
    if model.training:
        raise ConfigError(
            "the model is in training mode, where dropout and batch statistics vary\ncall model.eval() first"
        )
    with progress_bar("inspecting images", len(source.names), shown=progress) as advance:
        for first in range(0, len(source.names), batch_size):
            batch = source.batch(first, batch_size)
            with watch_attention(model, layout=layout, on_attention=seen.on_attention) as watched:
                output = run_model(model, batch)
            seen.finish(batch, _logits(model, output, seen.class_names), watched)
            advance(len(batch), "")
    return seen.result(watched, source, preprocess, _provenance(model, known, preprocess, name))


class _Images:
    """Batches from a tensor or from pictures, and the images' names."""

    def __init__(self, images: Images, preprocess: Preprocess | None, names: tuple[str, ...]) -> None:
        self._images = images if isinstance(images, (Tensor, Pictures)) else gather_pictures(images)
        self._preprocess = preprocess
        if isinstance(self._images, Pictures):
            if preprocess is None:
                raise ConfigError(
                    "images are pictures, but nothing tells what the model wants done to them\n"
                    "pass preprocess=Preprocess(...), or a tensor that is already preprocessed"
                )
            self.names = _without_common_folder(self._images.names)
            return
        if self._images.ndim != 4:
            raise ShapeError(
                f"images are {tuple(self._images.shape)}, not (batch, channels, image_height, image_width)"
            )
        if names and len(names) != len(self._images):
            raise ConfigError(f"{len(names)} names for {len(self._images)} images; give one each, or none")
        self.names = names or tuple(f"image {index}" for index in range(len(self._images)))
        if not self.names:
            raise InputError("there is no image: the batch is empty")

    def batch(self, first: int, size: int) -> Tensor:
        """(batch, channels, image_height, image_width)."""
        if isinstance(self._images, Tensor):
            return self._images[first : first + size]
        assert self._preprocess is not None
        indices = range(first, min(first + size, len(self.names)))
        return torch.stack([to_tensor(self._images.read(index), self._preprocess) for index in indices])


def _without_common_folder(names: tuple[str, ...]) -> tuple[str, ...]:
    """Paths as short as they can be with all still different."""
    folders = [Path(name).parts[:-1] for name in names]
    levels = zip(*folders, strict=False)  # as deep as the shallowest
    common = next((depth for depth, level in enumerate(levels) if len(set(level)) > 1), min(map(len, folders)))
    return tuple(str(Path(*Path(name).parts[common:])) for name in names)


class _Seen:
    """What is kept of the passes so far: sums for the averages, maps for the first images."""

    def __init__(self, class_names: tuple[str, ...], shown: int) -> None:
        self.moments = {name: HeadMoments() for name in HEAD_MEASURES}
        self.class_names, self._shown = class_names, shown
        self._operators: list[AttentionOperator] = []
        self._rollout_sum = torch.zeros((), dtype=torch.float64)
        self._rollouts: list[Tensor] = []
        self._maps: list[Tensor] = []
        self._inputs: list[Tensor] = []
        self._predictions: list[tuple[tuple[str, float], ...]] = []
        self._errors: list[float] = []

    def on_attention(self, layer: int, operator: AttentionOperator, layout: TokenLayout) -> None:
        """Takes a layer as it happens; its queries and keys are kept until the pass is over."""
        self._operators.append(operator)

    def finish(self, batch: Tensor, logits: Tensor | None, watched: Watched) -> None:
        """Takes the end of a pass: the rollout walks the layers down, and the statistics of the rows fall out of it."""
        layout = watched.layout
        rollout = layout.to_grid(layout.patch_tokens(attention_rollout(self._operators, layout))).cpu()
        rows = RowStatistics.stack(
            [operator.statistics(layout.token_distances, layout.prefix) for operator in self._operators]
        )
        for name, measure in HEAD_MEASURES.items():
            self.moments[name].update(measure.values(rows, layout), measure.highest(layout))
        self._rollout_sum = self._rollout_sum + rollout.double().sum(0)
        self._errors.append(max(watched.errors))
        wanted = self._shown - sum(len(inputs) for inputs in self._inputs)
        if wanted > 0:
            self._rollouts.append(rollout[:wanted].float())
            self._inputs.append(batch[:wanted].float().cpu())
            self._maps.append(_read_out_maps(self._operators, layout, len(self._inputs[-1])))
            self._predictions += _predictions(logits, self.class_names)[:wanted]
        self._operators.clear()

    def result(
        self, watched: Watched, source: _Images, preprocess: Preprocess | None, provenance: dict[str, Any]
    ) -> Inspection:
        """Everything as an `Inspection`; `watched` is the last pass, for what belongs to the model alone."""
        images = len(source.names)
        mean = {name: moments.mean().float() for name, moments in self.moments.items()}
        spread = {name: moments.spread().float() for name, moments in self.moments.items()}
        counts = {name: moments.histogram() for name, moments in self.moments.items()}
        distance = mean["attention_distance"]
        if not bool(distance.isfinite().all()):
            layer = int((~distance.isfinite()).any(1).nonzero()[0])
            raise NumericError(
                f"layer {layer}: attention distance is not finite\ncheck the weights, the images and the precision"
            )
        notes = [*provenance.pop("notes"), *watched.notes]
        positions = watched.positions()
        if positions is None:
            notes.append("position similarity: the model has no table of position embeddings for its patches")
        if watched.kernel is None:
            notes.append("filters: no patch embedding was seen")
        filters, variance = (None, None) if watched.kernel is None else embedding_filters(watched.kernel)
        similarity = None if positions is None else position_similarity(positions.table)
        if preprocess is None:
            notes.append("thumbnails: the preprocessing is not known, so colours are stretched for each image")
        return Inspection(
            layout=watched.layout,
            images=images,
            attention_distance=distance,
            attention_distance_spread=spread["attention_distance"],
            attention_distance_histogram=counts["attention_distance"],
            attention_distance_renormalized=mean["attention_distance_renormalized"],
            attention_entropy=mean["attention_entropy"],
            attention_entropy_spread=spread["attention_entropy"],
            attention_entropy_histogram=counts["attention_entropy"],
            prefix_mass=mean["prefix_mass"],
            prefix_mass_spread=spread["prefix_mass"],
            prefix_mass_histogram=counts["prefix_mass"],
            rollout_mean=(self._rollout_sum / images).float(),
            rollout=torch.cat(self._rollouts),
            class_attention=torch.cat(self._maps),
            thumbnails=_thumbnails(torch.cat(self._inputs), preprocess),
            image_names=source.names[: self._shown],
            predictions=tuple(self._predictions),
            filters=filters,
            filters_variance=variance,
            position_similarity=similarity,
            position_structure={} if similarity is None else position_structure(similarity),
            provenance=provenance
            | {
                "largest_proof_error": max(self._errors),
                "rollout": "mean of heads, residual 0.5, "
                + ("class token" if watched.layout.class_token is not None else "mean of patches"),
                "notes": notes,
            },
        )


def _read_out_maps(operators: Sequence[AttentionOperator], layout: TokenLayout, images: int) -> Tensor:
    """Where the read-out token of the first images looks: (images, layers, heads, rows, columns)."""
    token = read_out(layout)[None, None].to(operators[0].device)  # (1, 1, tokens)
    maps = [
        torch.stack([layout.patch_tokens(operator.image(index).pull(token)[0]) for operator in operators])
        for index in range(images)
    ]
    return layout.to_grid(torch.stack(maps)).float().cpu()


def _logits(model: nn.Module, output: Any, class_names: tuple[str, ...]) -> Tensor | None:
    """(images, classes), where the output is known to be logits."""
    logits = getattr(output, "logits", None)
    if isinstance(logits, Tensor) and logits.ndim == 2:
        return logits
    config = getattr(model, "config", None)
    classes = getattr(model, "num_classes", None) or getattr(config, "classes", None)
    if isinstance(output, Tensor) and output.ndim == 2 and output.shape[1] in (classes, len(class_names)):
        return output
    return None


def _predictions(logits: Tensor | None, class_names: tuple[str, ...]) -> list[tuple[tuple[str, float], ...]]:
    """The most likely classes of each image, as (name, probability)."""
    if logits is None:
        return []
    likely = logits.float().softmax(-1).topk(min(TOP, logits.shape[1]))
    named = (
        class_names if len(class_names) == logits.shape[1] else [f"class {index}" for index in range(logits.shape[1])]
    )
    return [
        tuple((named[index], probability) for index, probability in zip(indices, probabilities, strict=True))
        for indices, probabilities in zip(likely.indices.tolist(), likely.values.tolist(), strict=True)
    ]


def _thumbnails(inputs: Tensor, preprocess: Preprocess | None) -> Tensor:
    """Inputs as colours: (images, image_height, image_width, 3) uint8."""
    if inputs.shape[1] == 1:
        inputs = inputs.expand(-1, 3, -1, -1)
    if preprocess is not None:
        return undo(inputs[:, :3], preprocess)
    low, high = inputs[:, :3].aminmax(dim=1, keepdim=True)
    low, high = low.amin((2, 3), keepdim=True), high.amax((2, 3), keepdim=True)
    stretched = (inputs[:, :3] - low) / (high - low).clamp_min(torch.finfo(inputs.dtype).tiny)
    return (stretched * 255).round().to(torch.uint8).movedim(1, -1)


def _provenance(
    model: nn.Module, known: Mapping[str, Any], preprocess: Preprocess | None, name: str | None
) -> dict[str, Any]:
    kind = type(model)
    return {
        "model": name or known.get("name") or kind.__name__,
        "class": f"{kind.__module__}.{kind.__qualname__}",
        "source": known.get("source", "a module in memory"),
        "file_hash": known.get("file_hash", "not read from a file"),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "precision": str(next((parameter.dtype for parameter in model.parameters()), torch.float32)).removeprefix(
            "torch."
        ),
        "preprocess": "done by the caller" if preprocess is None else preprocess.to_dict(),
        "versions": {"vitreous": version("vitreous"), "torch": version("torch"), "python": platform.python_version()},
        "notes": list(known.get("notes", ())),
    }
