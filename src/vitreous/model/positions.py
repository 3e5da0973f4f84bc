"""Where a token stands, in every form that Vision Transformers have learned, computed or compared it.

A vector added to the token: `resample_positions` moves learned ones to another grid, `sincos_positions` computes them.
A turn of queries and keys: `rotation`, `rotate`. A number for each pair of tokens: `sequence_offsets`, `patch_offsets`
say which entry of a learned table belongs to a pair, `resample_offsets` moves such a table to another grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Literal, ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.errors import ConfigError, ShapeError
from vitreous.model.config import Resampling

Grid = tuple[int, int]
Arguments = ParamSpec("Arguments")


@dataclass(frozen=True)
class Rule:
    """How one library moves learned positions to another grid.

    Attributes:
        mode: `bilinear`, or `bicubic`. Torch's bicubic has another kernel with antialiasing (a = -0.5) than without
            (a = -0.75), also where the grid grows.
        antialias: whether the kernel widens when the grid shrinks.
        align_corners: whether the corner patches stay at the corners; if not, the patches' outer edges do.
        excess: patches that the new grid is taken to be longer than it is, along each axis: all places shift a little.
    """

    mode: Literal["bilinear", "bicubic"]
    antialias: bool = False
    align_corners: bool = False
    excess: float = 0.0


RULES: dict[Resampling, Rule] = {
    "timm": Rule("bicubic", antialias=True),
    "timm-npz": Rule("bilinear"),
    "open_clip": Rule("bicubic", antialias=True),
    "google": Rule("bilinear", align_corners=True),
    "flexivit": Rule("bilinear", antialias=True),
    "transformers": Rule("bicubic"),
    "transformers-registers": Rule("bicubic", antialias=True),
    "siglip2": Rule("bilinear", antialias=True),
    "torchvision": Rule("bicubic", align_corners=True),
    "dino": Rule("bicubic", excess=0.1),
    "dinov2": Rule("bicubic", excess=0.1),
    "dinov2-registers": Rule("bicubic", antialias=True),
    "msn": Rule("bicubic"),
    "deit": Rule("bicubic"),
    "mae": Rule("bicubic"),
    "beit": Rule("bicubic"),
}
"""By the name of the library or model whose rule it is; see `resample_positions` for the sources."""


def resample_positions(table: Tensor, old_grid: Grid, new_grid: Grid, prefix: int, rule: Resampling = "timm") -> Tensor:
    """The position of every token when the image has `new_grid` patches, not `old_grid`.

    The same tensor when the grids are equal: not one bit changes. Prefix tokens have no place in the image
    and keep their rows. Patches are interpolated in two dimensions (Dosovitskiy et al. 2021, section 3.2), in
    float32, as the library does that the weights come from; `RULES` has what each does.

    We differ from sources that know square grids only (Google, transformers, torchvision, DINO, MSN, DeiT, MAE, BEiT,
    open_clip and FlexiViT in part): each axis follows their rule by itself; and a grid of as many patches but another
    form is moved, which MSN, open_clip, MAE and torchvision leave as it is. Where rounding takes Google's last place
    a hair outside the table (24 patches to 22, among others), scipy gives zeros for the last row and column; we give
    the table's.

    Args:
        table: (1, prefix + old rows * old columns, width).
        old_grid: (rows, columns) that the table was made for.
        new_grid: (rows, columns) asked for.
        prefix: tokens before the patches.
        rule: whose.

    Returns:
        (1, prefix + new rows * new columns, width), in the table's dtype.

    Raises:
        ShapeError: if the table does not have `prefix + old rows * old columns` rows.
        ConfigError: if no rule has that name.

    Source: timm `resample_abs_pos_embed`, `timm-npz` as its loader of npz files calls it; open_clip `resize_pos_embed`;
    `google` vision_transformer's `interpolate_posembed` and big_vision's `resample_posemb`, which are
    `scipy.ndimage.zoom(order=1)`; `flexivit` `jax.image.resize` with "linear"; `transformers`
    `interpolate_pos_encoding` of ViT and most others, `transformers-registers` of Dinov2WithRegisters; `siglip2`
    `resize_positional_embeddings`; torchvision `interpolate_embeddings`; `dino`, `dinov2`, `dinov2-registers`, `msn`
    their `interpolate_pos_encoding`; `deit`, `mae`, `beit` their fine-tuning scripts.
    """
    how = _rule(rule)
    tokens = prefix + old_grid[0] * old_grid[1]
    if table.ndim != 3 or table.shape[1] != tokens:
        raise ShapeError(
            f"the position table is {tuple(table.shape)}; for a grid of {old_grid[0]} x {old_grid[1]} "
            f"patches and {prefix} prefix tokens it is (1, {tokens}, width)"
        )
    if old_grid == new_grid:
        return table
    patches = table[:, prefix:].float().unflatten(1, old_grid).permute(0, 3, 1, 2)  # (1, width, rows, columns)
    patches = _move(patches, old_grid, new_grid, how).flatten(2).transpose(1, 2)  # (1, rows * columns, width)
    return torch.cat([table[:, :prefix], patches.to(table.dtype)], dim=1)


def _move(patches: Tensor, old_grid: Grid, new_grid: Grid, how: Rule) -> Tensor:
    """(1, width, *old_grid) -> (1, width, *new_grid)."""
    corners = how.align_corners
    if not how.excess:
        return F.interpolate(patches, new_grid, mode=how.mode, align_corners=corners, antialias=how.antialias)
    scale = [(new + how.excess) / old for new, old in zip(new_grid, old_grid, strict=True)]
    return F.interpolate(patches, scale_factor=scale, mode=how.mode, align_corners=corners, antialias=how.antialias)


def _rule(name: Resampling) -> Rule:
    if name not in RULES:
        raise ConfigError(f"rule is {name!r}; choose one of {', '.join(RULES)}")
    return RULES[name]


def _kept(make: Callable[Arguments, Tensor]) -> Callable[Arguments, Tensor]:
    """Makes the tensor once for the same arguments and hands it out again; nobody may change it.

    Not where a tensor is only a sign for one that a compiler or exporter will make: such a one is useless later.
    """
    keep: Callable[..., Tensor] = lru_cache(maxsize=2)(make)  # offsets of 4,097 tokens are 134 MB

    @wraps(make)
    def kept(*arguments: Arguments.args, **named: Arguments.kwargs) -> Tensor:
        if torch.compiler.is_compiling() or type(torch.empty(0, device="cpu")) is not Tensor:
            return make(*arguments, **named)
        with torch.inference_mode(False):  # a tensor of inference mode cannot be trained with later
            return keep(*arguments, **named)

    return kept


@_kept
def sincos_positions(rows: int, columns: int, width: int) -> Tensor:
    """Fixed positions of patches: sines and cosines of their column, then of their row.

    A quarter of the width is the sine of the column, column * 10000 ** -(i / (width / 4 - 1)) for i = 0, 1, ..., so the
    first turns once in 2 pi patches and the last once in 10000 times as many; the next quarter is the cosine, the
    other half is the same of the row.

    Args:
        rows: patches from top to bottom.
        columns: patches from left to right.
        width: of a token, a multiple of 4 and at least 8.

    Returns:
        (rows * columns, width), float32 on the CPU, from -1 to 1. Shared by all callers: not to be changed.

    Raises:
        ConfigError: if the width cannot be split so.

    Source: big_vision's `posemb_sincos_2d`, which follows MoCo v3.
    """
    if width % 4 or width < 8:
        raise ConfigError(f"width is {width}; sines and cosines of rows and columns need a multiple of 4, at least 8")
    places = torch.arange(width // 4, dtype=torch.float64, device="cpu")
    frequencies = 10_000.0 ** -(places / (width // 4 - 1))  # (width / 4)
    row, column = _places(rows, columns)  # each (rows * columns)
    angles = [place.double()[:, None] * frequencies for place in (column, row)]  # each (rows * columns, width / 4)
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1).float()


@_kept
def rotation(rows: int, columns: int, head_dim: int, base: float) -> Tensor:
    """By how much `rotate` turns each pair of numbers of a query or key: sine and cosine for every patch.

    The image is a square from -1 to 1, whatever its size and form; a patch stands at its centre. A quarter of the
    head's pairs turns with the row, 2 pi row / period, a quarter with the column; periods go from 1 to nearly `base`,
    evenly in their logarithm.

    Args:
        rows: patches from top to bottom.
        columns: patches from left to right.
        head_dim: length of a query, a multiple of 4.
        base: ratio of the longest to the shortest period, 100 in DINOv3.

    Returns:
        (2, rows * columns, head_dim), float32 on the CPU: sine, cosine. Shared by all callers: not to be changed.

    Raises:
        ConfigError: if head_dim is not a multiple of 4.

    Source: DINOv3, arXiv 2508.10104, section 3.2, and its `RopePositionEmbedding`, whose order of operations in
    float32 this has. It shifts and scales the places while training; we do not.
    """
    if head_dim % 4:
        raise ConfigError(f"head_dim is {head_dim}; rows and columns turn pairs of its numbers: a multiple of 4")
    periods = base ** (2 * torch.arange(head_dim // 4, dtype=torch.float32, device="cpu") / (head_dim // 2))
    lengths = torch.tensor([[rows], [columns]], device="cpu")
    centres = 2 * ((torch.stack(_places(rows, columns)) + 0.5) / lengths) - 1  # (row and column, rows * columns)
    angles = (2 * math.pi * centres.T[:, :, None] / periods).flatten(1).tile(2)  # (rows * columns, head_dim)
    return torch.stack([angles.sin(), angles.cos()])


def rotate(tokens: Tensor, turns: Tensor, prefix: int) -> Tensor:
    """Queries or keys turned by their place, so that their product depends on the way from one to the other.

    Number i and number i + head_dim / 2 are the two sides of one pair. Prefix tokens stay as they are.

    Args:
        tokens: (batch, heads, prefix + patches, head_dim).
        turns: (2, patches, head_dim), made by `rotation`, on the tokens' device.
        prefix: tokens before the patches.

    Returns:
        The tokens' shape and dtype; half precision is turned in float32.

    Raises:
        ShapeError: if there are not as many turns as patches.

    Source: DINOv3's `apply_rope`, with the turns in float32 as its published models have them.
    """
    if tokens.shape[-2:] != (prefix + turns.shape[1], turns.shape[2]):
        raise ShapeError(
            f"tokens are {tuple(tokens.shape)}; with {turns.shape[1]} turned patches and {prefix} prefix tokens "
            f"they are (batch, heads, {prefix + turns.shape[1]}, {turns.shape[2]})"
        )
    sine, cosine = turns[:, :, : turns.shape[2] // 2]  # the other half is the same
    first, second = tokens[:, :, prefix:].chunk(2, dim=-1)  # each (batch, heads, patches, head_dim / 2)
    turned = torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
    return torch.cat([tokens[:, :, :prefix], turned.to(tokens.dtype)], dim=2)


@_kept
def sequence_offsets(tokens: int) -> Tensor:
    """How far each token stands behind another along the sequence, counted so that no number is negative.

    Args:
        tokens: all, the prefix included: appendix D.4 sees one line, not an image.

    Returns:
        (queries, keys), int64 on the CPU: query - key + tokens - 1, from 0 to 2 * tokens - 2. Shared by all callers:
        not to be changed.

    Source: Dosovitskiy et al. 2021, appendix D.4; Shaw et al. 2018, arXiv 1803.02155, without its clipping.
    """
    places = torch.arange(tokens, device="cpu")
    return places[:, None] - places + tokens - 1


@_kept
def patch_offsets(rows: int, columns: int, prefix: int) -> Tensor:
    """Which entry of a table of offsets belongs to each pair of tokens.

    The table has (2 * rows - 1) * (2 * columns - 1) entries, for the query's row minus the key's, from 1 - rows to
    rows - 1, and within these for the columns. If there are prefix tokens three more follow, which they share: prefix
    query to patch key, patch query to prefix key, prefix to prefix.

    Args:
        rows: patches from top to bottom.
        columns: patches from left to right.
        prefix: tokens before the patches.

    Returns:
        (queries, keys), prefix first, int64 on the CPU. Shared by all callers: not to be changed.

    Source: BEiT, Bao et al. 2022, arXiv 2106.08254; `modeling_finetune.py`. There the prefix is the class token.
    """
    row, column = _places(rows, columns)
    down = row[:, None] - row + rows - 1  # (patches, patches)
    across = column[:, None] - column + columns - 1
    entries = (2 * rows - 1) * (2 * columns - 1)
    offsets = F.pad(down * (2 * columns - 1) + across, (prefix, 0, prefix, 0))
    offsets[:prefix] = entries
    offsets[:, :prefix] = entries + 1
    offsets[:prefix, :prefix] = entries + 2
    return offsets


def resample_offsets(table: Tensor, old_grid: Grid, new_grid: Grid, prefix: int) -> Tensor:
    """A table of offsets for another grid: bilinear in float32, the outer edges kept, prefix entries as they are.

    The same tensor when the grids are equal.

    Args:
        table: (offsets of the old grid, heads), in the order of `patch_offsets`.
        old_grid: (rows, columns) that the table was made for.
        new_grid: (rows, columns) asked for.
        prefix: tokens before the patches; 0 is a table without the last three entries.

    Returns:
        (offsets of the new grid, heads), in the table's dtype.

    Raises:
        ShapeError: if the table has not as many entries as the old grid has offsets.

    Source: transformers' `BeitRelativePositionBias`, which confuses rows and columns where the old grid is not
    square; we do not. timm and BEiT's own script place the old offsets in a geometric progression, and differ.
    """
    old, new = ((2 * rows - 1, 2 * columns - 1) for rows, columns in (old_grid, new_grid))
    entries = old[0] * old[1] + 3 * (prefix > 0)
    if table.ndim != 2 or len(table) != entries:
        raise ShapeError(
            f"the table of offsets is {tuple(table.shape)}; for a grid of {old_grid[0]} x {old_grid[1]} patches and "
            f"{prefix} prefix tokens it is ({entries}, heads)"
        )
    if old_grid == new_grid:
        return table
    patches = table[: old[0] * old[1]].float().T.unflatten(1, old)[None]  # (1, heads, rows, columns) of offsets
    moved = F.interpolate(patches, new, mode="bilinear", align_corners=False)[0].flatten(1).T
    return torch.cat([moved.to(table.dtype), table[old[0] * old[1] :]])


def _places(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Row and column of every patch, each (rows * columns)."""
    patches = torch.arange(rows * columns, device="cpu")
    return patches // columns, patches % columns
