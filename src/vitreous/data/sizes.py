"""Pictures that keep their own size: read from headers, grouped, cut to whole patches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from PIL import Image

from vitreous.data.gather import Pictures
from vitreous.data.headers import Size
from vitreous.errors import ConfigError, InputError

MOST = 12
"""Sizes that one data set may have: each is looked at and shown on its own."""


def group_by_size(pictures: Pictures, patch: Size) -> dict[Size, Pictures]:
    """Pictures by their size, cut at the centre down to whole patches, the most frequent size first.

    Only headers are read. A picture whose header cannot be read, or that is smaller than a patch, stands in the first
    group, where reading it fails with the cause.

    Args:
        pictures: of any sizes.
        patch: (height, width) in pixels.

    Raises:
        ConfigError: if there are more than 12 sizes.
        InputError: if no picture's size can be told.
    """
    groups: dict[Size, list[int]] = {}
    unknown: list[int] = []
    for index in range(len(pictures)):
        height, width = pictures.size_of(index) or (0, 0)
        size = height - height % patch[0], width - width % patch[1]
        (groups.setdefault(size, []) if min(size) else unknown).append(index)
    if not groups:
        raise InputError(f"{pictures.names[0]}: cannot be read, or is smaller than a patch, as are all others")
    if len(groups) > MOST:
        raise ConfigError(
            f"the {len(pictures):,} images have {len(groups):,} sizes in whole patches, {MOST} can be grouped\n"
            "take images of fewer sizes, or let the model's preprocessing make them one (--sizes resize)"
        )
    by_number = sorted(groups.items(), key=lambda group: -len(group[1]))
    by_number[0][1].extend(unknown)
    return {size: _cut(pictures.chosen(sorted(indices)), size) for size, indices in by_number}


def _cut(pictures: Pictures, size: Size) -> Pictures:
    return Pictures(pictures.names, partial(_read_centre, pictures.read, size), place=pictures.place)


def _read_centre(read: Callable[[int], Image.Image], size: Size, index: int) -> Image.Image:
    """The middle of a picture, at its own scale."""
    picture = read(index)
    height, width = size
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    if min(left, top) < 0:
        raise InputError(f"{picture.height} x {picture.width} pixels cannot be cut to {height} x {width}; leave it out")
    return picture.crop((left, top, left + width, top + height))
