"""Attention entropy: over how many tokens each head spreads, in bits."""

from __future__ import annotations

import math

from torch import Tensor

from vitreous.capture.operator import RowStatistics
from vitreous.tokens import TokenLayout


def attention_entropy(rows: RowStatistics, layout: TokenLayout) -> Tensor:
    """Entropy of each query's attention over all keys, in bits: (..., tokens).

    0 where a query attends to one key; log2(tokens) where it attends to all alike.

    Source: Shannon's entropy, -sum_j A[i, j] log2 A[i, j], of each row of the attention matrix.
    """
    return rows.entropy


def highest_entropy(layout: TokenLayout) -> float:
    """Entropy of uniform attention, the largest there is, in bits."""
    return math.log2(layout.tokens)
