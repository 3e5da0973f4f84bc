"""softmax(q k^T / sqrt(head_dim) + bias) v, by whichever kernel is fastest where it runs."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

FEW_TOKENS = 256
"""Up to so many, products written out are faster than the fused kernel's backward pass in bfloat16 on a CPU: with 65
tokens 9 ms in place of 66 for forward and backward of 512 heads on two cores, which made training twice as fast."""


def attend(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
    """Equations 6 and 7: each (batch, heads, tokens, head_dim) -> the same shape.

    Torch's fused kernel, but for training with few tokens in bfloat16 on a CPU, where the products are written out.
    There the scores, too, are rounded to bfloat16.

    Args:
        queries: of each head.
        keys: of each head.
        values: of each head.
        bias: added to the scores, (batch or 1, heads, queries, keys), or None.
    """
    if not _is_slow_when_fused(queries):
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
    scaled = queries.bfloat16().contiguous() / math.sqrt(queries.shape[-1])
    scores = scaled @ keys.bfloat16().contiguous().transpose(-1, -2)  # (batch, heads, queries, keys)
    weights = torch.softmax(scores if bias is None else scores + bias, dim=-1)
    return weights.bfloat16() @ values.bfloat16().contiguous()


def _is_slow_when_fused(queries: Tensor) -> bool:
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else queries.dtype
    is_half = queries.device.type == "cpu" and dtype == torch.bfloat16
    return is_half and queries.shape[-2] <= FEW_TOKENS and torch.is_grad_enabled() and queries.requires_grad
