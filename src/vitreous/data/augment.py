"""Pictures changed a little, so that a model does not learn them by heart: whole batches, without a state."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

DRAWS = 5
"""Random numbers that `augment` uses for each image."""


def augment(
    pixels: Tensor,
    draws: Tensor,
    *,
    shift: float = 0,
    rotation: float = 0,
    scale: float = 0,
    flip: bool = False,
) -> Tensor:
    """Images moved, turned, resized and mirrored by chance; what comes in from outside is black.

    Args:
        pixels: (batch, channels, image_height, image_width) float.
        draws: (batch, 5) in [0, 1): for the shift down, the shift right, the turn, the size and the mirror.
            At 0.5 an image stays as it is.
        shift: pixels, at most, in each direction; whole ones where images are neither turned nor resized.
        rotation: degrees, at most, either way.
        scale: share, at most, by which an image grows or shrinks.
        flip: whether draws below 0.5 mirror left and right.

    Returns:
        The shape of `pixels`.
    """
    spread = 2 * draws.to(pixels) - 1  # (batch, 5) in [-1, 1)
    shifts = spread[:, :2] * shift
    if not rotation and not scale:
        shifts = shifts.round()  # whole pixels: nothing is blurred that will be sharp in the test
    moved = warp(
        pixels,
        shifts=shifts,
        angles=spread[:, 2] * math.radians(rotation),
        scales=1 + spread[:, 3] * scale,
    )
    if not flip:
        return moved
    return torch.where((draws[:, 4] < 0.5)[:, None, None, None], moved.flip(-1), moved)


def warp(pixels: Tensor, *, shifts: Tensor, angles: Tensor, scales: Tensor) -> Tensor:
    """Each image scaled and turned about its centre, then shifted; bilinear, black from outside.

    Args:
        pixels: (batch, channels, image_height, image_width) float.
        shifts: (batch, 2) pixels; down, right.
        angles: (batch,) radians; above 0 is clockwise.
        scales: (batch,) above 0; 2 is twice as large.

    Returns:
        The shape of `pixels`.
    """
    height, width = pixels.shape[-2:]
    # Where each pixel of the result comes from: undo the shift, then the turn and the scale. Coordinates are
    # halves of the image, as grid_sample wants them, hence the ratios of the sides.
    cosine, sine = angles.cos() / scales, angles.sin() / scales
    down, right = shifts[:, 0] * 2 / height, shifts[:, 1] * 2 / width
    across = torch.stack([cosine, sine * height / width], dim=-1)  # (batch, 2): right, down
    along = torch.stack([-sine * width / height, cosine], dim=-1)
    turn = torch.stack([across, along], dim=-2)  # (batch, 2, 2)
    offset = -turn @ torch.stack([right, down], dim=-1)[..., None]  # (batch, 2, 1)
    grid = F.affine_grid(torch.cat([turn, offset], dim=-1), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
