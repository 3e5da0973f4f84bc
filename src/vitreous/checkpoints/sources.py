"""Where a model comes from, in one word: opens every kind of source.

    NAME                        a model that comes with vitreous: cifar10-ti4, cifar10-resnet
    FILE                        weights in a .safetensors, .npz, .pth, .pt or .bin file of any known format
    FOLDER                      the same with a config.json beside them; of a training run its final model
    timm:NAME                   a timm model with its pretrained weights
    hf:ORG/NAME, hf:FOLDER      a Hugging Face transformers model
    torchvision:NAME            a torchvision classifier
    package.module:function     a function of your own that returns a torch.nn.Module

Files and folders become our own `VisionTransformer`, whichever library wrote them. The kinds with a colon give that
library's own module; where timm or transformers is not installed, NAME is fetched through huggingface_hub and read as a
folder. `@random` behind the name (`timm:vit_tiny_patch16_224@random`) takes random weights of a fixed seed: nothing is
fetched. No source is ever unpickled: see `containers`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from vitreous.checkpoints.asked import Asked
from vitreous.checkpoints.from_function import open_function
from vitreous.checkpoints.from_timm import open_timm
from vitreous.checkpoints.from_torchvision import open_torchvision
from vitreous.checkpoints.from_transformers import open_transformers
from vitreous.checkpoints.hub import fetch_files, timm_repository
from vitreous.checkpoints.loaded import LoadedModel
from vitreous.checkpoints.opening import open_path
from vitreous.checkpoints.words import FUNCTION, bundled, bundled_names, model_folder
from vitreous.data.images import shown
from vitreous.errors import ConfigError, InputError
from vitreous.model.vit import VisionTransformer

_LIBRARIES: dict[str, Callable[[str, bool], LoadedModel]] = {
    "timm": open_timm,
    "hf": open_transformers,
    "torchvision": open_torchvision,
}
_PACKAGES = {"timm": "timm", "hf": "transformers"}
_RANDOM = "@random"
_LONGEST = 300  # characters of a name that is shown
_KINDS = (
    "a model is a weights file, a folder with one, cifar10-ti4, timm:NAME, hf:ORG/NAME, hf:FOLDER, torchvision:NAME or "
    "package.module:function"
)


def load(source: str | Path, *, strict: bool = False, **asked: Any) -> nn.Module:
    """The model that a source names, in eval mode; its attribute `provenance` says what was decided, and why.

    Our own `VisionTransformer` for files and folders, another library's module for names with a colon.

    Args:
        source: see the head of this file.
        strict: whether to refuse weights that are not finite, which are named in a note otherwise.
        **asked: what a file does not settle, or settles wrongly: any field of `ViTConfig`, such as `heads=6`;
            `weights="student"` of a file with several; `**{"preprocess.mean": (0.5, 0.5, 0.5)}`.

    Raises:
        ConfigError: if the source is of no known kind, its library does not know the name, or a setting cannot be.
        InputError: if a file is missing, empty or not a regular one.
        CheckpointError: if weights are damaged or hostile, do not fit, or cannot be fetched.
    """
    return open_model(source, strict=strict, **asked).model


def open_model(source: str | Path, *, strict: bool = False, **asked: Any) -> LoadedModel:
    """As `load`, with preprocessing, class names, hash and guesses beside the model."""
    wanted = Asked.of(asked, strict=strict)
    text = str(source)
    library, colon, name = text.partition(":")
    if colon and library in _LIBRARIES:
        return _open_from_library(library, name, wanted)
    path = bundled(text) or Path(source)
    if path.is_dir():
        return open_path(model_folder(path), wanted)
    if path.exists() or path.is_symlink():
        return open_path(path, wanted)
    if (match := FUNCTION.fullmatch(text)) and not _is_misspelt_library(match[1]):
        _refuse_settings(wanted, text)
        return open_function(match[1], match[2])
    raise _unknown(text)


def is_made_elsewhere(source: str | Path) -> bool:
    """Whether a source names a module that another library, or the user's own code, makes."""
    text = str(source)
    library, colon, name = text.partition(":")
    if colon and library in _LIBRARIES:
        return not _is_read_by_us(library, name)
    return not Path(source).exists() and not Path(source).is_symlink() and FUNCTION.fullmatch(text) is not None


def describe(source: str | Path, *, strict: bool = False, **asked: Any) -> dict[str, Any]:
    """What a source holds and how it was read, as plain data; raises as `load` does."""
    opened = open_model(source, strict=strict, **asked)
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
        "keys": provenance["keys"],
        "decisions": provenance["decisions"],
        "notes": list(opened.notes),
        "saved": provenance["saved"],
    }


def _open_from_library(library: str, name: str, asked: Asked) -> LoadedModel:
    random = name.endswith(_RANDOM)
    name = name.removesuffix(_RANDOM)
    if not name:
        raise ConfigError(f"{library}: is not followed by a name; {_KINDS}")
    if not random and _is_read_by_us(library, name):
        if "quickgelu" in name:  # timm keeps them with those of the exact GELU: the name alone tells
            asked = replace(asked, architecture={"activation": "quick-gelu"} | dict(asked.architecture))
        repository = timm_repository(name) if library == "timm" else name
        return open_path(Path(name) if Path(name).is_dir() else fetch_files(repository), asked)
    _refuse_settings(asked, f"{library}:{name}" + _RANDOM * random)
    return _LIBRARIES[library](name, random)


def _is_read_by_us(library: str, name: str) -> bool:
    """Whether a library's model is fetched and read without the library, which is not installed."""
    missing = library in _PACKAGES and find_spec(_PACKAGES[library]) is None
    return missing and not name.endswith(_RANDOM) and find_spec("huggingface_hub") is not None


def _refuse_settings(asked: Asked, source: str) -> None:
    settings = [*asked.architecture, *asked.preprocess, *(["weights"] if asked.weights else [])]
    if settings:
        raise ConfigError(
            f"{settings[0]} was asked for, but {source} is made by its own library; settings are for files and folders"
        )


def _is_misspelt_library(module: str) -> bool:
    """Whether a word before the colon is nearly a library's name, and no module is called so."""
    close = difflib.get_close_matches(module, _LIBRARIES, n=1, cutoff=0.75)
    return bool(close) and not Path(f"{module}.py").exists() and find_spec(module) is None


def _unknown(text: str) -> ConfigError | InputError:
    library, colon, _ = text.partition(":")
    if not colon and ("/" in text or "." in text):
        return InputError(f"{shown(text)[:_LONGEST]} does not exist; {_KINDS}")
    known = [f"{name}:" for name in _LIBRARIES] if colon else bundled_names()
    close = difflib.get_close_matches(library + colon, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return ConfigError(f"{text[:_LONGEST]!r} is no model that vitreous knows; {hint}{_KINDS}")
