"""Eyes, noses and mouths in many styles, each in a small window of its own: what a face is made of, without places.

A part is how much of each pixel its ink covers, computed from the distance to its outline, so that edges are smooth.
Moving its window by whole pixels changes no bit of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from vitreous.data.order import uniform

PARTS = ("left eye", "right eye", "nose", "mouth")

REACH = ((2, 2), (2, 2), (3, 1), (2, 4))
"""(rows, columns) from the middle pixel of each part that its ink reaches at most."""

HALF = 4
"""Pixels of a window on each side of its middle."""

_STYLES = 0  # which of a sample's random numbers
_DRAWS = 40
_LUMINANCE = torch.tensor([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Parts:
    """The parts of some faces.

    Attributes:
        covers: (faces, parts, window, window), the share of a pixel that is ink, in [0, 1].
        colours: (faces, parts, 3), of the ink, in [0, 1].
        ground: (faces, 3), likewise.
    """

    covers: Tensor
    colours: Tensor
    ground: Tensor


def draw_parts(seed: int, samples: Tensor) -> Parts:
    """The parts of each sample's face. They depend on seed and sample alone, and so not on how they are arranged.

    Eyes are dots, rings, crosses or diamonds, both of one style; noses strokes, hooks, triangles or wedges; mouths
    lines, bows up or down, open or laughing. Sizes, strokes and slants vary, and so do colours: dark on light, or
    light on dark.

    Args:
        seed: of all faces.
        samples: (faces,) int64, from 0.
    """
    draws = _Draws(uniform(samples, _DRAWS, seed=seed, epoch=_STYLES))
    style, radius, stroke = draws.integer(4), draws.between(1.95, 2.45), draws.between(0.45, 0.7)
    eyes = [_eye(style, radius * draws.between(0.9, 1), stroke, draws.between(-0.2, 0.2)) for _ in range(2)]
    nose, mouth = _nose(draws), _mouth(draws)
    side = 2 * HALF + 1
    covers = torch.stack([*eyes, nose, mouth], dim=1).unflatten(-1, (side, side))  # (faces, parts, side, side)
    colours, ground = _colours(draws)
    return Parts(covers, colours, ground)


class _Draws:
    """A sample's random numbers one after the other, each a column: (faces, 1)."""

    def __init__(self, numbers: Tensor) -> None:
        self._columns = iter(numbers.split(1, dim=1))

    def between(self, low: float, high: float) -> Tensor:
        return low + (high - low) * next(self._columns)

    def integer(self, choices: int) -> Tensor:
        return self.between(0, choices).floor()

    def sign(self) -> Tensor:
        return 2 * self.integer(2) - 1

    def colour(self) -> Tensor:
        return torch.cat([self.between(0, 1) for _ in range(3)], dim=1)  # (faces, 3)


def _eye(style: Tensor, radius: Tensor, stroke: Tensor, slant: Tensor) -> Tensor:
    """As high as wide: (faces, window * window). `stroke` is half of a line's width, as everywhere here."""
    x, y = _turned(slant)
    away = torch.hypot(x, y)
    dot = away - 0.9 * radius
    ring = (away - (radius - stroke)).abs() - stroke
    arm = 0.75 * (radius - stroke)
    cross = torch.minimum(_segment(x, y, -arm, -arm, arm, arm), _segment(x, y, -arm, arm, arm, -arm)) - stroke
    diamond = torch.maximum((x.abs() + y.abs() - radius) * math.sqrt(0.5), away - radius)  # no longer than its corners
    return _ink(style, (dot, ring, cross, diamond))


def _nose(draws: _Draws) -> Tensor:
    """Higher than wide: (faces, window * window)."""
    style, side, stroke = draws.integer(4), draws.sign(), draws.between(0.45, 0.55)
    height, width = draws.between(2.3, 2.8), draws.between(0.65, 0.75)
    x, y = _turned(draws.between(-0.05, 0.05))
    x = x * side
    line = _segment(x, y, 0 * height, -height, 0 * height, height) - stroke
    shaft, foot = (-width, -height, -0.6 * width, height), (-0.6 * width, height, width, height)
    hook = torch.minimum(_segment(x, y, *shaft), _segment(x, y, *foot)) - stroke
    steep = torch.hypot(height, 0.7 * width)
    sides = (height * x.abs() - 0.7 * width * (y + height)) / steep
    triangle = torch.maximum(sides, y.abs() - height)  # no longer than its tip
    tip, upper, lower = (width, 0.4 * height), (-width, -height), (-0.5 * width, height)
    wedge = torch.minimum(_segment(x, y, *upper, *tip), _segment(x, y, *tip, *lower)) - stroke
    return _ink(style, (line, hook, triangle, wedge))


def _mouth(draws: _Draws) -> Tensor:
    """Wider than high, and as often the one way up as the other: (faces, window * window)."""
    style, up, stroke = draws.integer(5), draws.sign(), draws.between(0.45, 0.7)
    half, sag = draws.between(3.0, 3.6), draws.between(0.9, 1.3)
    x, y = _turned(draws.between(-0.1, 0.1))
    y = y * up
    line = _segment(x, y, -half, 0 * half, half, 0 * half) - stroke
    bow = _bow(x, y, half, sag) - stroke
    inside = _ellipse(x, y, half + 0.4, sag + 0.6)
    opened = (inside + stroke).abs() - stroke
    laughing = torch.maximum(_ellipse(x, y + 1.4, half + 0.3, sag + 1.6), -(y + 1.2))
    return _ink(style, (line, bow, opened, laughing, bow))


def _colours(draws: _Draws) -> tuple[Tensor, Tensor]:
    """Inks (faces, parts, 3) and ground (faces, 3), light on dark or dark on light, each a colour of that lightness."""
    light, dark = draws.between(0.72, 0.95), draws.between(0.08, 0.32)
    is_dark_ground, is_one_ink = draws.integer(2), draws.integer(2)
    ground = _with_lightness(draws.colour(), torch.where(is_dark_ground > 0, dark, light))
    ink = torch.where(is_dark_ground > 0, light, dark)
    eyes, nose, mouth = (_with_lightness(draws.colour(), ink) for _ in range(3))
    inks = torch.stack([eyes, eyes, nose, mouth], dim=1)  # (faces, parts, 3)
    return torch.where(is_one_ink[..., None] > 0, eyes[:, None], inks), ground


def _with_lightness(colour: Tensor, lightness: Tensor) -> Tensor:
    """The colour mixed with black or white until it is so light: (faces, 3), (faces, 1) -> (faces, 3)."""
    own = (colour * _LUMINANCE).sum(1, keepdim=True)
    darker = colour * (lightness / own)
    lighter = 1 - (1 - colour) * ((1 - lightness) / (1 - own))
    return torch.where(lightness < own, darker, lighter)


def _turned(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Across and down from the window's middle, turned for each face: (faces, 1) -> two of (faces, window * window)."""
    steps = torch.arange(-HALF, HALF + 1.0)
    y, x = (axis.flatten() for axis in torch.meshgrid(steps, steps, indexing="ij"))
    cosine, sine = angle.cos(), angle.sin()
    return cosine * x + sine * y, cosine * y - sine * x


def _segment(x: Tensor, y: Tensor, x_from: Tensor, y_from: Tensor, x_to: Tensor, y_to: Tensor) -> Tensor:
    """How far each pixel is from a straight line between two points."""
    across, down = x_to - x_from, y_to - y_from
    along = ((x - x_from) * across + (y - y_from) * down) / (across * across + down * down)
    along = along.clamp(0, 1)
    return torch.hypot(x - x_from - along * across, y - y_from - along * down)


def _bow(x: Tensor, y: Tensor, half: Tensor, sag: Tensor) -> Tensor:
    """How far each pixel is from a bow of four straight pieces, its middle `sag` below 0, its ends as far above."""
    points = [(share * half, (1 - 2 * share * share) * sag) for share in (-1, -0.5, 0, 0.5, 1)]
    pieces = [_segment(x, y, *start, *end) for start, end in pairwise(points)]
    return torch.stack(pieces).amin(0)


def _ellipse(x: Tensor, y: Tensor, half_width: Tensor, half_height: Tensor) -> Tensor:
    """How far each pixel is outside an ellipse, to first order; negative inside."""
    level = torch.hypot(x / half_width, y / half_height)
    slope = torch.hypot(x / half_width**2, y / half_height**2).clamp_min(1e-3)
    return (level - 1) * level / slope


def _ink(style: Tensor, distances: tuple[Tensor, ...]) -> Tensor:
    """The share of each pixel on the inner side of the chosen style's outline: 1 half a pixel inside, 0 outside."""
    chosen = torch.stack(distances, dim=1)  # (faces, styles, window * window)
    index = style.long()[..., None].expand(-1, -1, chosen.shape[-1])
    return (0.5 - chosen.gather(1, index).squeeze(1)).clamp(0, 1)
