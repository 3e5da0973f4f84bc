"""What a model takes pictures for."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from vitreous.checkpoints.loaded import LoadedModel
from vitreous.data.gather import Pictures
from vitreous.data.transforms import read_batch
from vitreous.errors import CheckpointError, ConfigError, NumericError
from vitreous.progress import progress_bar
from vitreous.training.evaluate import class_logits


@dataclass(frozen=True)
class Prediction:
    """One picture's most likely classes.

    Attributes:
        image: its name; of a file the path.
        classes: (name, probability), most likely first.
    """

    image: str
    classes: tuple[tuple[str, float], ...]


def predict(
    loaded: LoadedModel,
    pictures: Pictures,
    *,
    top: int = 5,
    batch_size: int = 16,
    unread: dict[str, str] | None = None,
    progress: bool = False,
) -> tuple[Prediction, ...]:
    """The `top` most likely classes of every picture, in their order.

    Classes without a name are called by their index.

    Args:
        loaded: the model.
        pictures: to look at.
        top: classes of each.
        batch_size: pictures in a forward pass.
        unread: gets the pictures that cannot be read, by name, and why; None lets the first of them end it.
        progress: whether to draw a bar.

    Raises:
        ConfigError: if `top` or `batch_size` is below 1.
        InputError: if an image cannot be read.
        CheckpointError: if the model gives no logits.
        NumericError: if a logit is NaN or infinite.
    """
    if min(top, batch_size) < 1:
        raise ConfigError(f"top is {top} and batch_size is {batch_size}; both must be at least 1")
    predictions: list[Prediction] = []
    with progress_bar("predicting", len(pictures), shown=progress) as advance:
        for start in range(0, len(pictures), batch_size):
            batch = range(start, min(start + batch_size, len(pictures)))
            read, inputs = read_batch(pictures.read, pictures.names, batch, loaded.preprocess, unread)
            if read:
                predictions.extend(_predict_batch(loaded, [pictures.names[index] for index in read], inputs, top))
            advance(len(batch), "")
    return tuple(predictions)


def _predict_batch(loaded: LoadedModel, images: list[str], inputs: Tensor, top: int) -> list[Prediction]:
    logits = class_logits(loaded.model, inputs)
    for image, row in zip(images, logits, strict=True):
        if not row.isfinite().all():
            raise NumericError(f"{image}: the model's logits are not finite; its weights are broken")
    best = logits.softmax(-1).topk(min(top, logits.shape[-1]))
    names = loaded.class_names or tuple(str(n) for n in range(logits.shape[-1]))
    if len(names) != logits.shape[-1]:
        raise CheckpointError(
            f"{loaded.name} has {logits.shape[-1]} logits and {len(names)} class names; give one each"
        )
    return [
        Prediction(image, tuple((names[n], share) for n, share in zip(classes, shares, strict=True)))
        for image, classes, shares in zip(images, best.indices.tolist(), best.values.tolist(), strict=True)
    ]
