"""Multihead attention pooling: one learned query looks at many tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitreous.model.config import ViTConfig
from vitreous.model.mlp import mlp


class AttentionPooling(nn.Module):
    """The vector that one learned query gathers, and an MLP beside it.

    Source: the MAP head of Zhai et al. 2022, arXiv 2106.04560, section 3.3; parameters have timm's names.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.latent = nn.Parameter(torch.empty(1, 1, width))
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.mlp = mlp(config)

    def forward(self, sequence: Tensor) -> Tensor:
        """(batch, tokens, width) -> (batch, width)."""
        query = self.q(self.latent).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (1, heads, 1, head_dim)
        split = self.kv(sequence).unflatten(-1, (2, self.heads, -1))  # (batch, tokens, 2, heads, head_dim)
        keys, values = split.permute(2, 0, 3, 1, 4)  # each (batch, heads, tokens, head_dim)
        gathered = F.scaled_dot_product_attention(query.expand(len(keys), -1, -1, -1), keys, values)
        pooled = self.proj(gathered.transpose(1, 2).flatten(2))  # (batch, 1, width)
        return (pooled + self.mlp(self.norm(pooled))).squeeze(1)
