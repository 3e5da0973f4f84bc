"""A model as an ONNX file, for programs that run without PyTorch."""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from vitreous import __version__
from vitreous.atomic import check_writable
from vitreous.checkpoints.optional import import_optional
from vitreous.data.preprocess import Preprocess
from vitreous.errors import CheckpointError, ConfigError, OutputError
from vitreous.model.vit import VisionTransformer

OPSET = 20
"""The first version of ONNX's operators that has GELU."""

TOLERANCE = 1e-4
"""Largest difference of what ONNX Runtime and torch compute; of outputs above 1 as a share of the largest."""

_LARGEST_FILE = 1536 * 2**20  # bytes of weights; a protobuf message ends at 2 GiB, and torch's exporter splits here
_CHECKED_BATCHES = (1, 3)


def write_onnx(
    model: VisionTransformer,
    path: Path,
    preprocess: Preprocess,
    class_names: Sequence[str] = (),
    provenance: dict[str, Any] | None = None,
) -> float | None:
    """Writes a model as ONNX, checked, whole or not at all; nothing is printed.

    It takes `images`, (batch, channels, image_height, image_width) float32 of any batch and the config's size, and
    returns `logits`, (batch, classes), or without a head `features`, (batch, width). Its metadata hold config,
    preprocess, class_names and provenance, each as JSON. Weights are float32, whatever the model's are. Where they take
    more than 1.5 GiB they stand in a second file, PATH.data, which has to stay beside the first.

    Args:
        model: not changed; written as it is in eval mode.
        path: made, or replaced; its folder is made, too.
        preprocess: what an image goes through before this model.
        class_names: one for each class, or none.
        provenance: plain data on where the weights come from.

    Returns:
        The largest difference of what ONNX Runtime and torch compute for random images; None where ONNX Runtime is
        not installed, so that only the file's form was checked.

    Raises:
        ConfigError: if onnx or onnxscript is missing, there are more or fewer names than classes, or the provenance is
            no plain data.
        CheckpointError: if the file would compute something else; what was at `path` before is untouched.
        OutputError: if the file cannot be written; what was there before is untouched.
    """
    if missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        raise ConfigError(f'writing ONNX needs {" and ".join(missing)}: pip install "vitreous[onnx]"')
    notes = _notes(model, preprocess, class_names, provenance or {})
    check_writable(path)
    place = Path(os.path.realpath(path))  # a link is followed, not replaced
    plain = _in_float32(model)
    with _quiet(), _folder_beside(place) as folder:
        _export(plain, folder / place.name, notes)
        import_optional("onnx").checker.check_model(folder / place.name, full_check=True)
        difference = _difference(plain, folder / place.name, path)
        _move(folder, place)
    return difference


def _notes(
    model: VisionTransformer, preprocess: Preprocess, class_names: Sequence[str], provenance: dict[str, Any]
) -> dict[str, str]:
    if class_names and len(class_names) != model.config.classes:
        raise ConfigError(
            f"there are {len(class_names)} class names for {model.config.classes} classes; give one for each, or none"
        )
    notes = {
        "config": model.config.to_dict(),
        "preprocess": preprocess.to_dict(),
        "class_names": list(class_names),
        "provenance": provenance,
    }
    try:
        return {name: json.dumps(note, allow_nan=False) for name, note in notes.items()}
    except (TypeError, ValueError) as cause:
        raise ConfigError(f"the provenance cannot be written as JSON: {cause}; use plain data") from cause


def _in_float32(model: VisionTransformer) -> VisionTransformer:
    """The same model in eval mode on the CPU; weights that are float32 there already are shared, not copied."""
    with torch.device("meta"):
        plain = VisionTransformer(model.config)
    weights = {name: tensor.detach().to("cpu", torch.float32) for name, tensor in model.state_dict().items()}
    plain.load_state_dict(weights, assign=True)
    return plain.eval().requires_grad_(False)


def _export(model: VisionTransformer, file: Path, notes: dict[str, str]) -> None:
    """Writes the file, and `file`.data where weights are large.

    The two steps of torch.onnx.export are taken one by one, because it fixes the batch without a word where the model's
    code does; so does `len(images)`, unless the export is strict.
    """
    config = model.config
    images = torch.zeros(2, config.channels, *config.image_size, device="cpu")
    shapes = {"images": {0: torch.export.Dim("batch")}}
    captured = torch.export.export(model, (images,), dynamic_shapes=shapes, strict=True)
    program: Any = torch.onnx.export(
        captured,
        dynamo=True,
        opset_version=OPSET,
        input_names=["images"],
        output_names=["logits" if config.classes else "features"],
        dynamic_shapes={"images": {0: "batch"}},  # only names the axis
        verbose=False,
    )
    # The exporter notes a stack trace for each operator, with this machine's paths.
    import_optional("onnx_ir.passes.common").ClearMetadataAndDocStringPass()(program.model)
    program.model.metadata_props.update(notes)
    program.model.producer_name, program.model.producer_version = "vitreous", __version__
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    program.save(file, external_data=weights > _LARGEST_FILE)


def _difference(model: VisionTransformer, file: Path, path: Path) -> float | None:
    """Of what ONNX Runtime computes from the file, where it is installed, to what torch does; the largest.

    Raises:
        CheckpointError: if it is above the tolerance, or not a number.
    """
    if find_spec("onnxruntime") is None:
        return None
    runtime = import_optional("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # it would write to standard error
    session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for batch in _CHECKED_BATCHES:
        size = (batch, model.config.channels, *model.config.image_size)
        images = torch.randn(size, generator=generator, device="cpu")
        expected = model(images)
        computed = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
        difference = (computed - expected).abs().max().item()
        allowed = TOLERANCE * max(1.0, expected.abs().max().item())
        if not difference <= allowed or math.isinf(allowed):  # not-a-number compares as False
            raise CheckpointError(
                f"{path} is not written: ONNX Runtime {runtime.__version__} and torch differ by {difference:.2g}, "
                f"{allowed:.2g} is allowed\ncheck that the weights are finite; if they are, try another onnxruntime"
            )
        largest = max(largest, difference)
    return largest


@contextmanager
def _folder_beside(place: Path) -> Iterator[Path]:
    """A folder for the file before it is moved to its place; gone afterwards, whatever happens.

    Raises:
        OutputError: if the file cannot be written.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{place.name}.", suffix=".tmp", dir=place.parent) as folder:
            yield Path(folder)
    except OSError as cause:
        reason = cause.strerror or str(cause)
        raise OutputError(f"{place} cannot be written: {reason}; choose another place, or make room there") from cause


def _move(folder: Path, place: Path) -> None:
    """Moves all files to the place's folder: the model last, because it names the file of its weights.

    An earlier model goes first where weights have a file of their own: it would never be seen with the new weights.
    """
    others = [file for file in folder.iterdir() if file.name != place.name]
    for file in (*others, folder / place.name):
        with file.open("r+b") as written:
            os.fsync(written.fileno())
    if others:
        place.unlink(missing_ok=True)
    for file in (*others, folder / place.name):
        file.replace(place.parent / file.name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, no warnings and no log below an error: the exporter has many, on its own code and missing packages."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
