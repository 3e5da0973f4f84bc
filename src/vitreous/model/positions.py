"""Learned positions on another grid, for images of another size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.errors import ShapeError

Grid = tuple[int, int]


def resample_positions(table: Tensor, old_grid: Grid, new_grid: Grid, prefix: int) -> Tensor:
    """The position of every token when the image has `new_grid` patches, not `old_grid`.

    The same tensor when the grids are equal: not one bit changes. Prefix tokens have no place in the image
    and keep their rows. Patches are interpolated in two dimensions (Dosovitskiy et al. 2021, section 3.2):
    bicubic, antialiased when the grid shrinks, patch centres at half pixels, computed in float32. The paper's
    code is bilinear with corners aligned; we follow timm, whose files we share.

    Args:
        table: (1, prefix + old rows * old columns, width).
        old_grid: (rows, columns) that the table was made for.
        new_grid: (rows, columns) asked for.
        prefix: tokens before the patches.

    Returns:
        (1, prefix + new rows * new columns, width), in the table's dtype.

    Raises:
        ShapeError: if the table does not have `prefix + old rows * old columns` rows.

    Source: timm's `resample_abs_pos_embed` with its defaults.
    """
    tokens = prefix + old_grid[0] * old_grid[1]
    if table.ndim != 3 or table.shape[1] != tokens:
        raise ShapeError(
            f"the position table is {tuple(table.shape)}; for a grid of {old_grid[0]} x {old_grid[1]} "
            f"patches and {prefix} prefix tokens it is (1, {tokens}, width)"
        )
    if old_grid == new_grid:
        return table
    patches = table[:, prefix:].float().reshape(1, *old_grid, -1).permute(0, 3, 1, 2)  # (1, width, rows, columns)
    moved = F.interpolate(patches, size=new_grid, mode="bicubic", align_corners=False, antialias=True)
    patches = moved.flatten(2).transpose(1, 2).to(table.dtype)  # (1, rows * columns, width)
    return torch.cat([table[:, :prefix], patches], dim=1)
