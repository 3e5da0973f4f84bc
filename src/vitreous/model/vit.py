"""The Vision Transformer of Dosovitskiy et al. 2021 (arXiv 2010.11929), equations 1 to 4, top to bottom.

    z_0  = [x_class; x_1 E; x_2 E; ... x_N E] + E_pos         (1)   VisionTransformer.tokens
    z'_l = MSA(LN(z_{l-1})) + z_{l-1}                         (2)   Block
    z_l  = MLP(LN(z'_l)) + z'_l                               (3)   Block
    y    = LN(z_L^0)                                          (4)   VisionTransformer.read_out

Parameters have timm's names, so that weights move between the two as they are. What other Vision Transformers add to
the paper stands beside this page: `stem`, `positions`, `mlp`, `pooling`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitreous.errors import ShapeError
from vitreous.model.added_positions import (
    COLUMNS,
    ONE_TABLE,
    ROWS,
    LayerPositions,
    added_positions,
    fixed_positions,
    position_tables,
)
from vitreous.model.attend import attend
from vitreous.model.config import ViTConfig
from vitreous.model.first_weights import draw_first_weights
from vitreous.model.mlp import mlp
from vitreous.model.pooling import AttentionPooling
from vitreous.model.positions import patch_offsets, resample_offsets, rotate, rotation, sequence_offsets
from vitreous.model.stem import ResNetStem
from vitreous.tokens import TokenLayout

Change = Callable[[Tensor], Tensor]


class VisionTransformer(nn.Module):
    """Class logits of images; see the head of this file.

    Images of another size than the config's are taken as they are, if patches fit: positions are resampled.

    Args:
        config: the architecture.
        generator: where the first weights are drawn from, on the weights' device; torch's global one if None.
            Nothing else is drawn.
    """

    provenance: dict[str, Any]
    """Where the weights come from; empty for a new model."""
    pos_embed: Tensor | None
    """(1, tokens, width); None where equation 1 adds no positions, or they are learned by row and column."""

    def __init__(self, config: ViTConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.provenance = {}
        width = config.width
        with torch.device("meta"):  # no layer draws weights of its own
            self.patch_embed = PatchEmbedding(config)
            self.cls_token = _tokens(config.class_token, width)
            self.dist_token = _tokens(config.distillation, width)
            self.reg_token = _tokens(config.registers, width)
            self._make_position_tables()
            self.pos_drop = nn.Dropout(config.dropout)
            self.norm_pre = _norm(config) if config.norm_before_blocks else nn.Identity()
            self.blocks = nn.ModuleList(Block(config, rate) for rate in _drop_path_rates(config))
            after = config.has_norm_after_pooling
            self.norm = nn.Identity() if after else _norm(config)
            self.attn_pool = AttentionPooling(config) if config.pooling == "map" else None
            self.fc_norm = nn.LayerNorm(config.features, eps=config.norm_eps) if after else nn.Identity()
            self.pre_logits = nn.Linear(config.features, width) if config.hidden_head else None
            read = width if config.hidden_head else config.features
            self.head = nn.Linear(read, config.classes) if config.classes else None
            self.head_dist = nn.Linear(read, config.classes) if config.classes and config.distillation else None
        device = torch.get_default_device()
        if device.type != "meta":  # there it is a shell to be filled; torch takes a second to draw nothing into it
            self.to_empty(device=device)
            draw_first_weights(self, config.layer_scale, generator)
        if config.positions == "sincos-2d":
            self.pos_embed = fixed_positions(config, self.layout()).to(self.patch_embed.proj.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of each image: (batch, channels, image_height, image_width) -> (batch, classes).

        Without a head the pooled features: (batch, width).

        Raises:
            ShapeError: if the images' channels or sizes do not fit.
        """
        return self.classify(self.read_out(self.forward_features(images)))

    def forward_features(self, images: Tensor, change_patches: Change | None = None) -> Tensor:
        """Tokens after the last block, (batch, tokens, width); normalised, unless pooling comes first.

        For `change_patches` see `tokens`.
        """
        sequence = self.norm_pre(self.tokens(images, change_patches))
        place = self._place(self.layout(*images.shape[-2:]), images.device)
        for layer, block in enumerate(self.blocks):
            sequence = block(self._with_positions(sequence, layer, place.layout), place)
        return self.norm(sequence)

    def tokens(self, images: Tensor, change_patches: Change | None = None) -> Tensor:
        """What the first block sees, (batch, tokens, width): class token, registers, patches. Equation 1.

        Embedded patches, (batch, patches, width), go through `change_patches` before their positions are added.
        """
        self._check(images)
        layout = self.layout(*images.shape[-2:])
        patches = self.patch_embed(images)  # (batch, patches, width)
        if change_patches is not None:
            patches = change_patches(patches)
        prefix = [token for token in (self.cls_token, self.dist_token, self.reg_token) if token is not None]
        sequence = torch.cat([*(token.expand(len(images), -1, -1) for token in prefix), patches], dim=1)
        tables = {name: getattr(self, name, None) for name in (ONE_TABLE, ROWS, COLUMNS)}
        positions = added_positions(self.config, layout, tables)
        if positions is not None:
            sequence = sequence + positions
        return self.pos_drop(sequence)

    def read_out(self, sequence: Tensor) -> Tensor:
        """One vector for each image, (batch, tokens, width) -> (batch, features), normalised. Equation 4.

        `class`: the class token. `mean`: the mean of the patch tokens; prefix tokens are not counted. `class+mean`:
        one behind the other. `map`: what a learned query gathers from the patch tokens. With distillation there are
        two vectors for each image, (batch, 2, width): of the class token and of the distillation token.
        """
        if self.attn_pool is not None:
            return self.fc_norm(self.attn_pool(sequence[:, self.config.prefix :]))
        if self.config.distillation:
            return self.fc_norm(sequence[:, :2])
        pooled = []
        if "class" in self.config.pooling:
            pooled.append(sequence[:, 0])
        if "mean" in self.config.pooling:
            pooled.append(sequence[:, self.config.prefix :].mean(dim=1))
        return self.fc_norm(torch.cat(pooled, dim=-1))

    def classify(self, features: Tensor) -> Tensor:
        """Logits, (batch, features) -> (batch, classes); through a hidden tanh layer before, in pre-training.

        With distillation the mean of both heads' logits; without any head the mean of both vectors.
        """
        if self.config.distillation:
            both = features.unbind(dim=1)  # class token, distillation token: each (batch, width)
            if self.head is not None and self.head_dist is not None:
                both = self.head(both[0]), self.head_dist(both[1])
            return (both[0] + both[1]) / 2
        if self.head is None:
            return features
        if self.pre_logits is not None:
            features = torch.tanh(self.pre_logits(features))
        return self.head(features)

    def layout(self, image_height: int | None = None, image_width: int | None = None) -> TokenLayout:
        """Which token is which, for images of this many pixels; of the config's size where not given.

        Raises:
            ShapeError: if patches do not fit into such an image.
        """
        config = self.config
        height = config.image_size[0] if image_height is None else image_height
        width = config.image_size[1] if image_width is None else image_width
        patch_height, patch_width = config.patch_size
        if height < patch_height or width < patch_width or height % patch_height or width % patch_width:
            raise ShapeError(
                f"an image of {height} x {width} pixels does not divide into patches of "
                f"{patch_height} x {patch_width}; crop or resize it to multiples of these"
            )
        return TokenLayout(
            prefix=config.prefix,
            rows=height // patch_height,
            columns=width // patch_width,
            patch_height=patch_height,
            patch_width=patch_width,
            class_token=0 if config.class_token else None,
        )

    def _make_position_tables(self) -> None:
        config = self.config
        if config.positions == "sincos-2d":
            self.register_buffer(ONE_TABLE, None)  # filled once all weights have a place
        else:
            self.register_parameter(ONE_TABLE, None)
        if config.positions_at == "stem":
            for name, table in position_tables(config).items():
                self.register_parameter(name, table)
        self.layer_positions = nn.ModuleList(LayerPositions(config) for _ in range(config.layer_tables))

    def _with_positions(self, sequence: Tensor, layer: int, layout: TokenLayout) -> Tensor:
        """What a layer starts with, (batch, tokens, width): the tokens, and positions where these come before it."""
        if not self.layer_positions:
            return sequence
        of_layer = self.layer_positions[0 if self.config.positions_at == "layers-shared" else layer]
        positioned: Tensor = of_layer(sequence, layout)
        return positioned

    def _place(self, layout: TokenLayout, device: torch.device) -> Place:
        """Where the tokens lie, for blocks whose attention asks."""
        config = self.config
        if config.positions != "rope":
            return Place(layout, None)
        return Place(layout, rotation(layout.rows, layout.columns, config.head_dim, config.rope_base).to(device))

    def _check(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != self.config.channels:
            raise ShapeError(
                f"images are {tuple(images.shape)}; this model takes "
                f"(batch, {self.config.channels}, image_height, image_width)"
            )


class Place(NamedTuple):
    """Where the tokens of one forward pass lie: which is which, and the turn of each, where positions are turns."""

    layout: TokenLayout
    rotation: Tensor | None

    def turn(self, tokens: Tensor) -> Tensor:
        """Queries or keys, (batch, heads, tokens, head_dim), turned by their place where positions are turns."""
        return tokens if self.rotation is None else rotate(tokens, self.rotation, self.layout.prefix)


class PatchEmbedding(nn.Module):
    """x_p E: one linear map of each patch, patches in rows. Part of equation 1.

    A patch is pixels, or a piece of a ResNet's feature map (section 3.1, hybrid architecture).
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        channels, kernel, width = config.stem_channels, config.patch_kernel, config.width
        self.backbone: nn.Module = nn.Identity()
        if config.stem is not None:
            self.backbone = ResNetStem(
                config.stem, config.stem_width, config.channels, config.stem_root, config.stem_constants
            )
        self.pixel_norm = PixelNorm(config) if config.patch_norms else nn.Identity()
        self.proj = nn.Conv2d(channels, width, kernel, stride=kernel, bias=config.patch_bias)
        self.norm = _norm(config) if config.patch_norms else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, image_height, image_width) -> (batch, patches, width)."""
        return self.norm(self.proj(self.pixel_norm(self.backbone(images))).flatten(2).transpose(1, 2))


class PixelNorm(nn.LayerNorm):
    """A LayerNorm over the pixels of each patch, the image left in its shape. Source: vit-pytorch."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config.channels * math.prod(config.patch_size), eps=config.norm_eps)
        self.patch_size = config.patch_size

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, image_height, image_width) -> the same shape."""
        height, width = self.patch_size
        cut = images.unflatten(3, (-1, width)).unflatten(2, (-1, height))
        patches = cut.permute(0, 2, 4, 1, 3, 5)  # (batch, rows, columns, channels, height, width)
        normed = super().forward(patches.flatten(3)).view(patches.shape)
        return normed.permute(0, 3, 1, 4, 2, 5).reshape(images.shape)


class Block(nn.Module):
    """One layer of the encoder: equations 2 and 3."""

    def __init__(self, config: ViTConfig, drop_path: float) -> None:
        super().__init__()
        self.norm1 = _norm(config)
        self.attn = Attention(config)
        self.ls1 = _layer_scale(config)
        self.norm2 = _norm(config)
        self.mlp = mlp(config)
        self.ls2 = _layer_scale(config)
        self.drop_path = DropPath(drop_path)

    def forward(self, sequence: Tensor, place: Place | None = None) -> Tensor:
        """(batch, tokens, width) -> the same shape; only rotary and relative positions ask for a place."""
        sequence = sequence + self.drop_path(self.ls1(self.attn(self.norm1(sequence), place)))
        return sequence + self.drop_path(self.ls2(self.mlp(self.norm2(sequence))))


class Attention(nn.Module):
    """Multi-head self-attention: softmax(q k^T / sqrt(head_dim)) v in each head. Equations 5 to 8."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        heads, width = config.heads, config.all_heads
        self.config = config
        self.qkv = nn.Linear(config.width, 3 * width, bias=config.qkv_bias)
        self.q_norm = nn.LayerNorm(config.head_dim, eps=config.norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(config.head_dim, eps=config.norm_eps) if config.qk_norm else nn.Identity()
        self.proj = nn.Linear(width, config.width)
        self.proj_drop = nn.Dropout(config.dropout)
        if config.positions == "relative":
            self.relative_keys = nn.Parameter(torch.empty(2 * config.tokens - 1, width))
        if config.positions == "relative-bias":
            offsets = (2 * config.rows - 1) * (2 * config.columns - 1) + 3 * (config.prefix > 0)
            self.relative_position_bias_table = nn.Parameter(torch.empty(offsets, heads))

    def forward(self, sequence: Tensor, place: Place | None = None) -> Tensor:
        """(batch, tokens, width) -> the same shape."""
        split = self.qkv(sequence).unflatten(-1, (3, self.config.heads, -1))  # (batch, tokens, 3, heads, head_dim)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)  # each (batch, heads, tokens, head_dim)
        queries, keys = self.q_norm(queries), self.k_norm(keys)
        bias = None
        if self.config.positions in ("rope", "relative", "relative-bias"):
            if place is None:
                raise ShapeError(f"positions {self.config.positions!r} need a place; call the model, not its block")
            queries, keys = place.turn(queries), place.turn(keys)
            bias = self._bias(queries, place.layout)
        mixed = attend(queries, keys, values, bias)
        return self.proj_drop(self.proj(mixed.transpose(1, 2).flatten(2)))

    def _bias(self, queries: Tensor, layout: TokenLayout) -> Tensor | None:
        """What relative positions add to the scores, (batch or 1, heads, queries, keys)."""
        config = self.config
        made_for, grid = (config.rows, config.columns), (layout.rows, layout.columns)
        if config.positions == "relative-bias":
            table = resample_offsets(self.relative_position_bias_table, made_for, grid, layout.prefix)
            offsets = patch_offsets(*grid, layout.prefix).to(table.device)  # (queries, keys)
            scores = table[offsets.flatten()].unflatten(0, offsets.shape)  # (queries, keys, heads)
            return scores.permute(2, 0, 1)[None].to(queries.dtype)
        if config.positions == "relative":
            if grid != made_for:
                raise ShapeError(
                    f"the image has {grid[0]} x {grid[1]} patches; keys for distances along the sequence were learned "
                    f"for {made_for[0]} x {made_for[1]} and have no meaning elsewhere; resize the image"
                )
            offsets = sequence_offsets(layout.tokens).to(queries.device)  # (queries, keys)
            keys = self.relative_keys.unflatten(-1, (config.heads, -1)).transpose(0, 1)  # (heads, offsets, head_dim)
            scores = queries @ keys.transpose(-1, -2) / math.sqrt(config.head_dim)  # (batch, heads, queries, offsets)
            return scores.gather(-1, offsets.expand(*scores.shape[:2], -1, -1))
        return None


class LayerScale(nn.Module):
    """A learned factor for each channel. Source: Touvron et al. 2021, arXiv 2103.17239, equation 3."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(width))

    def forward(self, branch: Tensor) -> Tensor:
        """(..., width) -> the same shape."""
        return branch * self.gamma


class DropPath(nn.Module):
    """Leaves out a block's branch for some images while training; the others are scaled up to keep the mean.

    Source: stochastic depth, Huang et al. 2016, arXiv 1603.09382, drawn for each image.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """(batch, tokens, width) -> the same shape."""
        if not self.training or not self.rate:
            return branch
        kept = branch.new_empty(len(branch), 1, 1).bernoulli_(1 - self.rate)
        return branch * kept / (1 - self.rate)


def _norm(config: ViTConfig) -> nn.LayerNorm:
    return nn.LayerNorm(config.width, eps=config.norm_eps)


def _tokens(count: int, width: int) -> nn.Parameter | None:
    """So many learned tokens, (1, count, width)."""
    return nn.Parameter(torch.empty(1, int(count), width)) if count else None


def _layer_scale(config: ViTConfig) -> nn.Module:
    return nn.Identity() if config.layer_scale is None else LayerScale(config.width)


def _drop_path_rates(config: ViTConfig) -> list[float]:
    """Rate of each block: 0 in the first, growing evenly to the config's in the last."""
    last = max(config.depth - 1, 1)
    return [config.drop_path * layer / last for layer in range(config.depth)]
