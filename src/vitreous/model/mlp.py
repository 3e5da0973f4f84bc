"""What follows attention in a block: two dense layers with an activation between them, or its gated form."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitreous.model.config import ViTConfig


def gelu_tanh(values: Tensor) -> Tensor:
    """GELU's tanh approximation, at most 4.8e-4 off. Source: Hendrycks & Gimpel 2016, arXiv 1606.08415, section 2."""
    return F.gelu(values, approximate="tanh")


def quick_gelu(values: Tensor) -> Tensor:
    """GELU's approximation x * sigmoid(1.702 x), at most 0.021 off. Source: the same section; OpenAI's CLIP."""
    return values * torch.sigmoid(1.702 * values)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu-tanh": gelu_tanh,
    "quick-gelu": quick_gelu,
}


class Mlp(nn.Module):
    """Two dense layers with a GELU between them. The paper's code has GELU's tanh approximation."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.mlp_width)
        self.fc2 = nn.Linear(config.mlp_width, config.width)
        self.drop = nn.Dropout(config.dropout)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, sequence: Tensor) -> Tensor:
        """(batch, tokens, width) -> the same shape."""
        return self.drop(self.fc2(self.drop(self.activation(self.fc1(sequence)))))


class GatedMlp(nn.Module):
    """SwiGLU: silu(x W) * (x V), then a dense layer. Source: Shazeer 2020, arXiv 2002.05202, equation 6.

    W and V are the two halves of `fc1`, W first.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, 2 * config.mlp_width)
        self.fc2 = nn.Linear(config.mlp_width, config.width)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, sequence: Tensor) -> Tensor:
        """(batch, tokens, width) -> the same shape."""
        gate, hidden = self.fc1(sequence).chunk(2, dim=-1)  # each (batch, tokens, mlp_width)
        return self.drop(self.fc2(self.drop(F.silu(gate) * hidden)))


def mlp(config: ViTConfig) -> nn.Module:
    """The one that the config asks for."""
    return GatedMlp(config) if config.gated_mlp else Mlp(config)
