"""Models that timm makes: `timm:vit_base_patch16_224.augreg_in1k`."""

from __future__ import annotations

import difflib
from typing import Any

from safetensors import SafetensorError

from vitreous.checkpoints.loaded import Decision, LoadedModel, loaded
from vitreous.checkpoints.optional import RANDOM_SEED, first_line, fixed_draws, import_optional
from vitreous.checkpoints.timm_preprocess import preprocess_from_timm
from vitreous.checkpoints.weights import hash_weights
from vitreous.errors import CheckpointError, ConfigError


def open_timm(name: str, random: bool) -> LoadedModel:
    """A timm model with its pretrained weights, or with random ones of a fixed seed.

    Args:
        name: as for `timm.create_model`; `hf-hub:ORG/NAME` and `local-dir:FOLDER` too.
        random: whether to leave the pretrained weights out.

    Raises:
        ConfigError: if timm is missing, or knows no such name.
        CheckpointError: if the weights do not exist or cannot be fetched.
    """
    timm = import_optional("timm")
    import_optional("timm.data")
    if ":" not in name and not timm.is_model(name.split(".")[0]):
        close = difflib.get_close_matches(name.split(".")[0], timm.list_models("*vit*"), n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() lists all names"
        raise ConfigError(f"timm {timm.__version__} has no model {name!r}; {hint}")
    with fixed_draws():
        model = _create(timm, name, random)
    preprocess, decisions = preprocess_from_timm(timm.data.resolve_model_data_config(model))
    if random:
        decisions += (Decision("weights", f"seed {RANDOM_SEED}", "random, as @random asks"),)
    else:
        decisions += (Decision("weights", model.pretrained_cfg.get("tag") or "default", "timm's pretrained_cfg"),)
    return loaded(
        f"timm:{name}",
        "timm",
        model,
        preprocess,
        name=name,
        file_hash=hash_weights(model),
        class_names=() if random else _class_names(timm, model),
        decisions=decisions,
    )


def _create(timm: Any, name: str, random: bool) -> Any:
    try:
        return timm.create_model(name, pretrained=not random)
    except OSError as cause:
        raise CheckpointError(
            f"timm's weights of {name} cannot be fetched: {first_line(cause)}\n"
            "connect once, so that they stay in the Hugging Face cache (HF_HOME), or copy that cache here;\n"
            f"timm:{name}@random takes random weights"
        ) from cause
    except (RuntimeError, SafetensorError) as cause:
        raise CheckpointError(
            f"timm cannot make {name}: {first_line(cause)}\ntimm:{name}@random takes random weights"
        ) from cause


def _class_names(timm: Any, model: Any) -> tuple[str, ...]:
    """Names that came with the weights, or timm's own for the subsets of ImageNet."""
    names = model.pretrained_cfg.get("label_names")
    if names and len(names) == model.num_classes:
        return tuple(str(name) for name in names)
    subset = timm.data.infer_imagenet_subset(model)
    if subset is None:
        return ()
    info = timm.data.ImageNetInfo(subset)
    return tuple(str(info.index_to_description(index)) for index in range(info.num_classes()))
