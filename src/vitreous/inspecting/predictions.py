"""What a model takes images for, where its output says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

TOP = 5
"""Classes listed for each image."""


def likely_classes(
    model: nn.Module, output: Any, class_names: Sequence[str]
) -> tuple[tuple[tuple[str, float], ...], ...]:
    """The most likely classes of each image, as (name, probability); empty where the output is no vector of logits."""
    logits = _logits(model, output, class_names)
    if logits is None:
        return ()
    likely = logits.float().softmax(-1).topk(min(TOP, logits.shape[1]))
    named = (
        class_names if len(class_names) == logits.shape[1] else [f"class {index}" for index in range(logits.shape[1])]
    )
    return tuple(
        tuple((named[index], probability) for index, probability in zip(indices, probabilities, strict=True))
        for indices, probabilities in zip(likely.indices.tolist(), likely.values.tolist(), strict=True)
    )


def _logits(model: nn.Module, output: Any, class_names: Sequence[str]) -> Tensor | None:
    """(images, classes), where the output is known to be logits."""
    logits = getattr(output, "logits", None)
    if isinstance(logits, Tensor) and logits.ndim == 2:
        return logits
    config = getattr(model, "config", None)
    classes = getattr(model, "num_classes", None) or getattr(config, "classes", None)
    if isinstance(output, Tensor) and output.ndim == 2 and output.shape[1] in (classes, len(class_names)):
        return output
    return None
