"""The Vision Transformer of Dosovitskiy et al. 2021 (arXiv 2010.11929), equations 1 to 4, top to bottom.

    z_0  = [x_class; x_1 E; x_2 E; ... x_N E] + E_pos         (1)   VisionTransformer.tokens
    z'_l = MSA(LN(z_{l-1})) + z_{l-1}                         (2)   Block
    z_l  = MLP(LN(z'_l)) + z'_l                               (3)   Block
    y    = LN(z_L^0)                                          (4)   VisionTransformer.read_out

Parameters have timm's names, so that weights move between the two as they are.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitreous.errors import ShapeError
from vitreous.model.config import ViTConfig
from vitreous.model.first_weights import draw_first_weights
from vitreous.model.positions import resample_positions
from vitreous.tokens import TokenLayout


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

    def __init__(self, config: ViTConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.provenance = {}
        width = config.width
        with torch.device("meta"):  # no layer draws weights of its own
            self.patch_embed = PatchEmbedding(config)
            self.cls_token = nn.Parameter(torch.empty(1, 1, width)) if config.class_token else None
            self.reg_token = nn.Parameter(torch.empty(1, config.registers, width)) if config.registers else None
            learned = config.positions == "learned"
            self.pos_embed = nn.Parameter(torch.empty(1, config.tokens, width)) if learned else None
            self.pos_drop = nn.Dropout(config.dropout)
            self.blocks = nn.ModuleList(Block(config, rate) for rate in _drop_path_rates(config))
            after = config.has_norm_after_pooling
            self.norm = nn.Identity() if after else nn.LayerNorm(width, eps=config.norm_eps)
            self.fc_norm = nn.LayerNorm(width, eps=config.norm_eps) if after else nn.Identity()
            self.pre_logits = nn.Linear(width, width) if config.hidden_head else None
            self.head = nn.Linear(width, config.classes) if config.classes else None
        self.to_empty(device=torch.get_default_device())
        draw_first_weights(self, config.layer_scale, generator)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of each image: (batch, channels, image_height, image_width) -> (batch, classes).

        Without a head the pooled features: (batch, width).

        Raises:
            ShapeError: if the images' channels or sizes do not fit.
        """
        return self.classify(self.read_out(self.forward_features(images)))

    def forward_features(self, images: Tensor) -> Tensor:
        """Tokens after the last block, (batch, tokens, width); normalised, unless pooling comes first."""
        sequence = self.tokens(images)
        for block in self.blocks:
            sequence = block(sequence)
        return self.norm(sequence)

    def tokens(self, images: Tensor) -> Tensor:
        """What the first block sees, (batch, tokens, width): class token, registers, patches. Equation 1."""
        self._check(images)
        layout = self.layout(*images.shape[-2:])
        patches = self.patch_embed(images)  # (batch, patches, width)
        prefix = [token for token in (self.cls_token, self.reg_token) if token is not None]
        sequence = torch.cat([*(token.expand(len(images), -1, -1) for token in prefix), patches], dim=1)
        if self.pos_embed is not None:
            made_for = (self.config.rows, self.config.columns)
            grid = (layout.rows, layout.columns)
            sequence = sequence + resample_positions(self.pos_embed, made_for, grid, layout.prefix)
        return self.pos_drop(sequence)

    def read_out(self, sequence: Tensor) -> Tensor:
        """One vector for each image, (batch, tokens, width) -> (batch, width), normalised. Equation 4.

        `class`: the class token. `mean`: the mean of the patch tokens; prefix tokens are not counted.
        """
        if self.config.pooling == "class":
            pooled = sequence[:, 0]
        else:
            pooled = sequence[:, self.config.prefix :].mean(dim=1)
        return self.fc_norm(pooled)

    def classify(self, features: Tensor) -> Tensor:
        """Logits, (batch, width) -> (batch, classes); through a hidden tanh layer before, in pre-training."""
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

    def _check(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != self.config.channels:
            raise ShapeError(
                f"images are {tuple(images.shape)}; this model takes "
                f"(batch, {self.config.channels}, image_height, image_width)"
            )


class PatchEmbedding(nn.Module):
    """x_p E: one linear map of each patch's pixels, patches in rows. Part of equation 1."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        size = config.patch_size
        self.proj = nn.Conv2d(config.channels, config.width, size, stride=size, bias=config.patch_bias)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, image_height, image_width) -> (batch, patches, width)."""
        return self.proj(images).flatten(2).transpose(1, 2)


class Block(nn.Module):
    """One layer of the encoder: equations 2 and 3."""

    def __init__(self, config: ViTConfig, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attn = Attention(config)
        self.ls1 = _layer_scale(config)
        self.norm2 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = Mlp(config)
        self.ls2 = _layer_scale(config)
        self.drop_path = DropPath(drop_path)

    def forward(self, sequence: Tensor) -> Tensor:
        """(batch, tokens, width) -> the same shape."""
        sequence = sequence + self.drop_path(self.ls1(self.attn(self.norm1(sequence))))
        return sequence + self.drop_path(self.ls2(self.mlp(self.norm2(sequence))))


class Attention(nn.Module):
    """Multi-head self-attention: softmax(q k^T / sqrt(head_dim)) v in each head. Equations 5 to 8."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=config.qkv_bias)
        self.proj = nn.Linear(config.width, config.width)
        self.proj_drop = nn.Dropout(config.dropout)

    def forward(self, sequence: Tensor) -> Tensor:
        """(batch, tokens, width) -> the same shape."""
        split = self.qkv(sequence).unflatten(-1, (3, self.heads, -1))  # (batch, tokens, 3, heads, head_dim)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)  # each (batch, heads, tokens, head_dim)
        mixed = F.scaled_dot_product_attention(queries, keys, values)
        return self.proj_drop(self.proj(mixed.transpose(1, 2).flatten(2)))


class Mlp(nn.Module):
    """Two dense layers with an exact GELU between them. The paper's code has GELU's tanh approximation."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.mlp_width)
        self.fc2 = nn.Linear(config.mlp_width, config.width)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, sequence: Tensor) -> Tensor:
        """(batch, tokens, width) -> the same shape."""
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(sequence)))))


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


def _layer_scale(config: ViTConfig) -> nn.Module:
    return nn.Identity() if config.layer_scale is None else LayerScale(config.width)


def _drop_path_rates(config: ViTConfig) -> list[float]:
    """Rate of each block: 0 in the first, growing evenly to the config's in the last."""
    last = max(config.depth - 1, 1)
    return [config.drop_path * layer / last for layer in range(config.depth)]
