"""Writes our own models, in the formats that others read.

    timm            a folder that vitreous, timm and transformers open: nothing is lost
    transformers    a folder with a Hugging Face ViT
    google          one .npz file with the names of google-research/vision_transformer
    onnx            one .onnx file, for other runtimes

What a format has no word for is refused, never left out in silence. Preprocessing and provenance travel along.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitreous.checkpoints.folder import write_folder, write_transformers_folder
from vitreous.checkpoints.google_file import write_google_file
from vitreous.checkpoints.to_onnx import write_onnx
from vitreous.checkpoints.weights import misfit
from vitreous.data.preprocess import Preprocess
from vitreous.errors import ConfigError
from vitreous.model.vit import VisionTransformer

Write = Callable[[VisionTransformer, Path, Preprocess, Sequence[str], dict[str, Any]], tuple[str, ...]]


def _write_onnx(model: VisionTransformer, path: Path, *beside: Any) -> tuple[str, ...]:
    difference = write_onnx(model, path, *beside)
    if difference is None:
        return ("its form was checked; install onnxruntime to have it run beside the model",)
    return (f"run beside the model: outputs differ by {difference:.0e} at most",)


TARGETS: dict[str, Write] = {
    "timm": write_folder,
    "transformers": write_transformers_folder,
    "google": write_google_file,
    "onnx": _write_onnx,
}

_NEWEST = 3
_NOT_KEPT = (
    "preprocess",
    "class_names",
    "keys",
)  # two have places of their own, the third is of an earlier file


def save(
    model: nn.Module,
    path: str | Path,
    *,
    to: str = "timm",
    preprocess: Preprocess | None = None,
    class_names: Sequence[str] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:
    """Writes a `VisionTransformer`; whole or not at all.

    Args:
        model: one of ours.
        path: a folder, which is made, or replaced as a whole if it holds nothing but an earlier model; for `google` and
            `onnx` a file.
        to: see the head of this file.
        preprocess: what an image goes through before this model. None takes what the model was loaded with;
            for a model that was not loaded, ImageNet's statistics at its own size; the saved notes say so.
        class_names: one for each class; None takes those that the model was loaded with.
        provenance: plain data on where the weights come from; None takes the model's own.

    Returns:
        What the user should know of the written file, a sentence each: how an ONNX file was checked, what did not fit
        into a Google file.

    Raises:
        ConfigError: if the model is not ours or no longer what its config says, the format has no word for a part of
            it, or names and classes differ in number.
        OutputError: if it cannot be written; what was there before is untouched.
    """
    if not isinstance(model, VisionTransformer):
        raise ConfigError(
            f"save writes vitreous' VisionTransformer, this is a {type(model).__name__}; save it with its own library"
        )
    check_target(to)
    _check_whole(model)
    known = model.provenance
    record = _record(known if provenance is None else provenance)
    if preprocess is None and "preprocess" in known:
        preprocess = Preprocess.from_dict(known["preprocess"])
    elif preprocess is None:
        preprocess = Preprocess(image_size=model.config.image_size)
        note = "preprocess: ImageNet's statistics were guessed, because the model was saved without any"
        record["notes"] = [*record.get("notes", []), note]
    names = known.get("class_names", ()) if class_names is None else class_names
    if names and len(names) != model.config.classes:
        raise ConfigError(
            f"there are {len(names)} class names for {model.config.classes} classes; give one for each, or none"
        )
    return TARGETS[to](model, Path(path), preprocess, names, record)


def _check_whole(model: VisionTransformer) -> None:
    """Raises ConfigError if the model is not what its config says, so that nobody could open what is written."""
    if any(tensor.is_meta for tensor in model.state_dict().values()):
        raise ConfigError(
            "the model's weights are on the meta device, which has no numbers; load weights into it first"
        )
    with torch.device("meta"):
        shell = VisionTransformer(model.config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if listed := misfit(shell, shapes):
        raise ConfigError(
            f"the model is no longer what its config says: {listed}\nsave one that was made from its config"
        )


def _record(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a model and of those that it was saved from: the newest three, and the first."""
    chain = []
    newest: Any = provenance
    while isinstance(newest, Mapping) and newest:
        chain.append({key: value for key, value in newest.items() if key not in (*_NOT_KEPT, "saved")})
        newest = newest.get("saved")
    kept = chain if len(chain) <= _NEWEST + 1 else [*chain[:_NEWEST], chain[-1]]
    record: dict[str, Any] = {}
    for one in reversed(kept):
        if "source" in one and Path(str(one["source"])).exists():
            one["source"] = Path(str(one["source"])).name  # not where it lay on somebody's disk
        record = one | ({"saved": record} if record else {})
    return record


def check_target(to: str) -> None:
    """Nothing, if a format of that name is written.

    Raises:
        ConfigError: if not.
    """
    if to not in TARGETS:
        raise ConfigError(f"{to!r} is no format that vitreous writes; choose {', '.join(TARGETS)}")
