"""Which words of a command line name models, and which the images to look at.

    NAME                                    a model that comes with vitreous, unless there is a file of that name
    timm:NAME, hf:NAME, torchvision:NAME    a model of a library
    package.module:function                 a function of your own, unless there is a file of that name
    FILE.safetensors, .npz, .pth, ...       a weights file
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

from vitreous.errors import ConfigError, InputError

LIBRARIES = ("timm", "hf", "torchvision")
FUNCTION = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_][\w.]*)")
CONFIG = "config.json"
PROCESSOR = "preprocessor_config.json"
WEIGHTS = "model.safetensors"
INDEX = ".safetensors.index.json"
"""End of the name of a file that lists the parts of weights in several files."""

WHOLE_INDEX = f"model{INDEX}"

SUFFIXES = (".safetensors", ".npz", ".pth", ".pt", ".bin", ".ckpt", INDEX)
"""Ends of weights files' names, the safest containers first."""

RUN = "config.yaml"
"""Settings of a training run, in its folder."""

MODEL = "model"
CHECKPOINTS = "checkpoints"
EPOCH = "epoch-{:04d}"
"""Name of a kept model's folder, given the epochs it has seen."""

BUNDLED = Path(__file__).parent.parent / "bundled"
"""Folders of the models that come with vitreous, by their names."""

_EPOCH = re.compile(r"epoch-(\d+)")
_NO_WEIGHTS = re.compile(r"(optimizer|scheduler|scaler|training_args|rng_state|tokenizer).*")  # beside a model
_SHOWN = 5


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
    if bundled(word) is not None:
        return True
    if path.is_dir():
        place = model_folder(path)
        named = (CONFIG, WEIGHTS, WHOLE_INDEX)
        return any((place / name).exists() for name in named) or bool(checkpoints_of(path))
    return word.endswith(SUFFIXES) or (not path.exists() and FUNCTION.fullmatch(word) is not None)


def bundled_names() -> list[str]:
    """The models that come with vitreous."""
    return sorted(place.name for place in BUNDLED.glob("*") if (place / CONFIG).is_file())


def bundled(word: str) -> Path | None:
    """Where the model lies that comes with vitreous under this name; None where a file has it, or nothing."""
    return BUNDLED / word if word in bundled_names() and not Path(word).exists() else None


def model_folder(folder: Path) -> Path:
    """The folder that holds the model: of a training run its final one, any other folder itself."""
    is_run = not (folder / CONFIG).exists() and (folder / MODEL / CONFIG).is_file()
    return folder / MODEL if is_run else folder


def weights_in(folder: Path) -> Path:
    """The one weights file of a folder: model.safetensors, else the only one in the safest container that it has.

    Raises:
        InputError: if there is none, or there are several and none of these names.
    """
    if (folder / WEIGHTS).exists():
        return folder / WEIGHTS
    pickled = next(folder.glob("*.bin.index.json"), None)
    if pickled is not None:
        raise InputError(
            f"{folder} has its weights in several pickles, as {pickled.name} says; only safetensors files are put "
            "together: save it again with safe_serialization=True"
        )
    if (folder / RUN).is_file():
        raise InputError(f"{folder} is a training run that is not finished; give its command again, and it goes on")
    files = _weights_files(folder)
    whole = [file for file in files if file.name.endswith(INDEX)] or files  # of a list and its parts, the list
    for suffix in SUFFIXES:
        of_kind = [file for file in whole if file.name.endswith(suffix)]
        if len(of_kind) == 1:
            return of_kind[0]
        if of_kind:
            names = ", ".join(file.name for file in of_kind[:_SHOWN]) + (", ..." if len(of_kind) > _SHOWN else "")
            raise InputError(f"{folder} has {len(of_kind)} weights files: {names}; name the one that you mean")
    raise InputError(f"{folder / WEIGHTS} does not exist; a model's folder has its weights in {WEIGHTS}")


def checkpoints_of(folder: Path) -> list[Path]:
    """The models that a run kept in its folder `checkpoints`, by epoch; none for any other folder."""
    found = [(epoch, path) for path in folder.glob("epoch-*") if (epoch := epoch_of(path.name)) is not None]
    return [path for _, path in sorted(found) if (path / CONFIG).is_file()]


def epoch_of(name: str) -> int | None:
    """The epochs that a kept model has seen, by its name; None for any other name."""
    match = _EPOCH.fullmatch(name)
    return int(match[1]) if match else None


def _weights_files(folder: Path) -> list[Path]:
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.name.endswith(SUFFIXES) and not _NO_WEIGHTS.fullmatch(entry.name) and not entry.is_dir()
    )
