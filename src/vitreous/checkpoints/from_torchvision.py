"""Models that torchvision makes: `torchvision:vit_b_16`."""

from __future__ import annotations

import difflib
from typing import Any

from torch import hub, nn

from vitreous.checkpoints.loaded import Decision, LoadedModel, loaded
from vitreous.checkpoints.optional import RANDOM_SEED, first_line, fixed_draws, import_optional
from vitreous.checkpoints.weights import hash_weights
from vitreous.data.preprocess import Preprocess, fraction_for
from vitreous.errors import CheckpointError, ConfigError


def open_torchvision(name: str, random: bool) -> LoadedModel:
    """A torchvision classifier with its default weights, or with random ones of a fixed seed.

    Args:
        name: as for `torchvision.models.get_model`.
        random: whether to leave the pretrained weights out.

    Raises:
        ConfigError: if torchvision is missing, or knows no such name.
        CheckpointError: if the weights cannot be fetched.
    """
    models = import_optional("torchvision.models")
    names = models.list_models(module=models)
    if name not in names:
        close = difflib.get_close_matches(name, names, n=3) or ["vit_b_16", "vit_l_32"]
        raise ConfigError(f"torchvision has no classifier {name!r}; did you mean {', '.join(close)}?")
    weights = models.get_model_weights(name).DEFAULT
    with fixed_draws():
        model = models.get_model(name) if random else _fetch(models, name, weights)
    preprocess = _preprocess(weights)
    decisions = (
        Decision("weights", f"seed {RANDOM_SEED}", "random, as @random asks")
        if random
        else Decision("weights", weights.name, "torchvision's default for this model"),
        Decision("preprocess", preprocess.to_dict(), f"the transforms of torchvision's {weights}"),
    )
    return loaded(
        f"torchvision:{name}",
        "torchvision",
        model,
        preprocess,
        name=name,
        file_hash=hash_weights(model),
        class_names=() if random else tuple(weights.meta["categories"]),
        decisions=decisions,
    )


def _fetch(models: Any, name: str, weights: Any) -> nn.Module:
    try:
        return models.get_model(name, weights=weights)
    except OSError as cause:
        raise CheckpointError(
            f"torchvision's weights of {name} cannot be fetched: {first_line(cause)}\n"
            f"put {weights.url} into {hub.get_dir()}/checkpoints;\n"
            f"torchvision:{name}@random takes random weights"
        ) from cause


def _preprocess(weights: Any) -> Preprocess:
    """Bit for bit torchvision's `ImageClassification` of pictures: Pillow resizes, and the filter has its name."""
    transforms = weights.transforms()
    crop, resized = transforms.crop_size[0], transforms.resize_size[0]
    return Preprocess(
        image_size=(crop, crop),
        resize="crop",
        crop_fraction=fraction_for(crop, resized),
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )
