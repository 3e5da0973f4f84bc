"""Models that Hugging Face transformers makes: `hf:google/vit-base-patch16-224`, or `hf:FOLDER`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from vitreous.checkpoints.hf_preprocess import preprocess_from_hf
from vitreous.checkpoints.loaded import Decision, LoadedModel, loaded
from vitreous.checkpoints.optional import RANDOM_SEED, first_line, fixed_draws, import_optional
from vitreous.checkpoints.weights import hash_weights
from vitreous.checkpoints.words import PROCESSOR
from vitreous.errors import CheckpointError


def open_transformers(name: str, random: bool) -> LoadedModel:
    """A transformers model: the classifier if it was saved as one, else the encoder.

    Of a model for images and text only the vision tower.

    Args:
        name: ORG/NAME on the hub, or a folder that `save_pretrained` wrote.
        random: whether to take only the architecture, with random weights of a fixed seed.

    Raises:
        ConfigError: if transformers is missing.
        CheckpointError: if the model cannot be fetched, is a pickle, or runs code of its own.
    """
    transformers = import_optional("transformers")
    with fixed_draws(), quiet(transformers):
        try:
            config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
            model, decisions = _make(transformers, name, config, random)
            described = _read_preprocessor(transformers, name)
        except (OSError, ValueError, RuntimeError, SafetensorError) as cause:
            raise CheckpointError(
                f"{name} cannot be opened by transformers {transformers.__version__}: {first_line(cause)}\n"
                "connect once, so that it is kept in the Hugging Face cache (HF_HOME), "
                "or give a folder with config.json and model.safetensors"
            ) from cause
    size, kind = getattr(model.config, "image_size", None), getattr(model.config, "model_type", None)
    preprocess, more = preprocess_from_hf(described, size, model_type=kind)
    return loaded(
        f"hf:{name}",
        "transformers",
        model,
        preprocess,
        name=Path(name).name,
        file_hash=hash_weights(model),
        class_names=_class_names(model, random),
        decisions=decisions + more,
    )


def _make(transformers: Any, name: str, config: Any, random: bool) -> tuple[Any, tuple[Decision, ...]]:
    """The model and what was decided; only safetensors are read, and no code from the hub is run."""
    architecture = (config.architectures or ["AutoModel"])[0]
    if "ForImageClassification" in architecture:
        maker = getattr(transformers, architecture, transformers.AutoModelForImageClassification)
    else:
        maker = transformers.AutoModel
        config = getattr(config, "vision_config", None) or config
    chosen = Decision("class", maker.__name__, f"the file names {architecture}")
    if random:
        model = maker.from_config(config) if hasattr(maker, "from_config") else maker(config)
        return model, (chosen, Decision("weights", f"seed {RANDOM_SEED}", "random, as @random asks"))
    model, report = maker.from_pretrained(
        name, config=config, use_safetensors=True, trust_remote_code=False, output_loading_info=True
    )
    return model, (chosen, *_differences(report))


def _differences(report: dict[str, Any]) -> tuple[Decision, ...]:
    """Weights that stay random because the file has none, which the user must know, and weights left out."""
    decisions = []
    if report["missing_keys"]:
        reason = "because the file does not have them"
        decisions.append(Decision("random weights", _listed(report["missing_keys"]), reason, guessed=True))
    if report["unexpected_keys"]:
        reason = "this class has no place for them"
        decisions.append(Decision("weights left out", _listed(report["unexpected_keys"]), reason))
    return tuple(decisions)


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:5]) + (f" and {len(ordered) - 5} more" if len(ordered) > 5 else "")


@contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """Inside, transformers reports errors only: what it would say about weights stands in the decisions."""
    logging = transformers.logging
    verbosity, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bar:
            logging.enable_progress_bar()


def _read_preprocessor(transformers: Any, name: str) -> dict[str, Any] | None:
    path = transformers.utils.cached_file(
        name,
        PROCESSOR,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if path is None:
        return None
    described = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(described, dict):
        raise ValueError(f"{PROCESSOR} is no object")
    return described


def _class_names(model: nn.Module, random: bool) -> tuple[str, ...]:
    names = getattr(model.config, "id2label", None)
    if random or not hasattr(model, "num_labels") or "ForImageClassification" not in type(model).__name__:
        return ()
    return tuple(str(names[index]) for index in sorted(names)) if isinstance(names, dict) else ()
