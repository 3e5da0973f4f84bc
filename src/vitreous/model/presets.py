"""The sizes that have names: "B/16" is size B with patches of 16 pixels a side, "R50+B/16" the same behind a ResNet."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Any

from vitreous.errors import ConfigError
from vitreous.model.config import ViTConfig


@dataclass(frozen=True)
class Size:
    """What a size letter stands for; the MLP is four times as wide in all of them."""

    width: int
    depth: int
    heads: int
    source: str


SIZES = {
    "Ti": Size(192, 12, 3, "DeiT, arXiv 2012.12877, table 1"),
    "S": Size(384, 12, 6, "DeiT, arXiv 2012.12877, table 1"),
    "B": Size(768, 12, 12, "Dosovitskiy et al. 2021, arXiv 2010.11929, table 1"),
    "L": Size(1024, 24, 16, "Dosovitskiy et al. 2021, arXiv 2010.11929, table 1"),
    "H": Size(1280, 32, 16, "Dosovitskiy et al. 2021, arXiv 2010.11929, table 1"),
}

STEMS: dict[str, dict[int, tuple[tuple[int, ...], int]]] = {
    "R": {16: ((), 32)},
    "R26": {32: ((2, 2, 2, 2), 32)},
    "R50": {16: ((3, 4, 9), 16), 32: ((3, 4, 6, 3), 32)},
}
"""Blocks of a hybrid's stem, and the pixels that a token stands for, by the name's number.

At 16 ResNet-50's fourth stage is left out and its blocks are added to the third (section 3.1). "R+Ti/16" is so called
by its authors, but its root takes 4 pixels together and its patches 8 x 8 of these: 32. Source: google-research/
vision_transformer, `vit_jax/configs/models.py`; R50+L/16, of the paper's figure 11, is not there.
"""

PATCHES = range(8, 33)
"""Sides of a patch, in pixels, that a name may give."""


def named_config(name: str, **changes: Any) -> ViTConfig:
    """The architecture that papers call ViT-`name`, for images of 224 pixels and 1000 classes unless changed.

    Args:
        name: size and patch side, such as "Ti/16", "S/32", "B/8" or "H/14"; of a hybrid the ResNet before it, such as
            "R50+B/16", "R26+S/32" or "R+Ti/16".
        **changes: fields of `ViTConfig` that differ, such as `classes=10` or `image_size=(384, 384)`.

    Raises:
        ConfigError: if the size or the patch has no such name, or a change does not fit.
    """
    resnet, plus, rest = name.rpartition("+")
    size, patch = _parse(rest, name)
    stem = None
    if plus:
        stem, patch = _stem(resnet, patch, name)
    settings = {
        "stem": stem,
        "patch_size": [patch, patch],
        "width": SIZES[size].width,
        "depth": SIZES[size].depth,
        "heads": SIZES[size].heads,
    }
    return ViTConfig.from_dict(settings | changes)


def _stem(resnet: str, patch: int, name: str) -> tuple[tuple[int, ...], int]:
    known = STEMS.get(resnet.upper(), {})
    if patch not in known:
        there = ", ".join(f"{stem}+.../{number}" for stem, numbers in STEMS.items() for number in numbers)
        raise ConfigError(f"no hybrid is called {name!r}; there are {there}; ViTConfig takes any stem")
    return known[patch]


def _parse(rest: str, name: str) -> tuple[str, int]:
    match = re.fullmatch(r"([A-Za-z]+)/(\d{1,4})", rest)
    sizes = {size.lower(): size for size in SIZES}
    if match is None or match[1].lower() not in sizes:
        common = ["Ti/16", "S/16", "S/32", "B/16", "B/32", "L/16", "L/32", "H/14"]
        close = difflib.get_close_matches(name, common, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"a name is one of {', '.join(SIZES)}, then /patch: B/16"
        raise ConfigError(f"no ViT is called {name!r}; {hint}")
    if int(match[2]) not in PATCHES:
        raise ConfigError(
            f"{name!r} has patches of {match[2]} pixels; names go from {PATCHES[0]} to {PATCHES[-1]}, "
            "ViTConfig takes any"
        )
    return sizes[match[1].lower()], int(match[2])
