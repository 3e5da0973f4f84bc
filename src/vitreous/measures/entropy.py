"""Attention entropy: over how many tokens each head spreads, in bits."""

from __future__ import annotations

from torch import Tensor

from vitreous.capture.operator import AttentionOperator
from vitreous.measures.moments import HeadMoments
from vitreous.tokens import TokenLayout


class AttentionEntropy:
    """Entropy of a query's attention over all keys, in bits; a mean over all queries, then over images; for every head.

    0 where each query attends to one key; log2(tokens) where it attends to all alike.

    Source: Shannon's entropy, -sum_j A[i, j] log2 A[i, j], of each row of the attention matrix.
    """

    def __init__(self) -> None:
        self.moments = HeadMoments()

    def update(self, layer: int, operator: AttentionOperator, layout: TokenLayout) -> None:
        """Takes one layer of a batch of images."""
        rows = operator.statistics(layout.token_distances, layout.prefix)
        self.moments.update(layer, rows.entropy.mean(-1))

    def merge(self, other: AttentionEntropy) -> None:
        """Takes what another process saw."""
        self.moments.merge(other.moments)

    def result(self) -> Tensor:
        """(layers, heads), bits."""
        return self.moments.mean()
