"""Running a model that somebody else wrote."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vitreous.errors import MemoryLimitError, ShapeError, VitreousError
from vitreous.memory import is_shortage


def run_model(model: nn.Module, images: Tensor) -> Any:
    """What a model returns for a batch, on the model's own device and in its own precision, without gradients.

    Args:
        model: any module, run in the mode that it is in.
        images: (batch, channels, image_height, image_width) float.

    Raises:
        ShapeError: if the model fails on the batch, most often because it was made for another size.
        MemoryLimitError: if there is not enough memory for it.
    """
    weight = next((value for value in model.parameters() if value.is_floating_point()), torch.zeros(()))
    try:
        with torch.no_grad():
            return model(images.to(weight))
    except VitreousError:
        raise
    except (MemoryError, RuntimeError, ValueError, TypeError, AssertionError, IndexError) as cause:
        if is_shortage(cause):
            raise MemoryLimitError(
                f"{type(model).__name__} ran out of memory on a batch of {tuple(images.shape)}\n"
                "give it fewer images at a time, or smaller ones"
            ) from cause
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        raise ShapeError(
            f"{type(model).__name__} refused a batch of {tuple(images.shape)}: {reason}\n"
            "check its preprocessing: the image size above all"
        ) from cause
