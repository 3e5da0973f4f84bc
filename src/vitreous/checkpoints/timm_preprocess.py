"""Preprocessing in timm's words, translated into ours and back."""

from __future__ import annotations

from typing import Any, get_args

from vitreous.checkpoints.loaded import Decision
from vitreous.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, Interpolation, Preprocess
from vitreous.errors import CheckpointError

_SAID_AS = {"input_size": "preprocess.image_size", "crop_pct": "crop_fraction"}  # as vitreous calls timm's settings
_RESIZES = {"center": "crop", "squash": "squash-crop", "border": "border"}  # squash keeps the whole at crop_pct 1


def preprocess_from_timm(described: dict[str, Any]) -> tuple[Preprocess, tuple[Decision, ...]]:
    """Our preprocessing for timm's `pretrained_cfg` or data config; each value that it leaves out is a guess.

    Raises:
        CheckpointError: if a value cannot be, such as a crop above 1.

    Source: timm 1.0, timm/data/transforms_factory.py, `transforms_imagenet_eval`, bit for bit.
    """
    defaults: dict[str, Any] = {
        "input_size": (3, 224, 224),
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "crop_mode": "center",
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
    }
    decisions = [
        Decision(_SAID_AS.get(name, name), default, "timm's default, because config.json does not say", guessed=True)
        for name, default in defaults.items()
        if name != "crop_mode" and described.get(name) is None
    ]
    values = {name: default if described.get(name) is None else described[name] for name, default in defaults.items()}
    if values["interpolation"] not in get_args(Interpolation):
        reason = f"because timm's {str(values['interpolation'])[:80]!r} has no counterpart here"
        decisions.append(Decision("interpolation", "bicubic", reason, guessed=True))
        values["interpolation"] = "bicubic"
    if str(values["crop_mode"]) not in _RESIZES:
        reason = f"because timm has no crop_mode {str(values['crop_mode'])[:80]!r}"
        decisions.append(Decision("resize", "crop", reason, guessed=True))
        values["crop_mode"] = "center"
    whole = values["crop_mode"] == "squash" and values["crop_pct"] == 1
    try:
        preprocess = Preprocess.from_dict(
            {
                "image_size": list(values["input_size"][-2:]),
                "resize": "squash" if whole else _RESIZES[values["crop_mode"]],
                "crop_fraction": float(values["crop_pct"]),
                "interpolation": values["interpolation"],
                "mean": [float(number) for number in values["mean"]],
                "std": [float(number) for number in values["std"]],
            }
        )
    except (TypeError, ValueError, LookupError, ArithmeticError) as cause:
        raise CheckpointError(f"the preprocessing in config.json cannot be used: {str(cause)[:300]}") from cause
    return preprocess, tuple(decisions)


def preprocess_to_timm(preprocess: Preprocess) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What of timm's `pretrained_cfg` says how pictures are prepared, and what timm will do otherwise.

    Returns:
        `input_size`, `interpolation`, `crop_pct`, `crop_mode`, `mean`, `std`, and one sentence for each difference;
        none where timm's tensors are the same bit for bit.
    """
    modes = {"crop": "center", "cut": "center", "border": "border"}
    described = {
        "input_size": [3, *preprocess.image_size],
        "interpolation": preprocess.interpolation,
        "crop_pct": preprocess.crop_fraction,
        "crop_mode": modes.get(preprocess.resize, "squash"),
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
    }
    differences = []
    if preprocess.resize in ("cut", "none"):
        differences.append("timm resizes pictures of another size")
    elif preprocess.resampler != "pillow":
        differences.append(f"timm resizes by Pillow, antialiased and in bytes, not by {preprocess.resampler}")
    if preprocess.resize in ("crop", "squash-crop", "cut") and preprocess.rounding != "torchvision":
        differences.append("of an odd number of spare pixels timm may cut one more on the other side")
        if preprocess.resize == "crop" and preprocess.image_size[0] != preprocess.image_size[1]:
            differences.append("timm resizes to cover the crop's proportions, not by the shorter edge alone")
    return described, tuple(differences)
