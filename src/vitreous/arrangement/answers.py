"""What a model answers to images, and how far its answers to changed images are from those to the unchanged."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitreous.arrangement.bootstrap import Means
from vitreous.arrangement.layers import SpatialLayers
from vitreous.arrangement.result import Answers
from vitreous.data.images import shown
from vitreous.errors import CheckpointError, NumericError
from vitreous.model.forward import run_model

MEASURES = ("accuracy", "agreement", "divergence", "cosine")
"""What `compare` tells of an image, in this order."""


@dataclass(frozen=True)
class Reading:
    """What a model made of some images; on the CPU.

    Attributes:
        logits: (batch, classes) float32.
        features: (batch, width) float32; the vector that the classification head reads.
    """

    logits: Tensor
    features: Tensor

    def for_each(self, images: int) -> Reading:
        """That of a single image, for as many."""
        return Reading(self.logits.expand(images, -1), self.features.expand(images, -1))


class Reader:
    """Reads logits, and the vector that the head reads, from any classifier.

    The head is the last `nn.Linear` whose output is the model's; of several whose mean is the model's output, as in
    distilled models, all, their vectors side by side. Where there is none the logits stand for the vector.

    Attributes:
        model: any module; run in the mode that it is in, on its own device.
        name: for messages.
        classes: how many logits it gives.

    Args:
        model: the module.
        images: (batch, channels, image_height, image_width), preprocessed; the first is looked at.
        name: for messages.

    Raises:
        CheckpointError: if the model has no classification head.
        NumericError: if a logit is NaN or infinite.
        ShapeError: if the model refuses the image.
    """

    def __init__(self, model: nn.Module, images: Tensor, name: str) -> None:
        self.model, self.name = model, name
        linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
        with _seen_inputs(linear) as calls:
            logits = self._logits(run_model(model, images[:1]), 1)
        self._heads = _heads(calls, logits)
        self.classes = logits.shape[1]

    @property
    def reads_head(self) -> bool:
        """Whether a head was found, so that features are what it reads; else they are the logits."""
        return bool(self._heads)

    def read(self, images: Tensor) -> Reading:
        """One pass: (batch, channels, image_height, image_width) -> logits and features.

        Raises:
            NumericError: if a logit is NaN or infinite.
            ShapeError: if the model refuses the batch.
        """
        return self._read(lambda: run_model(self.model, images), len(images))

    def read_layers(self, layers: SpatialLayers, images: Tensor) -> tuple[Reading, dict[str, Tensor]]:
        """The same, and the features of layers, in one pass; see `SpatialLayers.read`."""
        maps: dict[str, Tensor] = {}

        def run() -> Any:
            output, found = layers.read(images)
            maps.update(found)
            return output

        return self._read(run, len(images)), maps

    def _read(self, run: Callable[[], Any], images: int) -> Reading:
        with _seen_inputs(self._heads) as calls:
            logits = self._logits(run(), images)
        last = {head: vector for head, vector, _ in calls}  # of a head that was called twice the last call
        features = torch.cat([last[head] for head in self._heads], dim=1) if self._heads else logits
        return Reading(logits, features.float().cpu())

    def _logits(self, output: Any, images: int) -> Tensor:
        logits = getattr(output, "logits", output)
        config = getattr(self.model, "config", None)
        is_headless = 0 in (getattr(self.model, "num_classes", None), getattr(config, "classes", None))
        if is_headless or not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != images:
            raise CheckpointError(
                f"{shown(self.name)} has no classification head: it returns no logits (images, classes); arrangement "
                "is measured by a model's answers, so use one that was trained to classify"
            )
        if not logits.isfinite().all():
            raise NumericError(f"{shown(self.name)}: a logit is NaN or infinite; its weights are broken")
        return logits.float().cpu()


def compare(unchanged: Reading, changed: Reading, labels: Tensor | None) -> Tensor:
    """What the change did to each image's answer: (batch, measures) float64, in the order of `MEASURES`.

    Accuracy and agreement are 0 or 1 for an image. Of equal answers agreement is 1, divergence 0 and cosine 1.

    Args:
        unchanged: of the images as they are.
        changed: of the same images, changed.
        labels: (batch,) int64; without them accuracy is NaN.
    """
    answer = changed.logits.argmax(1)
    before, after = unchanged.logits.double().log_softmax(1), changed.logits.double().log_softmax(1)
    divergence = (before.exp() * (before - after)).sum(1).clamp_min(0)  # a rounding error may be below
    right = torch.full_like(divergence, torch.nan) if labels is None else (answer == labels).double()
    stays = (answer == unchanged.logits.argmax(1)).double()
    return torch.stack([right, stays, divergence, _cosine(unchanged.features, changed.features)], dim=1)


def summarised(means: Means) -> Answers:
    """Means of what `compare` told of each image, with their intervals."""
    accuracy, agreement, divergence, cosine = (means.measure(index).interval() for index in range(len(MEASURES)))
    is_unknown = math.isnan(accuracy.value)  # without labels
    return Answers(None if is_unknown else accuracy, agreement, divergence, cosine)


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    """(batch, width) twice -> (batch,), 1 for two vectors of nothing."""
    both_nothing = ~(one.any(1) | other.any(1))
    return F.cosine_similarity(one.double(), other.double(), dim=1).clamp(-1, 1).masked_fill(both_nothing, 1)


_Call = tuple[nn.Module, Tensor, Tensor]
"""(module, what it was given, what it returned)."""


@contextmanager
def _seen_inputs(modules: list[nn.Linear]) -> Iterator[list[_Call]]:
    """Inside, the calls of some modules are written down; afterwards no hook is left on them."""
    calls: list[_Call] = []

    def see(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if inputs and inputs[0].ndim == 2:
            calls.append((module, inputs[0], output))

    hooks = [module.register_forward_hook(see) for module in modules]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _heads(calls: list[_Call], logits: Tensor) -> list[nn.Linear]:
    """The layers whose output is the model's, or whose mean is."""
    alike = [call for call in calls if call[2].shape == logits.shape]
    outputs = [output.float().cpu() for _, _, output in alike]
    heads = [module for module, _, _ in alike if isinstance(module, nn.Linear)]
    for number in reversed(range(len(outputs))):
        if torch.equal(outputs[number], logits):
            return [heads[number]]
    if outputs and torch.allclose(torch.stack(outputs).mean(0), logits, atol=1e-5):
        return heads
    return []
