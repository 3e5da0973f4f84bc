"""What a model learns from a batch: one class for each task."""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitreous.data.training_batches import TrainingBatch
from vitreous.model.vit import VisionTransformer
from vitreous.training.config import Loss


class Objective(Protocol):
    """A task: what is learned beside the model, and how far off it is on a batch."""

    def learner(self, model: VisionTransformer) -> nn.Module:
        """What is trained: the model itself, or a module around it with weights of its own, the model its `model`."""
        ...

    def loss(self, learner: nn.Module, batch: TrainingBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """How far off the learner is on a part of a batch.

        It is called once, through `learner(...)`: several processes meet there. What is drawn by chance comes from
        torch's global generator, which the loop seeds at each step.

        Args:
            learner: what `learner` made, perhaps with something around it.
            batch: on the learner's device; it may have no images, and then the loss is 0.

        Returns:
            The mean loss over the images in nats, a float32 scalar; and numbers by name that are summed over images,
            scalars without a gradient: their mean is written into the metrics as `train_NAME`.
        """
        ...


class LearnClasses:
    """The classes of images; targets are labels, or a share of each class."""

    def __init__(self, loss: Loss, label_smoothing: float) -> None:
        self._loss = binary_loss if loss == "binary" else softmax_loss
        self._starts_rare = loss == "binary"
        self._label_smoothing = label_smoothing

    def learner(self, model: VisionTransformer) -> nn.Module:
        """The model; a head that is 0, and learns each class by itself, first says that every class is rare.

        Its bias becomes -ln(classes): at 0 a thousand classes, each taken for half true, would pull at it at once.
        Source: big_vision's `init_head_bias`, -6.9 for 1,000 classes.
        """
        if self._starts_rare and model.head is not None and not model.head.weight.any():
            nn.init.constant_(model.head.bias, -math.log(model.config.classes))
        return model

    def loss(self, learner: nn.Module, batch: TrainingBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective`; beside the loss `top1`, images whose most likely class is that of the largest target."""
        logits = learner(batch.images).float()  # (images, classes)
        if not len(batch.samples):
            return logits.sum() * 0, {"top1": torch.zeros((), device=logits.device)}
        labels = batch.targets if batch.targets.ndim == 1 else batch.targets.argmax(-1)
        right = (logits.detach().argmax(-1) == labels).sum()
        return self._loss(logits, batch.targets, self._label_smoothing), {"top1": right}


def softmax_loss(logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Mean cross-entropy in nats: (images, classes) against labels (images,), or shares (images, classes).

    Args:
        logits: float32.
        targets: labels are smoothed here; shares are taken as they are.
        label_smoothing: share of the target that is spread evenly over all classes.
    """
    if targets.ndim == 2:
        return F.cross_entropy(logits, targets)
    return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)


def binary_loss(logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy in nats of each class being there or not, summed over the classes, its mean over the images.

    Args:
        logits: (images, classes) float32.
        targets: labels (images,), smoothed here as in `softmax_loss`; or shares (images, classes), as they are.
        label_smoothing: share of the target that is spread evenly over all classes.

    Source: big_vision's `sigmoid_xent`. timm's binary loss is the mean over the classes, too: smaller by their number.
    """
    if targets.ndim == 1:
        classes = logits.shape[-1]
        targets = F.one_hot(targets, classes) * (1 - label_smoothing) + label_smoothing / classes
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits), reduction="none").sum(-1).mean()
