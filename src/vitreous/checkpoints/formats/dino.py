"""DINO, iBOT and MSN: Meta's and ByteDance's self-supervised Vision Transformers, with timm's names.

They differ from timm's files in what is around the model (a projection head, a second network, both stripped before)
and in how positions move to another grid. Nothing in the backbone's names tells DINO's files from timm's: their name
or their projection head does. iBOT with layer scale calls it gamma_1 and gamma_2.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from vitreous.checkpoints.dialects.settled import STAND_IN, about_images
from vitreous.checkpoints.dialects.timm_names import (
    Named,
    grid_of,
    has_timm_names,
    heads_of,
    pooling_of,
    reading_of,
    told_by,
    with_layer_scale,
)
from vitreous.checkpoints.loaded import Decision
from vitreous.checkpoints.reading import Found, Reading, asked_or
from vitreous.data.pipelines import Size, dino, msn
from vitreous.data.preprocess import Preprocess
from vitreous.model.config import Resampling

TITLE = "DINO, iBOT or MSN"

_UNUSED = {
    "masked_embed": STAND_IN,
    "mask_token": STAND_IN,
    "head.mlp.": "the projection head of pre-training",
    "head.last_layer": "the projection head of pre-training",
    "fc.": "MSN's projection head of pre-training",
    "pred.": "MSN's prediction head of pre-training",
}


@dataclass(frozen=True)
class Project:
    """What a project's code says of all its models.

    Attributes:
        name: as its readers know it.
        resampling: whose rule moves positions.
        images: its evaluation's preprocessing.
        source: the file that says so.
    """

    name: str
    resampling: Resampling
    images: Callable[[Size], Preprocess]
    source: str


_PROJECTS = {
    "ibot": Project("iBOT", "dino", dino, "evaluation/eval_linear.py"),
    "msn": Project("MSN", "msn", msn, "linear_eval.py"),
    "dino": Project("DINO", "dino", dino, "eval_linear.py"),
}
_PROJECTION, _SECOND_PROJECTION = "head.last_layer.", "head.last_layer2."
_OTHERS = re.compile(r"dino_?v[23]|mask_?dino|grounding")


def recognises(found: Found) -> bool:
    """Whether there are timm's names, and one of the projects' own or its projection head beside them."""
    return "architecture" not in found.described and has_timm_names(found.shapes) and _project(found) is not None


def read(found: Found) -> Reading:
    """The backbone of DINO, iBOT or MSN; its features are the class token's.

    Raises:
        CheckpointError: if it is another architecture.
    """
    project = _project(found) or _PROJECTS["dino"]
    named = Named.of(found.shapes, with_layer_scale)
    width = told_by(named)["width"]
    image_size, _ = grid_of(found, named, (1,))
    preprocess = project.images((image_size.value[0], image_size.value[1]))
    decisions = (
        Decision("project", project.name, _why(found)),
        heads_of(found, width, f"{project.name}'s models"),
        asked_or("norm_eps", found.asked, 1e-6, f"{project.name}'s code"),
        asked_or("activation", found.asked, "gelu", f"{project.name}'s code, the exact GELU"),
        pooling_of(found, named, f"{project.name}'s code returns the class token"),
        image_size,
        asked_or("resampling", found.asked, project.resampling, f"{project.name}'s interpolate_pos_encoding"),
        *about_images(preprocess, f"{project.name}'s {project.source}"),
    )
    return reading_of(found, named, decisions, preprocess, reasons=_UNUSED)


def _project(found: Found) -> Project | None:
    """Which of the three it is; None where nothing says so."""
    if "pos_embed" not in found.shapes or "cls_token" not in found.shapes:
        return None
    if "masked_embed" in found.shapes or _has(found, _SECOND_PROJECTION):
        return _PROJECTS["ibot"]
    if "fc.fc1.weight" in found.shapes:
        return _PROJECTS["msn"]
    name = found.name.lower()
    if _OTHERS.search(name):
        return None
    for word, project in _PROJECTS.items():
        if re.search(rf"(?<![a-z]){word}(?![a-z0-9])", name):
            return project
    return _PROJECTS["dino"] if _has(found, _PROJECTION) else None


def _has(found: Found, start: str) -> bool:
    return any(name.startswith(start) for name in found.shapes)


def _why(found: Found) -> str:
    markers = ("masked_embed", "fc.fc1.weight", _SECOND_PROJECTION, _PROJECTION)
    marker = next((marker for marker in markers if _has(found, marker)), None)
    return f"it has {marker}" if marker else f"the file's name, {found.name[:60]!r}; other files have the same tensors"
