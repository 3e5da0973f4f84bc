"""Attention rollout: which patches reach the read-out token, all layers taken together (figure 6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from vitreous.capture.operator import AttentionOperator
from vitreous.errors import ConfigError, NumericError, ShapeError
from vitreous.tokens import TokenLayout

Fusion = Literal["mean", "max", "min"]
Token = int | Literal["class", "mean", "auto"]

QUERIES_AT_ONCE = 128


def attention_rollout(
    operators: Sequence[AttentionOperator],
    layout: TokenLayout,
    *,
    token: Token = "auto",
    heads: Fusion = "mean",
    residual: float = 0.5,
) -> Tensor:
    """Share of every token of the input in one output token, after all layers.

    A row vector is pulled from the last layer down to the first,

        r <- residual * r + (1 - residual) * r @ A,        A = the layer's attention, heads fused

    which is that token's row of the product A_L ... A_1 of Abnar & Zuidema without the product ever being made.
    Only the token itself where every token attends to itself alone; with uniform attention in L layers and
    residual 1/2 every other token has (1 - 2^-L) / tokens.

    Args:
        operators: one for each layer, first layer first.
        layout: which token is which.
        token: the output token: an index, "class", "mean" (the patches alike), or "auto": the class token if there is
            one, else the mean, as the model reads out.
        heads: how heads become one matrix. "mean" is the paper's; "max" and "min" take each entry's largest or smallest
            head and rescale rows to sum to 1.
        residual: weight of the skip connection, in [0, 1); 1/2 is the paper's.

    Returns:
        (batch, tokens); sums to 1.

    Raises:
        ConfigError: if residual, heads or token is not one of the above.
        ShapeError: if the layers do not fit the layout.
        NumericError: if heads are fused by "min" and have no key in common.

    Source: Abnar & Zuidema 2020, arXiv 2005.00928, equation 1 and appendix A.1; heads fused as in the ViT paper, D.8.
    """
    if not 0 <= residual < 1:
        raise ConfigError(f"residual is {residual}; it must be at least 0 and less than 1")
    if heads not in ("mean", "max", "min"):
        raise ConfigError(f"heads is {heads!r}; choose mean, max or min")
    if not operators:
        raise ShapeError("rollout needs the operators of at least one layer")
    reached = read_out(layout, token)[None].repeat(operators[0].shape[0], 1).to(operators[0].device)
    for operator in reversed(operators):
        if operator.shape[2:] != (layout.tokens, layout.tokens):
            raise ShapeError(f"a layer attends among {operator.shape[2:]} tokens, the layout has {layout.tokens}")
        if heads == "mean":  # asked for with the statistics of the rows, so that one pass over the scores makes both
            rows = operator.statistics(layout.token_distances, layout.prefix, pull=reached[:, None])
            assert rows.pulled is not None
            passed = rows.pulled.mean(1).to(reached)  # (batch, tokens)
        else:
            passed = _pull_fused(operator, reached, heads)
        reached = residual * reached + (1 - residual) * passed
    return reached


def read_out(layout: TokenLayout, token: Token = "auto") -> Tensor:
    """Weights of the tokens that the model reads out: (tokens,), sum 1.

    Args:
        layout: which token is which.
        token: as in `attention_rollout`.

    Raises:
        ConfigError: if there is no such token.
    """
    weights = torch.zeros(layout.tokens)
    if token == "auto":
        token = "mean" if layout.class_token is None else "class"
    if token == "mean":
        weights[layout.prefix :] = 1 / layout.patches
    elif token == "class" and layout.class_token is not None:
        weights[layout.class_token] = 1
    elif isinstance(token, int) and 0 <= token < layout.tokens:
        weights[token] = 1
    else:
        has = "no class token" if layout.class_token is None else "a class token"
        raise ConfigError(
            f"token is {token!r}; this layout has {has} and tokens 0 to {layout.tokens - 1}\n"
            'choose "auto", "mean", "class" or an index'
        )
    return weights


def _pull_fused(operator: AttentionOperator, reached: Tensor, heads: Fusion) -> Tensor:
    """The same through heads that are fused entry by entry, a few rows at a time."""
    passed = torch.zeros_like(reached)
    for some in torch.arange(operator.shape[2]).split(QUERIES_AT_ONCE):
        rows = operator.rows(some)  # (batch, heads, some, tokens)
        fused = rows.amax(1) if heads == "max" else rows.amin(1)
        total = fused.sum(-1, keepdim=True)
        if not bool((total > 0).all()):
            raise NumericError(
                'a query has no key that all heads look at, so heads="min" leaves nothing\nuse "mean" or "max"'
            )
        fused = fused / total
        passed += (reached[:, None, some.to(reached.device)].to(fused) @ fused)[:, 0].to(passed)
    return passed
