"""Preprocessing in timm's words, translated into ours."""

from __future__ import annotations

from typing import Any

from vitreous.checkpoints.loaded import Decision
from vitreous.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from vitreous.errors import CheckpointError


def preprocess_from_timm(described: dict[str, Any]) -> tuple[Preprocess, tuple[Decision, ...]]:
    """Our preprocessing for timm's `pretrained_cfg` or data config; each value that it leaves out is a guess.

    Raises:
        CheckpointError: if a value cannot be, such as a crop above 1.
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
        Decision(name, default, "timm's default, because config.json does not say", guessed=True)
        for name, default in defaults.items()
        if name != "crop_mode" and described.get(name) is None
    ]
    values = {name: default if described.get(name) is None else described[name] for name, default in defaults.items()}
    if values["interpolation"] not in ("bilinear", "bicubic"):
        reason = f"because timm's {values['interpolation']!r} has no counterpart here"
        decisions.append(Decision("interpolation", "bicubic", reason, guessed=True))
        values["interpolation"] = "bicubic"
    squash = values["crop_mode"] == "squash"
    if values["crop_mode"] not in ("center", "squash") or (squash and values["crop_pct"] != 1):
        resize = "squash" if squash else "crop"
        reason = f"nearest to timm's crop_mode {values['crop_mode']!r} with crop_pct {values['crop_pct']}"
        decisions.append(Decision("resize", resize, reason, guessed=True))
    try:
        preprocess = Preprocess.from_dict(
            {
                "image_size": list(values["input_size"][-2:]),
                "resize": "squash" if squash else "crop",
                "crop_fraction": 1.0 if squash else float(values["crop_pct"]),
                "interpolation": values["interpolation"],
                "mean": [float(number) for number in values["mean"]],
                "std": [float(number) for number in values["std"]],
            }
        )
    except (TypeError, ValueError) as cause:
        raise CheckpointError(f"the preprocessing in config.json cannot be used: {cause}") from cause
    return preprocess, tuple(decisions)
