"""Where the parts of a face stand: as in a face, or in one of the ways in which they stand in none.

Only the arrangement tells right from wrong. No two parts come nearer than `GAP` pixels, in any kind, and so no small
window sees two of them. All places are multiples of `STEP`, and of each part the even ones and the odd ones, down and
across, are as likely as each other, whatever the kind and the other parts' places: patches of six pixels cut parts in
the same ways in all kinds.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vitreous.arrangement.face_parts import PARTS, REACH
from vitreous.data.order import uniform

SIDE = 48
"""Pixels of an image, down and across."""

GAP = 6
"""Pixels of ground between any two parts, down or across, at least: a window of seven pixels never sees two."""

RIGHT = "right"
KINDS = (RIGHT, "displaced", "swapped", "upside down", "turned", "mouth above nose")

STEP = 3
"""Pixels between places next to each other."""

PHASES = 2
"""Ways in which a patch of six pixels is cut by places next to each other."""

_ASIDE = torch.tensor([[-1, 0, 0, 1], [0, 0, 1, 1]])
"""Steps away from the middle, equally likely, where the middle is on a step, or between 0 and 1; half of them odd."""

_PLACES, _PHASES, _DISPLACED = 1, 2, 3  # which of a sample's random numbers
_DRAWS, _TRIES = 12, 16
_FAR = 10
"""Pixels by which at least one part of a displaced face is away from where any other kind has it."""
_LEFT, _RIGHT, _NOSE, _MOUTH = range(len(PARTS))
_REACH = torch.tensor(REACH)
_LEAST, _MOST = _REACH + 1, SIDE - 2 - _REACH  # (parts, 2); the outermost pixels are ground
_MEAN_FACE = torch.tensor([[0, 0], [0, 20], [14, 10], [28, 10]])  # (parts, 2)


def place_parts(kind: str, seed: int, samples: Tensor) -> Tensor:
    """The middle pixel (row, column) of each part, whole and inside the image: (faces, parts, 2) int64.

    right: two eyes about level, the nose below and between them, the mouth below the nose.
    displaced: anywhere, but no two near each other, and nowhere near any other kind.
    swapped: a face in which one eye has changed places with the nose or with the mouth.
    upside down: the places of a face from bottom to top; the parts themselves stand upright, here as everywhere.
    turned: the places of a face, a quarter turn to the left or to the right.
    mouth above nose: a face in which these two have changed places.

    Args:
        kind: one of `KINDS`.
        seed: of all faces.
        samples: (faces,) int64, from 0.
    """
    if kind == "displaced":
        return _displaced(seed, samples)
    draws = uniform(samples, _DRAWS, seed=seed, epoch=_PLACES)
    places = _in_order(kind, _face(draws[:, :6]), draws[:, 6:8])
    least, most = (_LEAST - places).amax(1), (_MOST - places).amin(1)  # (faces, 2), of the left eye
    anchor = _on_lattice(least, most, (draws[:, 8:10] * PHASES).long(), draws[:, 10:12])
    return places + anchor[:, None]


def _face(draws: Tensor) -> Tensor:
    """Parts of a face, relative to its left eye: (faces, 6) in [0, 1) -> (faces, parts, 2)."""
    steps = (draws[:, :3] * PHASES).long() * STEP  # (faces, 3), each 0 or 3
    apart, down_to_nose, down_to_mouth = 18 + steps[:, 0], 12 + steps[:, 1], 12 + steps[:, 2]
    aside = (draws[:, 3:] * _ASIDE.shape[1]).long()  # (faces, 3)
    tilt = STEP * _ASIDE[0, aside[:, 0]]
    nose = tilt.clamp_min(0) + down_to_nose  # below the lower eye
    mouth = nose + down_to_mouth
    is_wide = (apart > 18).long()  # its middle is column 10.5, not 9
    nose_across, mouth_across = (9 + STEP * _ASIDE[is_wide, one] for one in aside[:, 1:].unbind(1))
    zero = torch.zeros_like(apart)
    down = torch.stack([zero, tilt, nose, mouth], dim=1)
    across = torch.stack([zero, apart, nose_across, mouth_across], dim=1)
    return torch.stack([down, across], dim=-1)


def _on_lattice(least: Tensor, most: Tensor, phases: Tensor, draws: Tensor) -> Tensor:
    """A place from `least` to `most` on the lattice, of the phase asked for: whole numbers of any one shape."""
    first = (least + STEP - 1).div(STEP, rounding_mode="floor")
    first = first + (phases - first).remainder(PHASES)
    count = (most.div(STEP, rounding_mode="floor") - first).div(PHASES, rounding_mode="floor") + 1
    return (first + PHASES * (draws * count).long()) * STEP


def _in_order(kind: str, face: Tensor, draws: Tensor) -> Tensor:
    """A face's places as this kind has them: (faces, parts, 2), (faces, 2) in [0, 1) -> (faces, parts, 2)."""
    if kind == "swapped":
        one = (draws[:, 0] * 2).long()  # which eye
        other = _NOSE + (draws[:, 1] * 2).long()  # with the nose or the mouth
        return _swapped(face, one, other)
    if kind == "mouth above nose":
        return face[:, [_LEFT, _RIGHT, _MOUTH, _NOSE]]
    if kind == "upside down":
        return face * torch.tensor([-1, 1])
    if kind == "turned":
        side = torch.where(draws[:, :1] < 0.5, 1, -1)  # (faces, 1)
        return torch.stack([face[..., 1] * side, -face[..., 0] * side], dim=-1)
    return face


def _swapped(places: Tensor, one: Tensor, other: Tensor) -> Tensor:
    order = torch.arange(len(PARTS)).repeat(len(places), 1)  # (faces, parts)
    order.scatter_(1, one[:, None], other[:, None])
    order.scatter_(1, other[:, None], one[:, None])
    return places.gather(1, order[..., None].expand(-1, -1, 2))


def _displaced(seed: int, samples: Tensor) -> Tensor:
    """Places of phases drawn first, then drawn again and again, for each face until they will do."""
    phases = uniform(samples, _REACH.numel(), seed=seed, epoch=_PHASES).view(-1, 1, *_REACH.shape)
    phases = (phases * PHASES).long()  # (faces, 1, parts, 2)
    places = torch.zeros(len(samples), len(PARTS), 2, dtype=torch.int64)
    left, attempt = torch.arange(len(samples)), 0
    while len(left):
        draws = uniform(samples[left], _TRIES * _REACH.numel(), seed=seed, epoch=_DISPLACED + attempt)
        draws = draws.view(-1, _TRIES, *_REACH.shape)  # (faces, tries, parts, 2)
        tried = _on_lattice(_LEAST, _MOST, phases[left], draws)
        will_do = _is_apart(tried) & ~_is_near_another_kind(tried)  # (faces, tries)
        first = will_do.int().argmax(1)
        places[left] = tried[torch.arange(len(left)), first]
        left, attempt = left[~will_do.any(1)], attempt + 1
    return places


def _is_apart(places: Tensor) -> Tensor:
    """Whether ground of `GAP` pixels is between any two parts: (..., parts, 2) -> (...)."""
    one, other = torch.triu_indices(len(PARTS), len(PARTS), offset=1)
    ground = (places[..., one, :] - places[..., other, :]).abs() - _REACH[one] - _REACH[other] - 1
    return (ground.amax(-1) >= GAP).all(-1)


def _is_near_another_kind(places: Tensor) -> Tensor:
    """Whether all parts are about where another kind may have them: (..., parts, 2) -> (...)."""
    near = torch.zeros(places.shape[:-2], dtype=torch.bool)
    for other in _mean_places():
        offsets = places - other
        middle = (offsets.amax(-2, keepdim=True) + offsets.amin(-2, keepdim=True)) / 2  # the best place for it
        near |= (offsets - middle).abs().amax((-2, -1)) < _FAR
    return near


def _mean_places() -> list[Tensor]:
    """Each other kind's places in the middle of their range, the eyes either way: (parts, 2) each."""
    face = _MEAN_FACE
    swaps = [_swapped(face[None], torch.tensor([eye]), torch.tensor([part]))[0] for eye in (0, 1) for part in (2, 3)]
    turns = [torch.stack([side * face[:, 1], -side * face[:, 0]], dim=-1) for side in (1, -1)]
    upside_down, nose_last = face * torch.tensor([-1, 1]), face[[_LEFT, _RIGHT, _MOUTH, _NOSE]]
    all_kinds = [face, upside_down, nose_last, *swaps, *turns]
    return [order for one in all_kinds for order in (one, one[[_RIGHT, _LEFT, _NOSE, _MOUTH]])]
