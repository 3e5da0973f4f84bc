"""What is settled alike for files of every family: the architecture, its classes, what an image goes through."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from vitreous.checkpoints.loaded import Decision
from vitreous.data.images import shown
from vitreous.data.preprocess import Preprocess
from vitreous.errors import CheckpointError, ConfigError
from vitreous.model.config import ViTConfig

STAND_IN = "the stand-in for masked patches, used in pre-training alone"
"""Why a mask token is left out."""

ITS_OWN_CONFIG = "use the config.json that was saved with these weights"
"""What to do where config.json and the tensors contradict each other."""


def config_of(values: Mapping[str, Any]) -> ViTConfig:
    """The architecture with these settings, fields of `ViTConfig`.

    Raises:
        CheckpointError: if no ViT has them.
    """
    try:
        return ViTConfig.from_dict(dict(values))
    except (ConfigError, TypeError) as cause:
        why = shown(str(cause))[:300]
        raise CheckpointError(f"the tensors and what is known of them make no ViT: {why}") from cause


def about_classes(config: ViTConfig, decisions: Collection[Decision] = ()) -> tuple[Decision, ...]:
    """How many classes there are, unless it is among the decisions."""
    if any(decision.setting == "classes" for decision in decisions):
        return ()
    reason = "rows of the head's weight" if config.classes else "there is no head; the model returns pooled features"
    return (Decision("classes", config.classes, reason),)


def about_images(preprocess: Preprocess, reason: str, *, guessed: bool = False) -> tuple[Decision, ...]:
    """Mean and standard deviation, resize and interpolation, each a decision for the same reason.

    Whose arithmetic resizes is said where it is not Pillow's.
    """
    height, width = preprocess.image_size
    resized = {
        "squash": f"squashed to {height} x {width}",
        "crop": f"centre {height} x {width} of {preprocess.enlarged_size[0]} x {preprocess.enlarged_size[1]}",
    }.get(preprocess.resize, preprocess.resize)
    said = {
        "mean and std": [list(preprocess.mean), list(preprocess.std)],
        "resize": resized,
        "interpolation": preprocess.interpolation,
    }
    if preprocess.resampler != "pillow":
        said["resampler"] = preprocess.resampler
    return tuple(Decision(setting, value, reason, guessed=guessed) for setting, value in said.items())
