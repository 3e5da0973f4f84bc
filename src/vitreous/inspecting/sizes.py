"""Looking inside a model at pictures of several sizes, each at its own size: one inspection a size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitreous.capture.watch import watch_attention
from vitreous.data.gather import Pictures
from vitreous.data.preprocess import Preprocess
from vitreous.data.sizes import group_by_size
from vitreous.inspecting.inspector import inspect_model
from vitreous.inspection import Inspection
from vitreous.model.forward import run_model


def inspect_sizes(
    model: nn.Module,
    pictures: Pictures,
    *,
    preprocess: Preprocess,
    name: str | None = None,
    resume: str | Path | None = None,
    **options: Any,
) -> list[Inspection]:
    """Looks inside a model at pictures that are not resized: an inspection for each size, the most frequent first.

    A picture is cut at its centre down to whole patches. Sizes are told by headers, patches by one pass over an empty
    image of the model's own size.

    Args:
        model: one that takes images of any size, as timm's made with `dynamic_img_size=True`.
        pictures: of at most 12 sizes, counted in whole patches.
        preprocess: its mean and std are used, its size and its crop are not.
        name: of the model, in titles; the size is added.
        resume: as `inspect_model` has it; the size is added.
        options: all others of `inspect_model`.

    Raises:
        ConfigError: if there are more than 12 sizes.
        InputError: if no picture can be read.
        ShapeError: if the model refuses a size.
    """
    known = getattr(model, "provenance", None) or {}
    name = name or known.get("name") or type(model).__name__
    with watch_attention(model, layout=options.get("layout")) as watched:
        run_model(model, torch.zeros(1, 3, *preprocess.image_size))
    patch = watched.layout.patch_height, watched.layout.patch_width
    found = []
    for size, group in group_by_size(pictures, patch).items():
        height, width = size
        whole = replace(preprocess, image_size=size, resize="squash", crop_fraction=1.0)  # to the size that it has
        kept = None if resume is None else f"{resume}.{height}x{width}"
        title = f"{name}, {height} x {width}"
        found.append(inspect_model(model, group, preprocess=whole, name=title, resume=kept, **options))
    return found
