"""Prefix mass: how much of the patches' attention goes to the class token and the registers."""

from __future__ import annotations

from torch import Tensor

from vitreous.capture.operator import RowStatistics
from vitreous.tokens import TokenLayout


def prefix_mass(rows: RowStatistics, layout: TokenLayout) -> Tensor:
    """Share of each patch's attention that goes to prefix tokens, in [0, 1]: (..., patches).

    0 where patches attend to patches alone (always, where there is no prefix); prefix / tokens where attention is
    uniform. Read it beside the attention distance, from which this share is missing.

    Source: row sums over the matrix's first columns; that class tokens and registers can take large ones is Darcet et
    al. 2024, arXiv 2309.16588.
    """
    return layout.patch_tokens(rows.prefix_mass)
