"""From any source to a format that others read, checked by reading it again."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vitreous.checkpoints.asked import Asked
from vitreous.checkpoints.from_transformers import quiet
from vitreous.checkpoints.loaded import LoadedModel
from vitreous.checkpoints.opening import open_path
from vitreous.checkpoints.optional import import_optional
from vitreous.checkpoints.saving import check_target, save
from vitreous.checkpoints.sources import is_made_elsewhere, open_model
from vitreous.checkpoints.words import WEIGHTS
from vitreous.errors import CheckpointError, OutputError
from vitreous.model.forward import run_model
from vitreous.model.vit import VisionTransformer

_TOLERANCE = 1e-4  # of the largest output, or of 1


@dataclass(frozen=True)
class Conversion:
    """What `convert` did.

    Attributes:
        written: the model that was written.
        remarks: how it was checked, and what did not fit into the format, a sentence each.
    """

    written: LoadedModel
    remarks: tuple[str, ...]


def convert(source: str | Path, out: str | Path, *, to: str, strict: bool = False, **asked: Any) -> Conversion:
    """Writes what a source names in another format, and reads it again: every weight must come back with every bit.

    A module of another library (`timm:NAME`) becomes our own model first, which must give the same outputs. An ONNX
    file is run beside our model instead, where onnxruntime is installed.

    Args:
        source: as for `vitreous.load`.
        out: a folder; for `google` and `onnx` a file.
        to: timm, transformers, google or onnx.
        strict: see `vitreous.load`.
        **asked: see `vitreous.load`.

    Returns:
        What was written, and how it was checked.

    Raises:
        ConfigError: if the format does not exist, or has no word for a part of the model.
        CheckpointError: if the source cannot be read, or is no model that vitreous has.
        OutputError: if it cannot be written, or does not come back as it was.
    """
    check_target(to)
    settings = Asked.of(asked, strict=strict)
    if is_made_elsewhere(source):
        opened = as_our_own(open_model(source), settings)
    else:
        opened = open_model(source, strict=strict, **asked)
    checked: tuple[str, ...] = ()
    if to != "onnx":  # which is run beside the model before it takes its place
        with tempfile.TemporaryDirectory(prefix="vitreous-") as trial:  # what stands at `out` is not lost to a failure
            save(opened.model, Path(trial) / Path(out).name, to=to)
            _check_it_comes_back(opened, Path(trial) / Path(out).name, Path(out))
        checked = ("read again: every weight has every bit",)
    return Conversion(opened, checked + save(opened.model, out, to=to))


def as_our_own(opened: LoadedModel, asked: Asked) -> LoadedModel:
    """Our own model with the weights of a module that timm, transformers or torchvision made.

    It goes through a folder, as that library saves it, and is then run beside the other on one random image, before
    what the user settles changes it.

    Raises:
        CheckpointError: if it is no model that vitreous has, or gives other outputs.
    """
    if isinstance(opened.model, VisionTransformer):
        return opened
    with tempfile.TemporaryDirectory(prefix="vitreous-") as name:
        _save_with_its_library(opened, Path(name))
        try:
            plain = open_path(Path(name), Asked())
            ours = open_path(Path(name), asked)
        except CheckpointError as cause:
            reason = str(cause).replace(name, opened.name)
            raise CheckpointError(f"{opened.name} does not become a model of vitreous' own: {reason}") from cause
    difference = _difference(opened.model, plain.model)
    if not difference <= _TOLERANCE:
        raise CheckpointError(
            f"vitreous' own model with the weights of {opened.name} gives other outputs: {difference:.1e} off\n"
            "it is not converted; please report which model it is"
        )
    theirs, provenance = opened.model.__dict__["provenance"], ours.model.__dict__["provenance"]
    for entry in ("name", "source", "file_hash", "class_names"):
        provenance[entry] = theirs[entry]
    preprocess = replace(opened.preprocess, **asked.preprocess)
    provenance["preprocess"] = preprocess.to_dict()
    provenance["decisions"] = [*theirs["decisions"], *provenance["decisions"]]
    return replace(opened, model=ours.model, preprocess=preprocess)


def _save_with_its_library(opened: LoadedModel, folder: Path) -> None:
    model: Any = opened.model
    if opened.kind == "timm":
        import_optional("timm.models").save_for_hf(model, str(folder), safe_serialization=True)
    elif opened.kind == "transformers":
        with quiet(import_optional("transformers")):
            model.save_pretrained(folder)
    else:
        weights = {name: weight.contiguous() for name, weight in model.state_dict().items()}
        save_file(weights, folder / WEIGHTS)


def _difference(theirs: nn.Module, ours: nn.Module) -> float:
    """The largest difference between our output and the likest of theirs, as a share of the largest output."""
    assert isinstance(ours, VisionTransformer)
    images = torch.randn(1, ours.config.channels, *ours.config.image_size, generator=torch.Generator().manual_seed(0))
    output = run_model(ours, images)
    like = [one for one in _outputs(run_model(theirs, images)) if one.shape == output.shape]
    scale = output.abs().max().clamp(min=1)
    return min((float((one - output).abs().max() / scale) for one in like), default=math.inf)


def _outputs(returned: Any) -> Iterator[Tensor]:
    """What may be one vector for each image: logits alone, where there are some."""
    if isinstance(returned, Tensor):
        yield returned
    elif isinstance(getattr(returned, "logits", None), Tensor):
        yield returned.logits
    else:
        for name in ("image_embeds", "pooler_output", "last_hidden_state"):
            found = getattr(returned, name, None)
            if isinstance(found, Tensor):
                yield found if found.ndim == 2 else found[:, 0]


def _check_it_comes_back(opened: LoadedModel, trial: Path, out: Path) -> None:
    try:
        again = open_path(trial, Asked()).model.state_dict()
    except CheckpointError as cause:
        reason = str(cause).replace(str(trial), str(out))
        raise OutputError(f"{out} is not written, because it could not be read again: {reason}") from cause
    for name, weight in opened.model.state_dict().items():
        if name not in again:  # the last norm of a class token is the same before the pooling and after it
            name = name.replace("fc_norm.", "norm.")
        if name not in again or not _is_same(again[name], weight):
            raise OutputError(f"{out} is not written, because {name} would not come back as it is; use --to timm")


def _is_same(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors have the same bits, also where they are not numbers."""
    if (first.shape, first.dtype) != (second.shape, second.dtype):
        return False
    bits = (tensor.cpu().contiguous().flatten().view(torch.uint8) for tensor in (first, second))
    return torch.equal(*bits)
