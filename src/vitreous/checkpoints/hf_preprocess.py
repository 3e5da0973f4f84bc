"""Preprocessing in the words of Hugging Face's preprocessor_config.json, translated into ours."""

from __future__ import annotations

from typing import Any

from vitreous.checkpoints.loaded import Decision
from vitreous.data.preprocess import Preprocess
from vitreous.errors import CheckpointError, ConfigError

_FILTERS = {2: "bilinear", 3: "bicubic"}  # numbers are Pillow's


def preprocess_from_hf(described: dict[str, Any] | None, image_size: Any) -> tuple[Preprocess, tuple[Decision, ...]]:
    """Our preprocessing for an image processor's settings; what they leave out is a guess.

    Args:
        described: the content of preprocessor_config.json, None if there is none.
        image_size: of the model's config; a number, a pair, or None.

    Raises:
        CheckpointError: if a value cannot be, such as a crop that is larger than the image.
    """
    try:
        side = _pair(image_size) if image_size else [224, 224]
        if described is None:
            guess = Preprocess(image_size=(side[0], side[1]))
            reason = "ImageNet's statistics, because there is no preprocessor_config.json"
            return guess, (Decision("preprocess", guess.to_dict(), reason, guessed=True),)
        return _translate(described, side)
    except (TypeError, ValueError, KeyError, IndexError, ZeroDivisionError) as cause:
        raise CheckpointError(f"preprocessor_config.json cannot be used: {cause!r}") from cause


def _translate(described: dict[str, Any], side: list[int]) -> tuple[Preprocess, tuple[Decision, ...]]:
    geometry, guesses = _geometry(described, side)
    default = Preprocess()
    mean = described.get("image_mean") or default.mean
    std = described.get("image_std") or default.std
    if described.get("do_normalize", True) is False:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    elif not described.get("image_mean") or not described.get("image_std"):
        reason = "ImageNet's, because preprocessor_config.json does not say"
        guesses += (Decision("mean and std", [list(mean), list(std)], reason, guessed=True),)
    if "resample" in described and described["resample"] in _FILTERS:
        interpolation = _FILTERS[described["resample"]]
    else:
        interpolation = "bicubic"
        reason = f"because resample is {described.get('resample')!r}"
        guesses += (Decision("interpolation", interpolation, reason, guessed=True),)
    values = {"interpolation": interpolation, "mean": list(mean), "std": list(std)}
    return Preprocess.from_dict(geometry | values), guesses


def _geometry(described: dict[str, Any], side: list[int]) -> tuple[dict[str, Any], tuple[Decision, ...]]:
    size = described.get("size")
    crop = _pair(described["crop_size"]) if described.get("do_center_crop") and described.get("crop_size") else None
    if isinstance(size, dict) and "shortest_edge" in size and crop:
        fraction = crop[0] / size["shortest_edge"]
        if fraction <= 1:
            return {"image_size": crop, "resize": "crop", "crop_fraction": fraction}, ()
        raise ConfigError(f"a crop of {crop[0]} is larger than the resized {size['shortest_edge']}")
    if size and not crop and not (isinstance(size, dict) and "shortest_edge" in size):
        return {"image_size": _pair(size), "resize": "squash", "crop_fraction": 1.0}, ()
    if isinstance(size, int) and crop:
        return {"image_size": crop, "resize": "crop", "crop_fraction": min(1.0, crop[0] / size)}, ()
    guess = {"image_size": crop or side, "resize": "crop", "crop_fraction": 1.0}
    reason = f"nearest to size {size!r} with crop {crop!r}"
    return guess, (Decision("resize", guess, reason, guessed=True),)


def _pair(size: Any) -> list[int]:
    """Height and width from a number, a pair, or an object with both."""
    if isinstance(size, dict):
        edge = size.get("shortest_edge")
        return [int(size["height"]), int(size["width"])] if edge is None else [int(edge), int(edge)]
    if isinstance(size, int):
        return [size, size]
    return [int(size[0]), int(size[1])]
