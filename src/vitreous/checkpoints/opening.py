"""From a file or folder of any known format to our own model: found, recognised, planned, checked, then read.

    file or folder -> config.json, tensor file -> names without wrappers -> format -> plan -> shapes fit -> tensors

Up to the last arrow only names and shapes are known, and nothing is allocated. Then the tensors are read one by one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vitreous.checkpoints.asked import Asked
from vitreous.checkpoints.containers.contract import Shapes, TensorFile
from vitreous.checkpoints.containers.json_object import parse_object
from vitreous.checkpoints.containers.regular_file import check_file
from vitreous.checkpoints.containers.tensor_file import open_sharded, open_tensors
from vitreous.checkpoints.formats.known import FORMATS
from vitreous.checkpoints.loaded import Decision, LoadedModel, loaded
from vitreous.checkpoints.numbers import odd_numbers
from vitreous.checkpoints.reading import Found, Plan, Reading, as_it_is
from vitreous.checkpoints.record import read_record, recorded_settings, with_record
from vitreous.checkpoints.weights import check_fit, hash_file, hash_of_hashes
from vitreous.checkpoints.words import CONFIG, INDEX, PROCESSOR, weights_in
from vitreous.checkpoints.wrappers import Stripped, strip
from vitreous.errors import CheckpointError, ConfigError, VitreousError
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer

_HOW_TO_SAY_IT = "\nto load() as an argument, or once for all commands: vitreous convert FILE FOLDER --set NAME=VALUE"
_OF_TRANSFORMERS = "pytorch_model.bin"
_PART = re.compile(r"-\d{5}-of-\d{5}$")
_FLOATS = ("float64", "float32", "float16", "bfloat16")
_LARGEST_CONFIG = 32 * 2**20  # bytes; 21,843 long class names take 2 MiB


def open_path(path: Path, asked: Asked) -> LoadedModel:
    """The model in a file, or in a folder with one.

    Args:
        path: weights in any container; a folder with such a file, and mostly a config.json.
        asked: what the user settles; see `Asked`.

    Raises:
        InputError: if a file is missing, empty, or not a regular one.
        CheckpointError: if a file is damaged or hostile, of no known format, or tensors and architecture do not
            fit each other.
        ConfigError: if something was asked for that this model does not have.
    """
    folder, weights = (path, weights_in(path)) if path.is_dir() else (path.parent, path)
    beside = path.is_dir() or weights.suffix == ".safetensors" or weights.name == _OF_TRANSFORMERS
    described = _read_json(folder / CONFIG) if beside else {}  # of a folder of downloads it is somebody else's
    processor = _read_json(folder / PROCESSOR) if beside else {}
    with ThreadPoolExecutor(1) as aside, _open(weights) as file:
        record = read_record(file, described)
        with _named(path):
            asked = replace(asked, recorded=Asked.of(recorded_settings(record)).architecture)
        stripped = Stripped.whole(file.shapes) if described else strip(file.shapes, asked.weights)
        found = Found(stripped.shapes, file.container, described, processor, _title(path), asked.settled, file.extras)
        with _named(path):
            title, reading = _recognise(found)
            reading = with_record(reading, record)
        digest = aside.submit(_hash, weights)
        with nullcontext() if asked.architecture or asked.preprocess else _named(path):  # who is to blame
            reading = asked.settle(reading)
        model, notes = _build(reading, file, stripped.names, path, asked, has_config=bool(described))
        return loaded(
            str(path),
            title,
            model,
            reading.preprocess,
            name=_title(path),
            file_hash=digest.result(),
            class_names=reading.class_names,
            decisions=(*stripped.decisions, *reading.decisions, *notes),
            saved=dict(reading.saved),
            keys=_keys(reading, stripped),
        )


def _open(weights: Path) -> AbstractContextManager[TensorFile]:
    check_file(weights)
    return open_sharded(weights) if weights.name.endswith(INDEX) else open_tensors(weights)


def _hash(weights: Path) -> str:
    """Identity of a weights file; of an index that of all parts, which were found to lie beside it."""
    if not weights.name.endswith(INDEX):
        return hash_file(weights)
    parts = sorted(set(json.loads(weights.read_text(encoding="utf-8"))["weight_map"].values()))
    return hash_of_hashes([hash_file(weights.parent / part) for part in parts])


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Puts the file's name before what a format, which sees only names and shapes, found wrong."""
    try:
        yield
    except (CheckpointError, ConfigError) as cause:
        asks = re.search(r"say [^;]*=", str(cause)) and "\n" not in str(cause)
        raise CheckpointError(f"{path}: {cause}{_HOW_TO_SAY_IT if asks else ''}") from cause


def _recognise(found: Found) -> tuple[str, Reading]:
    for form in FORMATS:
        if form.recognises(found):
            return form.TITLE, form.read(found)
    if _PART.search(found.name):
        raise CheckpointError(
            "it is one of several files of a model; name the folder that has them all, and their list"
        )
    kind = found.described.get("model_type") or found.described.get("architecture")
    names = ", ".join(repr(name[:60]) for name in list(found.shapes)[:4])
    what = f"config.json is of {str(kind)[:60]!r}" if kind else f"tensors are called {names}"
    raise CheckpointError(
        f"of no format that vitreous knows: {what}\n"
        "a folder of another architecture opens with its library: timm:local-dir:FOLDER or hf:FOLDER"
    )


def _build(
    reading: Reading, file: TensorFile, names: Mapping[str, str], path: Path, asked: Asked, *, has_config: bool
) -> tuple[VisionTransformer, tuple[Decision, ...]]:
    """A model with the file's weights; nothing is allocated before names and shapes are found to fit."""
    model = _skeleton(reading.config, reading.plan, path)
    shapes = _planned_shapes(reading.plan, file.shapes, file.dtypes, names, path)
    check_fit(model, shapes, path, asked=asked.words, has_config=has_config)
    made = [ours for ours, part in reading.plan.items() if part.make is not as_it_is]
    weights = {ours: torch.empty(shapes[ours]) for ours in made}  # first: else what is freed below leaves holes
    groups = _by_sources(reading.plan)
    if made:  # the largest first: what comes after fits where they were
        groups = dict(sorted(groups.items(), key=lambda group: -sum(math.prod(shapes[ours]) for ours in group[1])))
    types: set[str] = set()
    for sources, parts in groups.items():
        in_file = [names.get(source, source) for source in sources]
        types |= {file.dtypes[name] for name in in_file}
        tensors = [file.read(name).to(torch.float32) for name in in_file]
        for ours in parts:
            if ours in weights:
                weights[ours].copy_(reading.plan[ours].make(*tensors))
            else:
                weights[ours] = tensors[0]
        del tensors
    notes = odd_numbers(weights, path, strict=asked.strict)
    if others := sorted(types - {"float32"}):
        notes += (Decision("precision", "float32", f"the file has {', '.join(others)}; vitreous computes in float32"),)
    model.load_state_dict(weights, assign=True)
    return model, notes


def _by_sources(plan: Plan) -> dict[tuple[str, ...], list[str]]:
    """Our names, those that are made of the same tensors together: each is read once."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for ours, part in plan.items():
        groups.setdefault(part.sources, []).append(ours)
    return groups


def _skeleton(config: ViTConfig, plan: Plan, path: Path) -> VisionTransformer:
    """The architecture without weights, made only if the file can fill it."""
    blocks = {ours.split(".")[1] for ours in plan if ours.startswith("blocks.")}
    if len(blocks) != config.depth:
        raise CheckpointError(
            f"{path} has {len(blocks)} blocks, but depth is said to be {config.depth}; "
            "use the config.json that was saved with these weights, or ask for no other depth"
        )
    if sum(config.stem or ()) > len(plan):
        raise CheckpointError(f"{path} has not as many tensors as a stem of {config.stem} blocks")
    try:
        with torch.device("meta"):
            return VisionTransformer(config)
    except (RuntimeError, OverflowError, TypeError, ValueError) as cause:
        if isinstance(cause, VitreousError):
            raise
        reason = str(cause).splitlines()[0]
        raise CheckpointError(f"{path} describes no possible model: {reason}; check its numbers") from cause


def _planned_shapes(
    plan: Plan, have: Shapes, dtypes: Mapping[str, str], names: Mapping[str, str], path: Path
) -> Shapes:
    """What shape each of our tensors will have, found with stand-ins of a byte a number, without reading one.

    Stand-ins on torch's meta device would take no memory, but their first use loads a thousand modules.
    """
    planned: Shapes = {}
    for ours, part in plan.items():
        absent = next((source for source in part.sources if names.get(source, source) not in have), None)
        if absent is not None:
            raise CheckpointError(f"{path}: {absent[:80]!r} is missing, of which {ours} is made; copy the file again")
        for source in part.sources:
            if dtypes[names.get(source, source)] not in _FLOATS:
                held = dtypes[names.get(source, source)]
                raise CheckpointError(f"{path}: {source[:80]!r} holds {held}; weights are one of {', '.join(_FLOATS)}")
        sources = [torch.empty(have[names.get(source, source)], dtype=torch.bool) for source in part.sources]
        try:
            planned[ours] = tuple(part.make(*sources).shape)
        except (RuntimeError, IndexError, ValueError) as cause:
            shapes = ", ".join(
                f"{source[:80]!r} {tuple(t.shape)}" for source, t in zip(part.sources, sources, strict=True)
            )
            raise CheckpointError(
                f"{path}: {ours} cannot be made of {shapes}; the weights are of another shape"
            ) from cause
    return planned


def _keys(reading: Reading, stripped: Stripped) -> dict[str, Any]:
    """Every tensor of the file: taken under its own name, under another, or not at all and why."""
    plan = reading.plan
    renamed = {ours: part.sources for ours, part in plan.items() if part.sources != (ours,)}
    ignored = {stripped.names.get(name, name): reason for name, reason in reading.ignored.items()}
    return {
        "prefix": stripped.prefix,
        "used": sorted(set(plan) - set(renamed)),
        "renamed": {ours: [stripped.prefix + name for name in names] for ours, names in renamed.items()},
        "ignored": dict(stripped.ignored) | ignored,
    }


def _read_json(path: Path) -> dict[str, Any]:
    """What a file of settings beside the weights holds; nothing if there is no such file."""
    if not path.exists() and not path.is_symlink():
        return {}
    check_file(path)
    if path.stat().st_size > _LARGEST_CONFIG:
        raise CheckpointError(f"{path} is larger than {_LARGEST_CONFIG >> 20} MiB; a model's {path.name} is small")
    try:
        return parse_object(path.read_bytes().strip())
    except ValueError as cause:
        raise CheckpointError(
            f"{path} {cause}; a model's {path.name} is a JSON object\ncopy or download it again"
        ) from cause


def _title(path: Path) -> str:
    """The folder's name, with its parent's where a run calls it just "model"; of a file its own."""
    if not path.is_dir() and path.name != "model.safetensors":
        return path.stem
    here = (path if path.is_dir() else path.parent).resolve()
    return f"{here.parent.name}/{here.name}" if here.name == "model" else here.name
