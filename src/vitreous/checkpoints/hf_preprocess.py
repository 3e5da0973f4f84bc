"""Preprocessing in the words of Hugging Face's preprocessor_config.json, translated into ours and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vitreous.checkpoints.loaded import Decision
from vitreous.data.preprocess import (
    CLIP_MEAN,
    CLIP_STD,
    HALF_MEAN,
    HALF_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    INTERPOLATIONS,
    Preprocess,
    Resampler,
    fraction_for,
)
from vitreous.errors import CheckpointError, ConfigError

_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # numbers are Pillow's

_HALF = {"default_to_square": True, "image_mean": HALF_MEAN, "image_std": HALF_STD}
_CLIP = {"default_to_square": False, "image_mean": CLIP_MEAN, "image_std": CLIP_STD}
_IMAGENET = {"default_to_square": True, "image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}
_PROCESSORS: dict[str, dict[str, Any]] = {
    "ViT": _HALF | {"size": 224, "resample": 2},
    "DeiT": _HALF | {"size": 256, "resample": 3, "do_center_crop": True, "crop_size": 224},
    "Beit": _HALF | {"size": 224, "resample": 3, "crop_size": 224},
    "Siglip": _HALF | {"size": [224, 224], "resample": 3, "default_to_square": False},
    "CLIP": _CLIP | {"size": 224, "resample": 3, "do_center_crop": True, "crop_size": 224},
    "Bit": _CLIP | {"size": 224, "resample": 3, "do_center_crop": True, "crop_size": 224},
    "DINOv3ViT": _IMAGENET | {"size": 224, "resample": 2},
}
"""What each class of processor takes where a file is silent. Source: transformers 5.23."""

_OF_MODELS = {
    "vit": "ViT", "vit_mae": "ViT", "vit_msn": "ViT", "ijepa": "ViT", "deit": "DeiT", "beit": "Beit",
    "data2vec-vision": "Beit", "siglip": "Siglip", "siglip_vision_model": "Siglip", "clip": "CLIP",
    "clip_vision_model": "CLIP", "dinov2": "Bit", "dinov2_with_registers": "Bit", "hiera": "Bit",
    "dinov3_vit": "DINOv3ViT",
}  # fmt: skip


def preprocess_from_hf(
    described: dict[str, Any] | None, image_size: Any, *, model_type: str | None = None
) -> tuple[Preprocess, tuple[Decision, ...]]:
    """Our preprocessing for an image processor's settings.

    What they leave out is the default of the processor's class, and a guess where the class is not known. Nothing in
    the file says who resizes: a class whose name ends in Fast is torch's; any other is taken for Pillow's, as it was
    when most of these files were written, though transformers 5 uses torch for all unless told `backend="pil"`.

    Args:
        described: the content of preprocessor_config.json, None if there is none.
        image_size: of the model's config; a number, a pair, or None.
        model_type: of the model's config; tells the class where `described` does not.

    Raises:
        CheckpointError: if a value cannot be, such as a size below 1.

    Source: transformers 5.23, image_processing_backends.py; bit for bit its Pillow processors, to 1e-6 the others.
    """
    try:
        side = _pair(image_size) if image_size else [224, 224]
        if described is None:
            guess = Preprocess(image_size=(side[0], side[1]))
            reason = "ImageNet's statistics, because there is no preprocessor_config.json"
            return guess, (Decision("preprocess", guess.to_dict(), reason, guessed=True),)
        return _translate(described, side, _OF_MODELS.get(model_type or ""))
    except (TypeError, ValueError, KeyError, IndexError, ArithmeticError) as cause:
        raise CheckpointError(f"preprocessor_config.json cannot be used: {str(cause)[:200]!r}") from cause


def to_hf(preprocess: Preprocess) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The content of a preprocessor_config.json for transformers, and what transformers will do otherwise.

    Nothing can say in the file that Pillow resizes: `AutoImageProcessor.from_pretrained(..., backend="pil")` does.

    Returns:
        The settings, and one sentence for each difference; none where the tensors are equal to 1e-6.

    Raises:
        ConfigError: if transformers has nothing like it.
    """
    if preprocess.resize == "border":
        raise ConfigError("transformers has no processor that fills a border with the mean; use resize crop or squash")
    codes = {name: code for code, name in _FILTERS.items()}
    height, width = preprocess.image_size
    described: dict[str, Any] = {
        "image_processor_type": f"{_class_for(preprocess)}ImageProcessor",
        "do_resize": preprocess.resize not in ("cut", "none"),
        "size": {"height": preprocess.enlarged_size[0], "width": preprocess.enlarged_size[1]},
        "resample": codes[preprocess.interpolation],
        "do_center_crop": preprocess.resize in ("crop", "squash-crop", "cut"),
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
    }
    if preprocess.resize == "crop":
        described["size"] = {"shortest_edge": preprocess.enlarged_size[0]}
    return described, tuple(_differences(preprocess))


def _class_for(preprocess: Preprocess) -> str:
    """A class of processor that has this order of steps by itself, in older versions of transformers, too."""
    if preprocess.resampler == "torch-float":
        return "DINOv3ViT"
    return {"squash": "ViT", "squash-crop": "DeiT"}.get(preprocess.resize, "Bit")


def _differences(preprocess: Preprocess) -> list[str]:
    differences = []
    if preprocess.resampler == "pillow" and preprocess.resize not in ("cut", "none"):
        differences.append('transformers 5 resizes by torch, up to 2 of 255 away from Pillow; backend="pil" is exact')
    if preprocess.resampler.startswith("tensorflow") and preprocess.resize not in ("cut", "none"):
        differences.append("transformers antialiases and rounds to bytes, tensorflow does not antialias")
    if preprocess.resize in ("crop", "squash-crop") and preprocess.rounding != "transformers":
        differences.append("of an odd number of spare pixels transformers may cut one more on the other side")
        if preprocess.resize == "crop" and preprocess.image_size[0] != preprocess.image_size[1]:
            differences.append("transformers resizes by the shorter edge alone, whatever the crop's proportions")
    if preprocess.resize == "none":
        differences.append("transformers lets pictures of any size through")
    return differences


def _translate(
    described: dict[str, Any], side: list[int], class_of_model: str | None
) -> tuple[Preprocess, tuple[Decision, ...]]:
    named = str(described.get("image_processor_type") or described.get("feature_extractor_type") or "")
    name = named.replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast").removesuffix("Pil")
    known = (name or f"{class_of_model}ImageProcessor").removesuffix("ImageProcessor")
    defaults = _PROCESSORS.get(known, {})
    settings = defaults | described
    geometry, decisions = _geometry(settings, side)
    found = Preprocess.from_dict(geometry)
    if defaults:
        left_out = {key: value for key, value in defaults.items() if key not in {*described, "default_to_square"}}
        if left_out:
            reason = f"the defaults of {known}ImageProcessor, because preprocessor_config.json does not say"
            decisions = (Decision("preprocess", left_out, reason), *decisions)
    elif name:
        reason = "its own rules are not known here; what it shares with others was used"
        decisions += (Decision("image processor", name[:80], reason, guessed=True),)
    if settings.get("do_pad"):
        reason = "preprocessor_config.json has do_pad, for which vitreous has no word"
        decisions += (Decision("padding", "none", reason, guessed=True),)
    found, more = _with_colours(found, settings)
    decisions += more
    resampler = _resampler(named, known)
    found, more = _with_filter(found, settings, resampler)
    decisions += more
    if resampler == "pillow" and found.resize not in ("cut", "none"):
        reason = 'the file does not say; transformers 5 takes torch unless told backend="pil", up to 2 of 255 away'
        decisions += (Decision("resampler", resampler, reason),)
    return found, decisions


def _resampler(named: str, known: str) -> Resampler:
    if known == "DINOv3ViT":
        return "torch-float"  # its processor resizes after it has scaled to [0, 1]
    return "torch" if named.endswith("Fast") else "pillow"


def _with_colours(found: Preprocess, settings: dict[str, Any]) -> tuple[Preprocess, tuple[Decision, ...]]:
    """With mean and std, a scale other than 1 / 255 among them: (x f - m) / s is (x / 255 - m / 255f) / (s / 255f)."""
    guesses: tuple[Decision, ...] = ()
    mean, std = _colour(settings.get("image_mean")), _colour(settings.get("image_std"))
    if settings.get("do_normalize", True) in (False, None):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    elif mean is None or std is None:
        mean, std = mean or IMAGENET_MEAN, std or IMAGENET_STD
        reason = "ImageNet's, because preprocessor_config.json does not say"
        guesses = (Decision("mean and std", [list(mean), list(std)], reason, guessed=True),)
    factor = settings.get("rescale_factor")
    factor = 1 / 255 if factor is None else float(factor)
    scale = 255 * factor if settings.get("do_rescale", True) else 255.0
    if scale != 1:
        mean, std = _colour([m / scale for m in mean]), _colour([s / scale for s in std])
    return replace(found, mean=mean, std=std), guesses


def _with_filter(
    found: Preprocess, settings: dict[str, Any], resampler: Resampler
) -> tuple[Preprocess, tuple[Decision, ...]]:
    code = settings.get("resample")
    interpolation: Any = _FILTERS.get(code) if isinstance(code, int) else None
    guesses: tuple[Decision, ...] = ()
    if interpolation is None:
        interpolation = "bicubic"
        reason = f"because resample is {str(code)[:80]!r}"
        guesses += (Decision("interpolation", interpolation, reason, guessed=True),)
    if interpolation not in INTERPOLATIONS[resampler]:
        reason = f"because torch's {interpolation!r} has no counterpart here"
        guesses += (Decision("resampler", "pillow", reason, guessed=True),)
        resampler = "pillow"
    return replace(found, interpolation=interpolation, resampler=resampler), guesses


def _geometry(settings: dict[str, Any], side: list[int]) -> tuple[dict[str, Any], tuple[Decision, ...]]:
    crop = _pair(settings["crop_size"]) if settings.get("do_center_crop") and settings.get("crop_size") else None
    if not settings.get("do_resize", True):
        if crop:
            return {"image_size": crop, "resize": "cut", "crop_fraction": 1.0, "rounding": "transformers"}, ()
        return {"image_size": side, "resize": "none", "crop_fraction": 1.0}, ()
    size, guesses = _size(settings, crop)
    if set(size) == {"shortest_edge"} and crop:
        return _cropped("crop", crop, _pair(size)), guesses
    if {"height", "width"} & set(size):
        if crop and crop != _pair(size):
            return _cropped("squash-crop", crop, _pair(size)), guesses
        return {"image_size": _pair(size), "resize": "squash", "crop_fraction": 1.0}, guesses
    guess = {"image_size": crop or side, "resize": "crop", "crop_fraction": 1.0, "rounding": "transformers"}
    reason = f"nearest to size {str(size)[:80]} with crop {crop}: the model takes one size"
    return guess, (*guesses, Decision("resize", guess, reason, guessed=True))


def _size(settings: dict[str, Any], crop: list[int] | None) -> tuple[dict[str, Any], tuple[Decision, ...]]:
    """The size as an object, with `height` and `width` or with `shortest_edge`; empty where there is none."""
    size = settings.get("size")
    if not size or isinstance(size, dict):
        return {key: value for key, value in (size or {}).items() if value is not None}, ()
    if not isinstance(size, int) or settings.get("default_to_square", not crop):
        height, width = _pair(size)
        return {"height": height, "width": width}, ()
    if "default_to_square" in settings:
        return {"shortest_edge": size}, ()
    reason = "of the shorter edge, because preprocessor_config.json does not name the processor's class"
    return {"shortest_edge": size}, (Decision("resize", size, reason, guessed=True),)


def _cropped(resize: str, crop: list[int], resized: list[int]) -> dict[str, Any]:
    fraction = fraction_for(crop[0], resized[0])
    found = {"image_size": crop, "resize": resize, "crop_fraction": fraction, "rounding": "transformers"}
    if resize == "squash-crop" and list(Preprocess.from_dict(found).enlarged_size) != resized:
        raise ConfigError(f"a size of {resized} with a crop of {crop} has no counterpart here: the shares differ")
    return found


def _colour(values: Any) -> Any:
    """Three numbers from one for each channel, or from one for all."""
    if values is None or isinstance(values, list | tuple):
        return tuple(float(value) for value in values) if values else None
    return (float(values),) * 3


def _pair(size: Any) -> list[int]:
    """Height and width from a number, a pair, or an object with both."""
    if isinstance(size, dict):
        edge = size.get("shortest_edge")
        return [int(size["height"]), int(size["width"])] if edge is None else [int(edge), int(edge)]
    if isinstance(size, int):
        return [size, size]
    return [int(size[0]), int(size[1])]
