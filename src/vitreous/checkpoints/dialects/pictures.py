"""What is said of the way an image takes to a model whose file does not describe it."""

from __future__ import annotations

from vitreous.checkpoints.loaded import Decision
from vitreous.data.preprocess import Preprocess


def decided(preprocess: Preprocess, reason: str, *, guessed: bool = False) -> tuple[Decision, ...]:
    """Mean and standard deviation, resize and interpolation, each a decision for the same reason."""
    height, width = preprocess.image_size
    resized = {
        "squash": f"squashed to {height} x {width}",
        "crop": f"centre {height} x {width} of {preprocess.enlarged_size[0]} x {preprocess.enlarged_size[1]}",
    }.get(preprocess.resize, preprocess.resize)
    statistics = [list(preprocess.mean), list(preprocess.std)]
    return (
        Decision("mean and std", statistics, reason, guessed=guessed),
        Decision("resize", resized, reason, guessed=guessed),
        Decision("interpolation", preprocess.interpolation, reason, guessed=guessed),
    )
