"""What every checkpoint format keeps to: names and shapes in, a plan for our own tensors out.

A format is a module of `formats` with

    TITLE: str                               what `describe` calls it
    recognises(found: Found) -> bool         whether the names are its own
    read(found: Found) -> Reading            architecture, plan, decisions

and, where vitreous writes it, `write`. It sees names, shapes and the settings beside the weights, never a tensor:
the plan says how each of our tensors is made from the file's, so that nothing is held twice and nothing is allocated
before all shapes are found to fit. It knows nothing of modules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vitreous.checkpoints.containers.contract import Shapes, shown_name
from vitreous.checkpoints.loaded import Decision
from vitreous.data.preprocess import Preprocess
from vitreous.errors import CheckpointError
from vitreous.model.config import ViTConfig

_SHOWN = 10


@dataclass(frozen=True)
class Found:
    """What is known of a checkpoint before one tensor is read.

    Attributes:
        shapes: of the tensors, by the name they have once wrappers are stripped.
        container: "safetensors", "npz", "torch" or "torchscript".
        described: the content of config.json beside the weights; empty without one.
        processor: the content of preprocessor_config.json; empty without one.
        name: of the file or folder, which sometimes tells what the weights do not ("ViT-B-32.pt").
        asked: settings that the user gave, which win: fields of `ViTConfig`.
        extras: plain values that lie among the tensors, such as a training script's arguments.
    """

    shapes: Shapes
    container: str = "safetensors"
    described: Mapping[str, Any] = field(default_factory=dict)
    processor: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    asked: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """How one of our tensors is made.

    Attributes:
        sources: names in the file, in the order that `make` takes them; none for one that is computed.
        make: from tensors of these names, of any type of number, to ours.
    """

    sources: tuple[str, ...]
    make: Callable[..., Tensor]


Plan = dict[str, Part]
"""Our names, as in `VisionTransformer.state_dict()`, and how each is made."""


@dataclass(frozen=True)
class Reading:
    """A checkpoint in our words.

    Attributes:
        config: the architecture.
        plan: how each of our tensors is made.
        preprocess: what an image goes through before this model.
        decisions: where each setting comes from that the tensors do not tell; guesses marked.
        ignored: names in the file that are not used, and why each may be left out.
        class_names: one for each class; empty where the files do not say.
        saved: the provenance that the files carry, if vitreous wrote them.
    """

    config: ViTConfig
    plan: Plan
    preprocess: Preprocess
    decisions: tuple[Decision, ...] = ()
    ignored: Mapping[str, str] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    saved: Mapping[str, Any] = field(default_factory=dict)


def same(name: str) -> Part:
    """The file's tensor of this name, as it is."""
    return Part((name,), as_it_is)


def as_it_is(tensor: Tensor) -> Tensor:
    """The same tensor: what `same` makes."""
    return tensor


def reshaped(name: str, *shape: int) -> Part:
    """The file's tensor of this name, its numbers in the same order."""
    return Part((name,), lambda tensor: tensor.reshape(shape))


def transposed(name: str) -> Part:
    """The file's matrix of this name, (inputs, outputs) -> (outputs, inputs)."""
    return Part((name,), lambda tensor: tensor.transpose(0, 1))


def joined(*names: str) -> Part:
    """The file's tensors of these names, one behind the other along the first axis."""
    return Part(names, lambda *tensors: torch.cat(tensors))


def zeros(*shape: int) -> Part:
    """Nothing from the file: zeros."""
    return Part((), lambda: torch.zeros(shape))


def shape_of(shapes: Shapes, name: str, axes: int) -> tuple[int, ...]:
    """The shape of a tensor that must be there, with so many axes.

    Raises:
        CheckpointError: if it is not, or one of its axes has no length.
    """
    shape = shapes.get(name)
    if shape is None or len(shape) != axes or 0 in shape:
        have = "is missing" if shape is None else f"is {shape}"
        raise CheckpointError(
            f"{shown_name(name)} {have}; it has {axes} axes in this format; copy or download the file again"
        )
    return shape


def layers_of(shapes: Shapes, before: str) -> int:
    """How many layers there are, by names such as `before` + "3.norm1.weight".

    Raises:
        CheckpointError: if there are none, or one between them is missing.
    """
    rests = (name.removeprefix(before) for name in shapes if name.startswith(before))
    found = {first for rest in rests if (first := rest.partition(".")[0].partition("/")[0]).isdecimal()}
    if not found or found != {str(layer) for layer in range(len(found))}:
        listed = ", ".join(sorted(found)[:_SHOWN]) or "none"
        raise CheckpointError(f"the layers {shown_name(before)}... are not numbered from 0 on; there are {listed}")
    return len(found)


def square_grid(
    patches: int, asked: Mapping[str, Any], patch_size: tuple[int, int]
) -> tuple[Decision, tuple[int, int]]:
    """The image size that a table of so many patch positions was made for, and the reason.

    A table does not say how its rows lie: 196 is 14 x 14, and also 7 x 28. A square is taken, unless the user says
    otherwise.

    Raises:
        CheckpointError: if it is no square, and the user did not say the image size.
    """
    if "image_size" in asked:
        size = (int(asked["image_size"][0]), int(asked["image_size"][1]))
        return Decision("image_size", list(size), "as asked"), size
    side = round(patches**0.5)
    if side * side != patches:
        raise CheckpointError(
            f"the position table has {patches} patches, which are no square grid; "
            "say what it was made for: image_size=(height, width) in pixels"
        )
    size = (side * patch_size[0], side * patch_size[1])
    reason = f"the position table has {patches} rows for patches, taken as {side} x {side}"
    return Decision("image_size", list(size), reason), size


def asked_or(setting: str, asked: Mapping[str, Any], value: Any, reason: str, *, guessed: bool = False) -> Decision:
    """What the user asked for; else `value`, for this reason."""
    if setting in asked:
        return Decision(setting, asked[setting], "as asked")
    return Decision(setting, value, reason, guessed=guessed)


def unused(found: Found, plan: Plan, reasons: Mapping[str, str]) -> dict[str, str]:
    """The names that no part of the plan uses, each with the reason of the first beginning that fits it.

    Args:
        found: the checkpoint.
        plan: of our tensors.
        reasons: beginnings of names, and why such a tensor may be left out.

    Raises:
        CheckpointError: if one is left for which there is no reason: it may change what the model computes.
    """
    used = {source for part in plan.values() for source in part.sources}
    ignored, strange = {}, []
    for name in found.shapes:
        if name in used:
            continue
        reason = next((reasons[start] for start in reasons if name.startswith(start)), None)
        if reason is None:
            strange.append(name)
        else:
            ignored[name] = reason
    if strange:
        more = f" and {len(strange) - _SHOWN} more" if len(strange) > _SHOWN else ""
        listed = ", ".join(f"{name[:80]!r} {found.shapes[name]}" for name in strange[:_SHOWN])
        raise CheckpointError(
            f"vitreous has no place for {listed}{more}\n"
            "these weights may change what the model computes; open it with its own library"
        )
    return ignored
