"""Prefix mass: how much of the patches' attention goes to the class token and the registers."""

from __future__ import annotations

from torch import Tensor

from vitreous.capture.operator import AttentionOperator
from vitreous.measures.moments import HeadMoments
from vitreous.tokens import TokenLayout


class PrefixMass:
    """Share of a patch's attention that goes to prefix tokens; a mean over patches, then over images; for every head.

    0 where patches attend to patches alone (always, where there is no prefix); prefix / tokens where attention is
    uniform. Read it beside the attention distance, from which this share is missing.

    Source: row sums over the matrix's first columns; that class tokens and registers can take large ones is Darcet et
    al. 2024, arXiv 2309.16588.
    """

    def __init__(self) -> None:
        self.moments = HeadMoments()

    def update(self, layer: int, operator: AttentionOperator, layout: TokenLayout) -> None:
        """Takes one layer of a batch of images."""
        rows = operator.statistics(layout.token_distances, layout.prefix)
        self.moments.update(layer, layout.patch_tokens(rows.prefix_mass).mean(-1))

    def merge(self, other: PrefixMass) -> None:
        """Takes what another process saw."""
        self.moments.merge(other.moments)

    def result(self) -> Tensor:
        """(layers, heads), in [0, 1]."""
        return self.moments.mean()
