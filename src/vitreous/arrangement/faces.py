"""Drawn faces whose parts are in their places, and the same parts elsewhere: the lecture's drawing, without end.

There is no outline: a face is two eyes, a nose and a mouth on plain ground. A face's parts, their colours and the
ground are the same in all kinds, bit by bit; only the places differ. Every number comes from (seed, index), so that a
face can be drawn again at any time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vitreous.arrangement.face_parts import HALF, PARTS, draw_parts
from vitreous.arrangement.face_places import KINDS, SIDE, place_parts
from vitreous.checking import check_choice, check_count
from vitreous.errors import ConfigError


def draw_faces(seed: int, first: int, count: int, kinds: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Faces number `first`, `first` + 1, ..., each of the next kind in turn.

    Face number n has kind n modulo the number of kinds; a kind that is named twice comes twice as often.

    Args:
        seed: of all faces.
        first: number of the first face, from 0.
        count: how many, at least 1.
        kinds: of `KINDS`.

    Returns:
        Images (count, 3, 48, 48) float32 in [0, 1], and the place in `kinds` of each one's kind, (count,) int64.

    Raises:
        ConfigError: if a kind is unknown, or a number too small.
    """
    check_count("first", first, least=0)
    check_count("count", count, least=1)
    if not kinds:
        raise ConfigError(f"kinds is empty; name some of {', '.join(KINDS)}")
    for kind in kinds:
        check_choice("kind", kind, KINDS)
    samples = torch.arange(first, first + count)
    chosen = samples % len(kinds)
    places = torch.zeros(count, len(PARTS), 2, dtype=torch.int64)
    for number, kind in enumerate(kinds):
        which = chosen == number
        places[which] = place_parts(kind, seed, samples[which])
    return _drawn(seed, samples, places), chosen


def _drawn(seed: int, samples: Tensor, places: Tensor) -> Tensor:
    """Each part's window put where it belongs: (faces, parts, 2) -> (faces, 3, 48, 48)."""
    parts = draw_parts(seed, samples)
    steps = torch.arange(-HALF, HALF + 1)
    rows = (places[..., :1] + steps).clamp(0, SIDE - 1)  # (faces, parts, window); nothing is drawn beyond the edge
    columns = (places[..., 1:] + steps).clamp(0, SIDE - 1)
    pixels = (rows[..., None] * SIDE + columns[..., None, :]).flatten(1)  # (faces, parts * window * window)
    strokes = (parts.colours - parts.ground[:, None])[..., None, None] * parts.covers[:, :, None]
    strokes = strokes.transpose(1, 2).flatten(2)  # (faces, 3, parts * window * window)
    images = parts.ground[..., None].repeat(1, 1, SIDE * SIDE)
    images.scatter_add_(2, pixels[:, None].expand(-1, 3, -1), strokes)  # parts never overlap; outside adds 0
    return images.unflatten(2, (SIDE, SIDE))


def standardised(images: Tensor) -> Tensor:
    """Images as models see them: each channel of mean 0, all numbers of mean square 1, and ink lighter than ground.

    The ground becomes nearly 0 so, and dark faces on light ground are seen as light ones on dark. The numbers by which
    an image is changed come from its pixels alone, wherever these stand.

    Args:
        images: (batch, 3, image_height, image_width).
    """
    centred = images - images.mean((-2, -1), keepdim=True)
    lean = centred.pow(3).mean((1, 2, 3), keepdim=True)  # ink is rare: far from the mean on its own side
    scale = centred.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-6)
    return torch.where(lean < 0, -centred, centred) / scale
