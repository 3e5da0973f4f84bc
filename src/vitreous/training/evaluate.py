"""How well a model knows a data set."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitreous.checkpoints.loaded import LoadedModel
from vitreous.data.datasets import LabelledImages
from vitreous.data.transforms import read_batch
from vitreous.errors import CheckpointError, ConfigError, InputError, NumericError
from vitreous.model.forward import run_model
from vitreous.progress import progress_bar
from vitreous.training.changes import changed_names


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    Attributes:
        images: how many were looked at.
        top1: share of images whose most likely class is the true one, in [0, 1].
        top5: share whose true class is among the five most likely, or among all where there are fewer.
        loss: mean cross-entropy in nats, without label smoothing.
        class_names: one for each class.
        per_class: (classes,) float64; share of each class's images that are right, NaN where it has none.
        confusion: (classes, classes) int64; images by true class (rows) and most likely class (columns).
    """

    images: int
    top1: float
    top5: float
    loss: float
    class_names: tuple[str, ...]
    per_class: Tensor
    confusion: Tensor

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON; a class without images has None."""
        shares = [None if share != share else share for share in self.per_class.tolist()]
        return {
            "images": self.images,
            "top1": self.top1,
            "top5": self.top5,
            "loss_nats": self.loss,
            "per_class": dict(zip(self.class_names, shares, strict=True)),
            "confusion": self.confusion.tolist(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Evaluation:
        """What `to_dict` made."""
        shares = [math.nan if share is None else share for share in values["per_class"].values()]
        return cls(
            images=values["images"],
            top1=values["top1"],
            top5=values["top5"],
            loss=values["loss_nats"],
            class_names=tuple(values["per_class"]),
            per_class=torch.tensor(shares, dtype=torch.float64),
            confusion=torch.tensor(values["confusion"], dtype=torch.int64),
        )


def evaluate(
    loaded: LoadedModel,
    images: LabelledImages,
    *,
    batch_size: int = 64,
    unread: dict[str, str] | None = None,
    progress: bool = False,
) -> Evaluation:
    """A model's answers to a whole data set, compared with the labels.

    Args:
        loaded: the model.
        images: with labels.
        batch_size: images in a forward pass.
        unread: gets the images that cannot be read, by name, and why; they do not count. None lets the first end it.
        progress: whether to draw a bar.

    Raises:
        ConfigError: if `batch_size` is below 1.
        CheckpointError: if the model gives no logits, or its classes are not the data set's.
        InputError: if an image cannot be decoded, or none can.
        NumericError: if a logit is NaN or infinite.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; it must be at least 1")
    check_class_names(loaded, images)
    logits: list[Tensor] = []
    looked_at: list[int] = []
    with progress_bar(f"evaluating on {images.name}", len(images), shown=progress) as advance:
        for start in range(0, len(images), batch_size):
            batch = range(start, min(start + batch_size, len(images)))
            read, inputs = read_batch(images.read, images.image_names, batch, loaded.preprocess, unread)
            advance(len(batch), "")
            if not read:
                continue
            looked_at += read
            logits.append(class_logits(loaded.model, inputs))
            if logits[-1].shape[-1] != len(images.class_names):
                raise CheckpointError(
                    f"{loaded.name} has {logits[-1].shape[-1]} classes, {images.name} has "
                    f"{len(images.class_names)}; evaluate on the data set that it was trained for"
                )
    if unread and not looked_at:
        raise InputError(f"none of the {len(images):,} images can be read, the first:\n{next(iter(unread.values()))}")
    return score(torch.cat(logits), torch.tensor(images.labels)[looked_at], images.class_names)


def score(logits: Tensor, labels: Tensor, class_names: tuple[str, ...]) -> Evaluation:
    """Logits compared with labels: (images, classes) and (images,) int64.

    Where logits are equal the first class counts as the most likely.

    Raises:
        NumericError: if a logit is NaN or infinite.
    """
    if not logits.isfinite().all():
        first = int((~logits.isfinite().all(-1)).nonzero()[0])
        raise NumericError(f"the logits of image {first} are not finite; the weights are broken, train again")
    classes = len(class_names)
    ranked = logits.sort(dim=-1, descending=True, stable=True).indices  # (images, classes)
    hits = ranked[:, :5] == labels[:, None]  # (images, 5)
    confusion = torch.bincount(labels * classes + ranked[:, 0], minlength=classes**2).view(classes, classes)
    return Evaluation(
        images=len(labels),
        top1=hits[:, 0].double().mean().item(),
        top5=hits.any(-1).double().mean().item(),
        loss=F.cross_entropy(logits.double(), labels).item(),
        class_names=class_names,
        per_class=confusion.diag().double() / confusion.sum(1).double(),
        confusion=confusion,
    )


def class_logits(model: nn.Module, inputs: Tensor) -> Tensor:
    """A model's logits, without gradients: (batch, 3, image_height, image_width) -> (batch, classes) float32.

    Objects with `logits` in them, as models of transformers return, are understood. The model is called in
    the mode it is in.

    Raises:
        CheckpointError: if the model has no classification head, or returns no logits.
        ShapeError: if the model refuses the batch.
    """
    config = getattr(model, "config", None)
    if 0 in (getattr(model, "num_classes", None), getattr(config, "classes", None)):
        raise CheckpointError(
            f"{type(model).__name__} has no classification head; use a model that was trained with one"
        )
    output = run_model(model, inputs)
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(inputs):
        raise CheckpointError(
            f"{type(model).__name__} returned {type(output).__name__}, but logits (images, classes) are "
            "needed; use a model with a classification head"
        )
    return logits.float().cpu()


def check_class_names(loaded: LoadedModel, images: LabelledImages) -> None:
    """Nothing, if the model's classes are the data set's, or are not known.

    Raises:
        CheckpointError: if they are others, or in another order; with the first differences.
    """
    ours, theirs = loaded.class_names, images.class_names
    if not ours or ours == theirs:
        return
    raise CheckpointError(
        f"{loaded.name} has {len(ours)} classes, {images.name} has {len(theirs)}, and they differ: "
        f"{changed_names(ours, theirs, ('the model', 'the data'))}; "
        "evaluate on the data set that the model was trained for"
    )
