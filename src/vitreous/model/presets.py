"""The sizes that have names: "B/16" is size B with patches of 16 x 16 pixels."""

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

PATCHES = range(8, 33)
"""Sides of a patch, in pixels, that a name may give."""


def named_config(name: str, **changes: Any) -> ViTConfig:
    """The architecture that papers call ViT-`name`, for images of 224 pixels and 1000 classes unless changed.

    Args:
        name: size and patch side, such as "Ti/16", "S/32", "B/8" or "H/14".
        **changes: fields of `ViTConfig` that differ, such as `classes=10` or `image_size=(384, 384)`.

    Raises:
        ConfigError: if the size or the patch has no such name, or a change does not fit.
    """
    size, patch = _parse(name)
    settings = {
        "patch_size": [patch, patch],
        "width": SIZES[size].width,
        "depth": SIZES[size].depth,
        "heads": SIZES[size].heads,
    }
    return ViTConfig.from_dict(settings | changes)


def _parse(name: str) -> tuple[str, int]:
    match = re.fullmatch(r"([A-Za-z]+)/(\d{1,4})", name)
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
