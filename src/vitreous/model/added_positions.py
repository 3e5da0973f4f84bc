"""Positions as vectors that are added to tokens: a table, one of rows beside one of columns, or sines and cosines.

Equation 1 adds them once, to what the patch embedding gives. Table 8 of the paper also adds them before every layer.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitreous.model.config import ViTConfig
from vitreous.model.positions import resample_positions, sincos_positions
from vitreous.tokens import TokenLayout

ONE_TABLE = "pos_embed"
ROWS, COLUMNS = "pos_embed_rows", "pos_embed_columns"


def position_tables(config: ViTConfig) -> dict[str, nn.Parameter]:
    """The learned tables for one place where positions are added, by name, not yet drawn.

    `pos_embed` (1, tokens, width) for `learned`; for `learned-2d` `pos_embed_rows` (1, rows, width / 2) and
    `pos_embed_columns` (1, columns, width / 2); nothing for other positions.
    """
    if config.positions == "learned":
        return {ONE_TABLE: nn.Parameter(torch.empty(1, config.tokens, config.width))}
    if config.positions == "learned-2d":
        return {
            ROWS: nn.Parameter(torch.empty(1, config.rows, config.width // 2)),
            COLUMNS: nn.Parameter(torch.empty(1, config.columns, config.width // 2)),
        }
    return {}


def added_positions(config: ViTConfig, layout: TokenLayout, tables: Mapping[str, Tensor | None]) -> Tensor | None:
    """What is added to the tokens of one image, (1, tokens, width); None if `tables` has none.

    Tables are resampled where the image has another grid than they were made for. Prefix tokens have a row of their
    own in `pos_embed`, and zeros from rows beside columns.

    Args:
        config: whose grid the tables were made for, and whose rule moves them.
        layout: of the image.
        tables: those of `position_tables`, or a fixed one in place of `pos_embed`.
    """
    made_for, grid, rule = (config.rows, config.columns), (layout.rows, layout.columns), config.resampling
    by_row, by_column, whole = tables.get(ROWS), tables.get(COLUMNS), tables.get(ONE_TABLE)
    if by_row is not None and by_column is not None:
        rows = resample_positions(by_row, (made_for[0], 1), (grid[0], 1), 0, rule)
        columns = resample_positions(by_column, (1, made_for[1]), (1, grid[1]), 0, rule)
        down, across = rows.repeat_interleave(grid[1], dim=1), columns.repeat(1, grid[0], 1)
        return F.pad(torch.cat([down, across], dim=-1), (0, 0, layout.prefix, 0))  # prefix tokens have no place
    if whole is None:
        return None
    if config.positions == "sincos-2d" and grid != made_for:
        return fixed_positions(config, layout).to(whole)
    return resample_positions(whole, made_for, grid, layout.prefix, rule)


def fixed_positions(config: ViTConfig, layout: TokenLayout) -> Tensor:
    """Sines and cosines for patches, zeros for the tokens before them: (1, tokens, width)."""
    table = sincos_positions(layout.rows, layout.columns, config.width)
    return F.pad(table[None], (0, 0, layout.prefix, 0))


class LayerPositions(nn.Module):
    """Learned positions that are added to the tokens at the start of a layer. Source: appendix D.4, table 8."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        for name, table in position_tables(config).items():
            self.register_parameter(name, table)

    def forward(self, sequence: Tensor, layout: TokenLayout) -> Tensor:
        """(batch, tokens, width) -> the same shape, each token with its place's vector added."""
        added = added_positions(self.config, layout, dict(self.named_parameters(recurse=False)))
        return sequence if added is None else sequence + added
