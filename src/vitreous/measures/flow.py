"""Attention flow: how much can reach the read-out token from each token of the input, all layers taken together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vitreous.capture.operator import DENSE_LIMIT, AttentionOperator
from vitreous.errors import ConfigError, MemoryLimitError, NumericError, ShapeError
from vitreous.measures.flow_solver import INTERIOR, LargestFlow, LayeredGraph, Solver, best_solver
from vitreous.measures.rollout import QUERIES_AT_ONCE, Fusion, Token, read_out
from vitreous.tokens import TokenLayout

MOSTLY = 0.9
"""A map with a larger share of patches at the two ends shows the first layer's column sums and little else."""


@dataclass(frozen=True, eq=False)
class Flow:
    """Attention flow of some images, and what limits it.

    Attributes:
        flow: (batch, tokens) float64 in [0, 1]; the largest flow between each token of the input and the read-out.
        gap: (batch, tokens) float64; how far the best flow that was found is below the capacity of the cut that bounds
            it. The largest flow lies between `flow - gap` and `flow`.
        cut: (batch, tokens) int8, an index into `flow_solver.CUTS`: which cut limits the flow. "output": all that
            leaves the read-out token, which is 1. "input": all that enters the token of the input, its column of the
            first layer. "interior": something between, in the layers that `cut_by_layer` shows.
        cut_by_layer: (batch, tokens, layers) float64; the part of the cut that lies in each layer; sums to `flow`.
        layers: index in the model of each layer that took part.
        at_an_end: (batch,) share of the patches whose cut is not interior. Their flow is min(1, column sum of the
            first layer), whatever the later layers do and whichever token is read out.
    """

    flow: Tensor
    gap: Tensor
    cut: Tensor
    cut_by_layer: Tensor
    layers: tuple[int, ...]
    at_an_end: Tensor


def attention_flow(
    operators: Sequence[AttentionOperator],
    layout: TokenLayout,
    *,
    token: Token = "auto",
    layers: slice = slice(None),
    heads: Fusion | int = "mean",
    residual: float = 0.5,
    top_k: int | None = None,
    limit: int = DENSE_LIMIT,
    solver: Solver | None = None,
) -> Flow:
    """The largest flow from each token of the input to one output token, through the attention of all layers.

    A graph has a node for each token before and after each layer. The edge from token i after layer l to token j
    before it can carry

        residual * (i == j) + (1 - residual) * A_l[i, j],        A_l = the layer's attention, heads fused

    and the flow between the output token and token j of the input is the largest that no edge forbids. Each token of
    the input is asked by itself, so flows do not sum to 1. The token itself has 1 and others 0 where every token
    attends to itself alone; with uniform attention and residual 1/2 another token has 1 / (2 tokens) after one layer,
    1/2 after two, 1 - 1 / (2 tokens) after three, and 1 after four.

    The output token lets 1 leave and every token between lets 1 pass, so in deep models little but the first layer
    limits the flow: it is min(1, column sum of the first layer), see `columns_warning`. Fewer layers make it say more;
    a single head or only the strongest edges may.

    Args:
        operators: one for each layer, first layer first.
        layout: which token is which.
        token: the output token, as in `attention_rollout`; the mean lets 1 / patches leave from each patch.
        layers: which of them take part; the input is then the input of the first of these.
        heads: how heads become one matrix: an index takes one head, the others are as in `attention_rollout`.
        residual: weight of the skip connection, in [0, 1); 1/2 is the paper's.
        top_k: leaves each row only its so many largest entries, and rescales it to sum to 1; None leaves all.
        limit: bytes that the maps of one image may take: layers * tokens * tokens * 8.
        solver: of maximum flow; None takes OR-tools where it is installed, else scipy.

    Returns:
        The flow, with its proof: a flow that was found, and a cut whose capacity no flow exceeds. They differ by less
        than 2^-31 for each token and each edge of the cut with scipy, and 2^-50 with OR-tools.

    Raises:
        ConfigError: if an option is not one of the above, or no solver is installed.
        ShapeError: if the layers do not fit the layout.
        MemoryLimitError: if the maps would take more than the limit; with both numbers.
        NumericError: if heads are fused by "min" and have no key in common.

    Source: Abnar & Zuidema 2020, arXiv 2005.00928, section 3. Their code divides the flows to one output token by their
    sum; here they stay as they are.
    """
    _check(operators, layout, heads, residual, top_k)
    chosen = range(len(operators))[layers]
    if not chosen:
        raise ConfigError(f"layers is {layers}, which leaves none of {len(operators)}")
    needed = len(chosen) * layout.tokens**2 * 8
    if needed > limit:
        raise MemoryLimitError(
            f"the maps of {len(chosen)} layers of {layout.tokens} x {layout.tokens} tokens take "
            f"{needed / 2**20:,.0f} MiB, the limit is {limit / 2**20:,.0f} MiB\n"
            "ask for fewer layers=, or raise limit="
        )
    weights = read_out(layout, token).double()
    weights /= weights.sum()
    solver = solver or best_solver()
    found: list[list[LargestFlow]] = []
    for image in range(operators[0].shape[0]):
        capacities = _capacities([operators[layer].image(image) for layer in chosen], heads, residual, top_k)
        graph = LayeredGraph(capacities.numpy(), weights.numpy())
        found.append([graph.into(sink, solver) for sink in range(layout.tokens)])
    return _collect(found, tuple(chosen), layout)


def columns_warning(at_an_end: float) -> str:
    """A sentence for readers where most flows are the first layer's column sums; empty where they are not.

    Args:
        at_an_end: share of the patches whose cut is not interior, in [0, 1].
    """
    if at_an_end <= MOSTLY:
        return ""
    return (
        f"{at_an_end:.0%} of the patches have min(1, column sum of the first layer): "
        "this flow says nothing about the later layers or the token that is read out"
    )


def _capacities(
    operators: Sequence[AttentionOperator], heads: Fusion | int, residual: float, top_k: int | None
) -> Tensor:
    """Of all edges of one image: (layers, tokens, tokens) float64 on the CPU; rows sum to 1."""
    tokens = operators[0].shape[2]
    made = torch.empty(len(operators), tokens, tokens, dtype=torch.float64)
    for operator, capacities in zip(operators, made, strict=True):
        for some in torch.arange(tokens).split(QUERIES_AT_ONCE):
            capacities[some] = _fuse(operator.rows(some)[0], heads, top_k)
    made *= 1 - residual
    made.diagonal(dim1=1, dim2=2).add_(residual)
    return made


def _fuse(rows: Tensor, heads: Fusion | int, top_k: int | None) -> Tensor:
    """Some rows: (heads, queries, keys) -> (queries, keys)."""
    rows = rows.cpu().double()
    if heads == "mean":
        fused = rows.mean(0)
    elif heads == "max":
        fused = rows.amax(0)
    elif heads == "min":
        fused = rows.amin(0)
    else:
        fused = rows[heads]
    if top_k is not None and top_k < fused.shape[-1]:
        strongest = fused.topk(top_k)
        fused = torch.zeros_like(fused).scatter_(-1, strongest.indices, strongest.values)
    total = fused.sum(-1, keepdim=True)
    if not bool((total > 0).all()):
        raise NumericError(
            f"a query has no attention left with heads={heads!r}: heads have no key in common, or are NaN\n"
            'use "mean" or "max"'
        )
    return fused / total


def _collect(found: list[list[LargestFlow]], layers: tuple[int, ...], layout: TokenLayout) -> Flow:
    """The record of flows that were found for each image and each token."""
    cut = torch.tensor([[one.cut for one in image] for image in found], dtype=torch.int8)
    by_layer = [[one.by_layer.tolist() for one in image] for image in found]
    return Flow(
        flow=torch.tensor([[one.flow for one in image] for image in found], dtype=torch.float64),
        gap=torch.tensor([[one.gap for one in image] for image in found], dtype=torch.float64),
        cut=cut,
        cut_by_layer=torch.tensor(by_layer, dtype=torch.float64),
        layers=layers,
        at_an_end=(layout.patch_tokens(cut) != INTERIOR).double().mean(-1),
    )


def _check(
    operators: Sequence[AttentionOperator],
    layout: TokenLayout,
    heads: Fusion | int,
    residual: float,
    top_k: int | None,
) -> None:
    if not 0 <= residual < 1:
        raise ConfigError(f"residual is {residual}; it must be at least 0 and less than 1")
    if top_k is not None and top_k < 1:
        raise ConfigError(f"top_k is {top_k}; it must be at least 1, or None for all edges")
    if not operators:
        raise ShapeError("flow needs the operators of at least one layer")
    for operator in operators:
        if operator.shape[2:] != (layout.tokens, layout.tokens):
            raise ShapeError(f"a layer attends among {operator.shape[2:]} tokens, the layout has {layout.tokens}")
        if isinstance(heads, int) and not 0 <= heads < operator.shape[1]:
            raise ConfigError(f"heads is {heads}; a layer has heads 0 to {operator.shape[1] - 1}")
    if not isinstance(heads, int) and heads not in ("mean", "max", "min"):
        raise ConfigError(f"heads is {heads!r}; choose mean, max, min or the index of a head")
