"""Which words of a command line name models, and which the images to look at.

    timm:NAME, hf:NAME, torchvision:NAME    a model of a library
    package.module:function                 a function of your own, unless there is a file of that name
    FILE.safetensors                        a weights file
    FOLDER                                  with a config.json or a model.safetensors in it
    RUN                                     what `vitreous train` left: its final model
    RUN/checkpoints                         every model that the run kept, the first epoch first

Everything else is an image, a folder of images or a data set. A folder that is both, because it holds images beside a
model, is a model. Nothing is opened to find out, and torch is not loaded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from vitreous.errors import ConfigError

LIBRARIES = ("timm", "hf", "torchvision")
FUNCTION = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_][\w.]*)")
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
MODEL = "model"
CHECKPOINTS = "checkpoints"
EPOCH = "epoch-{:04d}"
"""Name of a kept model's folder, given the epochs it has seen."""

_EPOCH = re.compile(r"epoch-(\d+)")


def split_models(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Models and images of `MODEL ... IMAGE ...`, in the order given, a run's checkpoints one by one.

    The first word is always a model. So is each word after it that looks like one, up to the first that does not:
    from there on all are images.

    Args:
        words: of the command line, models first.

    Returns:
        At least one model and at least one image.

    Raises:
        ConfigError: if no image is left, or a model stands behind an image.
    """
    first_image = next((n for n, word in enumerate(words) if n and not is_model(word)), len(words))
    models, images = list(words[:first_image]), list(words[first_image:])
    if not images:
        raise ConfigError(
            f"no image was named after {', '.join(models) or 'the model'}; give files, folders or a data set to look at"
        )
    late = next(filter(is_model, images), None)
    if late is not None:
        raise ConfigError(f"{late} is a model, but stands behind the image {images[0]}; name all models first")
    expanded = [[str(path) for path in checkpoints_of(Path(model))] or [model] for model in models]
    return [model for group in expanded for model in group], images


def is_model(word: str) -> bool:
    """Whether a word looks like a model; see the head of this file."""
    path = Path(word)
    if word.partition(":")[0] in LIBRARIES and ":" in word:
        return True
    if path.is_dir():
        place = model_folder(path)
        return (place / CONFIG).exists() or (place / WEIGHTS).exists() or bool(checkpoints_of(path))
    return path.suffix == ".safetensors" or (not path.exists() and FUNCTION.fullmatch(word) is not None)


def model_folder(folder: Path) -> Path:
    """The folder that holds the model: of a training run its final one, any other folder itself."""
    is_run = not (folder / CONFIG).exists() and (folder / MODEL / CONFIG).is_file()
    return folder / MODEL if is_run else folder


def checkpoints_of(folder: Path) -> list[Path]:
    """The models that a run kept in its folder `checkpoints`, by epoch; none for any other folder."""
    found = [(epoch, path) for path in folder.glob("epoch-*") if (epoch := epoch_of(path.name)) is not None]
    return [path for _, path in sorted(found) if (path / CONFIG).is_file()]


def epoch_of(name: str) -> int | None:
    """The epochs that a kept model has seen, by its name; None for any other name."""
    match = _EPOCH.fullmatch(name)
    return int(match[1]) if match else None
