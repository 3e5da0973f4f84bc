"""Models that a user's own function makes: `package.module:function`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from vitreous.checkpoints.loaded import Decision, LoadedModel, loaded
from vitreous.checkpoints.optional import first_line, fixed_draws, let_torchvision_import
from vitreous.checkpoints.weights import hash_weights
from vitreous.data.preprocess import Preprocess
from vitreous.errors import ConfigError, VitreousError
from vitreous.model.vit import VisionTransformer


def open_function(module: str, name: str) -> LoadedModel:
    """The module that a user's function returns; the current folder can be imported from.

    An attribute `preprocess` (a `Preprocess`) and an attribute `class_names`, of the model or else of the
    function, are used. Random weights are drawn from a fixed seed.

    Raises:
        ConfigError: if there is no such function, or it does not return a `nn.Module`.
    """
    let_torchvision_import()
    with _current_folder_importable():
        function = _find(module, name)
        try:
            with fixed_draws():
                model = function()
        except VitreousError:
            raise
        except Exception as cause:  # anything: it is the user's own code
            raise ConfigError(f"{module}:{name} failed: {first_line(cause)}; --debug shows where") from cause
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"{module}:{name} returned a {type(model).__name__}; called without arguments, "
            "it must return a torch.nn.Module"
        )
    preprocess, decision = _preprocess(model, function)
    names = getattr(model, "class_names", None) or getattr(function, "class_names", None) or ()
    return loaded(
        f"{module}:{name}",
        "function",
        model,
        preprocess,
        name=f"{module}:{name}",
        file_hash=hash_weights(model),
        class_names=tuple(str(name) for name in names),
        decisions=(decision,),
    )


def _find(module: str, name: str) -> Callable[[], Any]:
    top = module.split(".")[0]
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as cause:
        if cause.name is None or cause.name.split(".")[0] != top:
            raise
        raise ConfigError(
            f"no module {module!r} in {Path.cwd()} or among the installed packages; "
            "a source package.module:function is imported from there"
        ) from cause
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{module} has no {name!r}; a source is package.module:function")
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"{module}:{name} is a {type(found).__name__}; name a function that returns a model")
    return found


def _preprocess(model: nn.Module, function: Callable[[], Any]) -> tuple[Preprocess, Decision]:
    for owner, where in ((model, "the model"), (function, "the function")):
        given = getattr(owner, "preprocess", None)
        if isinstance(given, Preprocess):
            return given, Decision("preprocess", given.to_dict(), f"the attribute of {where}")
    if isinstance(model, VisionTransformer):
        preprocess = Preprocess(image_size=model.config.image_size)
        reason = "image size from the model's config, ImageNet's statistics"
    else:
        preprocess = Preprocess()
        reason = "224 pixels and ImageNet's statistics"
    reason += ", because neither the model nor the function has an attribute `preprocess`"
    return preprocess, Decision("preprocess", preprocess.to_dict(), reason, guessed=True)


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
