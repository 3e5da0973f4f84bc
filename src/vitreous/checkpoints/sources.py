"""Where a model comes from, in one word: opens every kind of source, and saves our own models.

    FOLDER                      a model that vitreous or timm saved; of a training run its final model
    FILE.safetensors            the same, beside its config.json
    timm:NAME                   a timm model with its pretrained weights
    hf:ORG/NAME, hf:FOLDER      a Hugging Face transformers model
    torchvision:NAME            a torchvision classifier
    package.module:function     a function of your own that returns a torch.nn.Module

`@random` at the end of the timm, hf and torchvision kinds (`timm:vit_tiny_patch16_224@random`) takes random
weights of a fixed seed: nothing is fetched. No source is ever unpickled by vitreous.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from vitreous.checkpoints.folder import read_folder, write_folder
from vitreous.checkpoints.from_function import open_function
from vitreous.checkpoints.from_timm import open_timm
from vitreous.checkpoints.from_torchvision import open_torchvision
from vitreous.checkpoints.from_transformers import open_transformers
from vitreous.checkpoints.loaded import LoadedModel
from vitreous.checkpoints.words import FUNCTION, model_folder
from vitreous.data.preprocess import Preprocess
from vitreous.errors import CheckpointError, ConfigError, InputError
from vitreous.model.vit import VisionTransformer

_LIBRARIES: dict[str, Callable[[str, bool], LoadedModel]] = {
    "timm": open_timm,
    "hf": open_transformers,
    "torchvision": open_torchvision,
}
_RANDOM = "@random"
_KINDS = (
    "a model is a folder, a .safetensors file beside its config.json, timm:NAME, hf:ORG/NAME, hf:FOLDER, "
    "torchvision:NAME or package.module:function"
)


def load(source: str | Path) -> nn.Module:
    """The model that a source names, in eval mode; its attribute `provenance` says what was decided, and why.

    Our own `VisionTransformer` for folders that vitreous or timm wrote, another library's module otherwise.

    Args:
        source: see the head of this file.

    Raises:
        ConfigError: if the source is of no known kind, or its library does not know the name.
        InputError: if a file is missing, empty or not a regular one.
        CheckpointError: if weights are damaged, do not fit, or cannot be fetched.
    """
    return open_model(source).model


def open_model(source: str | Path) -> LoadedModel:
    """As `load`, with preprocessing, class names, hash and guesses beside the model."""
    text = str(source)
    library, colon, name = text.partition(":")
    if colon and library in _LIBRARIES:
        return _open_from_library(library, name)
    path = Path(source)
    if path.is_dir():
        return read_folder(model_folder(path))
    if path.suffix == ".safetensors":
        return read_folder(path.parent, weights=path)
    if path.exists():
        raise CheckpointError(f"{path} is not a .safetensors file; {_KINDS}")
    if (match := FUNCTION.fullmatch(text)) and not _is_misspelt_library(match[1]):
        return open_function(match[1], match[2])
    raise _unknown(text)


def save(
    model: nn.Module,
    folder: str | Path,
    *,
    preprocess: Preprocess | None = None,
    class_names: Sequence[str] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Writes a `VisionTransformer` so that vitreous, timm and transformers open it; whole or not at all.

    Args:
        model: one of ours.
        folder: made, or replaced as a whole if it holds nothing but an earlier model.
        preprocess: what an image goes through before this model. None takes what the model was loaded with;
            for a model that was not loaded, ImageNet's statistics at its own size; the saved notes say so.
        class_names: one for each class; None takes those that the model was loaded with.
        provenance: plain data on where the weights come from; None takes the model's own.

    Raises:
        ConfigError: if the model is not ours, or names and classes differ in number.
        OutputError: if the folder cannot be written; what was there before is untouched.
    """
    if not isinstance(model, VisionTransformer):
        raise ConfigError(
            f"save writes vitreous' VisionTransformer, this is a {type(model).__name__}; save it with its own library"
        )
    known = model.provenance
    elsewhere = ("preprocess", "class_names")  # they have places of their own in the file
    saved = {key: value for key, value in (known if provenance is None else provenance).items() if key not in elsewhere}
    if preprocess is None and "preprocess" in known:
        preprocess = Preprocess.from_dict(known["preprocess"])
    elif preprocess is None:
        preprocess = Preprocess(image_size=model.config.image_size)
        note = "preprocess: ImageNet's statistics were guessed, because the model was saved without any"
        saved["notes"] = [*saved.get("notes", []), note]
    names = known.get("class_names", ()) if class_names is None else class_names
    write_folder(model, Path(folder), preprocess, names, saved)


def describe(source: str | Path) -> dict[str, Any]:
    """What a source holds and how it was read, as plain data; raises as `load` does."""
    opened = open_model(source)
    model = opened.model
    config = model.config if isinstance(model, VisionTransformer) else None
    provenance: dict[str, Any] = model.__dict__["provenance"]
    return {
        "name": opened.name,
        "source": str(source),
        "format": opened.kind,
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "architecture": config.to_dict() if config else None,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "classes": len(opened.class_names) or (config.classes if config else None),
        "class_names": list(opened.class_names),
        "preprocess": opened.preprocess.to_dict(),
        "file_hash": opened.file_hash,
        "decisions": provenance["decisions"],
        "notes": list(opened.notes),
        "saved": provenance["saved"],
    }


def _open_from_library(library: str, name: str) -> LoadedModel:
    random = name.endswith(_RANDOM)
    name = name.removesuffix(_RANDOM)
    if not name:
        raise ConfigError(f"{library}: is not followed by a name; {_KINDS}")
    return _LIBRARIES[library](name, random)


def _is_misspelt_library(module: str) -> bool:
    """Whether a word before the colon is nearly a library's name, and no module is called so."""
    close = difflib.get_close_matches(module, _LIBRARIES, n=1, cutoff=0.75)
    return bool(close) and not Path(f"{module}.py").exists() and find_spec(module) is None


def _unknown(text: str) -> ConfigError | InputError:
    library, colon, _ = text.partition(":")
    if not colon and ("/" in text or "." in text):
        return InputError(f"{text} does not exist; {_KINDS}")
    close = difflib.get_close_matches(library, _LIBRARIES, n=1) if colon else []
    hint = f"did you mean {close[0]}:? " if close else ""
    return ConfigError(f"{text!r} is no model that vitreous knows; {hint}{_KINDS}")
