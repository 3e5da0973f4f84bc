"""The operator's sums on an NVIDIA GPU: one kernel for all row statistics, one to pull a vector back.

A program holds some queries (to pull: some keys) of one head and walks over the other side block by block. Scores live
in registers alone, and the distance of two patches is made from their indices, so nothing is read but queries, keys and
bias, and nothing is written but the sums. Sums are float32 and made in one order: results repeat bit by bit.

Importing this file imports triton, so it is loaded only where there is a GPU to use it.
"""

# triton has no types:
# mypy: allow-untyped-decorators, disable-error-code="import-untyped, import-not-found"

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from vitreous.capture import blocked
from vitreous.tokens import TokenLayout

if TYPE_CHECKING:
    from vitreous.capture.operator import AttentionOperator, Cost, RowStatistics

LARGEST_HEAD_DIM = {torch.float32: 128, torch.bfloat16: 256, torch.float16: 256}
"""Types of queries and keys, and the widest that a program can hold of each; the rest is left to torch."""

LOG2_E = tl.constexpr(blocked.LOG2_E)

HIDDEN = tl.constexpr(-1e35)
"""Score of a key that is not there: its exponential is 0 and, unlike -inf, it can be subtracted from itself."""

PREFIX_KEYS = tl.constexpr(16)
"""Keys in a block of prefix tokens: the narrowest matrix product."""

SCANNED_WEIGHTS = tl.constexpr(1024)
"""Weights looked at in one step, to find which queries have any."""


class Tiles(NamedTuple):
    """How the work is cut: rows of a program's own, rows met at a time, warps, and how many blocks are under way."""

    own: int
    other: int
    warps: int
    stages: int


HALF = Tiles(64, 64, 4, 2)
"""64 x 64 scores fill four warps' matrix units, and with the terms of all sums they just fit into 128 registers."""

SINGLE = Tiles(32, 32, 4, 2)
"""float32 is multiplied in full, without matrix units, and needs registers for its operands too."""


def is_for(operator: AttentionOperator) -> bool:
    """Whether the kernels take this operator: queries and keys on an NVIDIA GPU, in a type and width they know."""
    return operator.device.type == "cuda" and torch.version.hip is None and _is_known(operator)


def statistics(operator: AttentionOperator, cost: Cost | None, prefix: int, weights: Tensor | None) -> RowStatistics:
    """See `AttentionOperator.statistics`; costs other than `TokenLayout.token_distances` are left to torch."""
    from vitreous.capture.operator import RowStatistics

    layout = _layout_of(cost)
    if not _is_known(operator) or (cost is not None and not _is_laid_out(operator, layout, prefix)):
        return blocked.statistics(operator, cost, prefix, weights)
    batch, heads, queries, keys = operator.shape
    bias = None if operator.bias is None else operator.bias.expand(operator.shape)
    sums = torch.empty(5, batch, heads, queries, dtype=torch.float32, device=operator.device).unbind()
    _launch(
        _statistics,
        operator.scale,
        (operator.queries, operator.keys, bias),
        (sums, (heads, queries, keys), min(prefix, keys), _grid(layout)),
        COSTED=layout is not None,
    )
    entropy, prefix_mass, rest_mass, log_sum_exp, expected = sums
    return RowStatistics(
        entropy=entropy,
        prefix_mass=prefix_mass,
        rest_mass=rest_mass,
        log_sum_exp=log_sum_exp,
        cost=None if cost is None else expected,
        pulled=None if weights is None else _pull_back(operator, weights, log_sum_exp),
    )


def pull(operator: AttentionOperator, weights: Tensor) -> Tensor:
    """See `AttentionOperator.pull`; queries before the first weight and after the last are not read."""
    if not _is_known(operator):
        return blocked.pull(operator, weights)
    return _pull_back(operator, weights, operator.log_sum_exp)


def _pull_back(operator: AttentionOperator, weights: Tensor, log_sum_exp: Tensor) -> Tensor:
    batch, heads, queries, keys = operator.shape
    pulled = torch.empty(batch, heads, keys, dtype=torch.float32, device=operator.device)
    weights = weights.to(pulled).expand(batch, heads, queries)
    bias = None if operator.bias is None else operator.bias.expand(operator.shape).mT
    _launch(
        _pull,
        operator.scale,
        (operator.keys, operator.queries, bias),
        (_with_strides(weights), _with_strides(log_sum_exp), pulled, (heads, queries, keys)),
    )
    return pulled


def _launch(
    kernel: Any,
    scale: float,
    inputs: tuple[Tensor | None, Tensor | None, Tensor | None],
    rest: tuple[Any, ...],
    **options: bool,
) -> None:
    """Runs a kernel, one program for each block of `own`.

    Args:
        kernel: one of the two below.
        scale: the operator's.
        inputs: own and other (batch, heads, tokens, head_dim), and the bias (batch, heads, own tokens, other tokens).
        rest: the kernel's own arguments, between these and the factors.
        options: its own constants.
    """
    own, other, bias = inputs
    assert own is not None and other is not None
    batch, heads, count, head_dim = own.shape
    tiles = SINGLE if own.dtype == torch.float32 else HALF
    with torch.cuda.device_of(own):
        kernel[(batch * heads * triton.cdiv(count, tiles.own),)](
            _with_strides(own),
            _with_strides(other),
            _with_strides(own if bias is None else bias),  # without a bias, nothing is read from there
            *rest,
            (1.0, scale * blocked.LOG2_E) if bias is None else (scale, blocked.LOG2_E),
            **options,
            BIASED=bias is not None,
            OWN=tiles.own,
            OTHER=tiles.other,
            HEAD_DIM=head_dim,
            PADDED_DIM=max(16, triton.next_power_of_2(head_dim)),  # matrix units take 16 and more
            num_warps=tiles.warps,
            num_stages=tiles.stages,
            enable_fp_fusion=True,  # triton 3.9 warns where this is left to its default, which is about to change
        )


@triton.jit
def _statistics(
    queries: tl.tuple,
    keys: tl.tuple,
    bias: tl.tuple,
    sums: tl.tuple,
    counts: tl.tuple,
    prefix: tl.tensor,
    grid: tl.tuple,
    factors: tl.tuple,
    COSTED: tl.constexpr,
    BIASED: tl.constexpr,
    OWN: tl.constexpr,
    OTHER: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
) -> None:
    """Sums over all keys for OWN rows of one head: prefix tokens first, then patches."""
    heads, query_count, key_count = counts
    blocks = tl.cdiv(query_count, OWN)
    head = tl.program_id(0) // blocks  # among the heads of all images
    rows = tl.program_id(0) % blocks * OWN + tl.arange(0, OWN)
    y, x = _centre(rows - prefix, grid)
    own = _tile(queries, head, heads, rows, query_count, HEAD_DIM, PADDED_DIM)
    top = tl.full((OWN,), HIDDEN, tl.float32)  # largest score so far, not in bits
    score_sum = tl.zeros((OWN,), tl.float32)
    prefix_sum = tl.zeros((OWN,), tl.float32)
    rest_sum = tl.zeros((OWN,), tl.float32)
    cost_sum = tl.zeros((OWN,), tl.float32)
    for start in range(0, prefix, PREFIX_KEYS):
        at = start + tl.arange(0, PREFIX_KEYS)
        other = _tile(keys, head, heads, at, prefix, HEAD_DIM, PADDED_DIM)
        scores = _scores(own, other, factors[0], bias, head, heads, rows, at, query_count, prefix, BIASED)
        top, shrink, score_sum, shares = _exponentials(scores, factors[1], top, score_sum, prefix_sum)
        prefix_sum = prefix_sum * shrink + tl.sum(shares, 1)
    for start in range(prefix, key_count, OTHER):
        at = start + tl.arange(0, OTHER)
        other = _tile(keys, head, heads, at, key_count, HEAD_DIM, PADDED_DIM)
        scores = _scores(own, other, factors[0], bias, head, heads, rows, at, query_count, key_count, BIASED)
        top, shrink, score_sum, shares = _exponentials(scores, factors[1], top, score_sum, prefix_sum + rest_sum)
        prefix_sum = prefix_sum * shrink
        rest_sum = rest_sum * shrink + tl.sum(shares, 1)
        if COSTED:
            key_y, key_x = _centre(at - prefix, grid)
            down, across = y[:, None] - key_y[None, :], x[:, None] - key_x[None, :]  # (OWN, OTHER)
            cost_sum = cost_sum * shrink + tl.sum(shares * tl.sqrt(down * down + across * across), 1)
    total = tl.where(top > HIDDEN, prefix_sum + rest_sum, float("nan"))  # NaN where all keys are hidden
    bits = tl.log2(total)
    entropy, prefix_mass, rest_mass, log_sum_exp, expected = sums
    to = head.to(tl.int64) * query_count + rows
    inside = rows < query_count
    tl.store(entropy + to, bits - score_sum / total, mask=inside)
    tl.store(prefix_mass + to, prefix_sum / total, mask=inside)
    tl.store(rest_mass + to, rest_sum / total, mask=inside)
    tl.store(log_sum_exp + to, (bits + top * factors[1]) / LOG2_E, mask=inside)
    if COSTED:
        has_place = tl.where(rows < prefix, 0.0, 1.0)  # a factor: NaN stays
        tl.store(expected + to, cost_sum / total * has_place, mask=inside)


@triton.jit
def _pull(
    keys: tl.tuple,
    queries: tl.tuple,
    bias: tl.tuple,
    weights: tl.tuple,
    logs: tl.tuple,
    pulled: tl.tensor,
    counts: tl.tuple,
    factors: tl.tuple,
    BIASED: tl.constexpr,
    OWN: tl.constexpr,
    OTHER: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
) -> None:
    """What OWN keys of one head get from all queries; scores are (OWN, OTHER) here, to be summed along rows."""
    heads, query_count, key_count = counts
    blocks = tl.cdiv(key_count, OWN)
    head = tl.program_id(0) // blocks  # among the heads of all images
    at = tl.program_id(0) % blocks * OWN + tl.arange(0, OWN)
    own = _tile(keys, head, heads, at, key_count, HEAD_DIM, PADDED_DIM)
    weight = weights[0] + _offset(weights, head, heads)
    log = logs[0] + _offset(logs, head, heads)
    first, last = query_count, -1  # queries with a weight
    for start in range(0, query_count, SCANNED_WEIGHTS):
        rows = start + tl.arange(0, SCANNED_WEIGHTS)
        has = tl.load(weight + rows * weights[3], mask=rows < query_count, other=0.0) != 0.0
        first = tl.minimum(first, tl.min(tl.where(has, rows, query_count), 0))
        last = tl.maximum(last, tl.max(tl.where(has, rows, -1), 0))
    sums = tl.zeros((OWN,), tl.float32)
    for start in range(first, last + 1, OTHER):
        rows = start + tl.arange(0, OTHER)
        other = _tile(queries, head, heads, rows, query_count, HEAD_DIM, PADDED_DIM)
        scores = _scores(own, other, factors[0], bias, head, heads, at, rows, key_count, query_count, BIASED)
        inside = rows < query_count
        bits = tl.load(log + rows * logs[3], mask=inside, other=0.0) * LOG2_E
        weight_here = tl.load(weight + rows * weights[3], mask=inside, other=0.0)
        sums += tl.sum(tl.exp2(scores * factors[1] - bits[None, :]) * weight_here[None, :], 1)
    tl.store(pulled + head.to(tl.int64) * key_count + at, sums, mask=at < key_count)


@triton.jit
def _scores(
    own: tl.tensor,
    other: tl.tensor,
    scale: tl.tensor,
    bias: tl.tuple,
    head: tl.tensor,
    heads: tl.tensor,
    at: tl.tensor,
    other_at: tl.tensor,
    count: tl.tensor,
    other_count: tl.tensor,
    BIASED: tl.constexpr,
) -> tl.tensor:
    """Scores of two tiles (own, other), float32: scaled where there is a bias, else not yet; HIDDEN past the end."""
    scores = tl.dot(own, tl.trans(other), input_precision="ieee")
    if BIASED:
        from_row = bias[0] + _offset(bias, head, heads) + at[:, None].to(tl.int64) * bias[3]
        inside = (at < count)[:, None] & (other_at < other_count)[None, :]
        scores = scores * scale + tl.load(from_row + other_at[None, :] * bias[4], mask=inside, other=0.0).to(tl.float32)
        scores = tl.where(scores < HIDDEN, HIDDEN, scores)  # -inf, but NaN stays
    return tl.where((other_at < other_count)[None, :], scores, HIDDEN)


@triton.jit
def _exponentials(
    scores: tl.tensor, to_bits: tl.tensor, top: tl.tensor, score_sum: tl.tensor, total: tl.tensor
) -> tl.tuple:
    """Shares of a block's keys relative to the largest score so far, and sums so far made relative to it.

    Returns the largest score, the factor that makes older sums relative to it, the sum of share * score in bits, and
    the block's shares.
    """
    higher = tl.maximum(top, tl.max(scores, 1))
    fall = (top - higher) * to_bits  # bits, at most 0; differences first: large scores keep their small ones
    shrink = tl.exp2(fall)
    bits = (scores - higher[:, None]) * to_bits
    shares = tl.exp2(bits)
    score_sum = score_sum * shrink + shrink * fall * total + tl.sum(shares * bits, 1)
    return higher, shrink, score_sum, shares


@triton.jit
def _tile(
    held: tl.tuple,
    head: tl.tensor,
    heads: tl.tensor,
    at: tl.tensor,
    count: tl.tensor,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
) -> tl.tensor:
    """Some queries or keys of a head, (len(at), PADDED_DIM), with zeros past the ends."""
    dims = tl.arange(0, PADDED_DIM)
    places = held[0] + _offset(held, head, heads) + at[:, None].to(tl.int64) * held[3] + dims[None, :] * held[4]
    return tl.load(places, mask=(at < count)[:, None] & (dims < HEAD_DIM)[None, :], other=0.0)


@triton.jit
def _offset(held: tl.tuple, head: tl.tensor, heads: tl.tensor) -> tl.tensor:
    """Where a head begins in a tensor held as (pointer, stride of images, of heads, of rows, ...)."""
    return (head // heads).to(tl.int64) * held[1] + (head % heads).to(tl.int64) * held[2]


@triton.jit
def _centre(patch: tl.tensor, grid: tl.tuple) -> tl.tuple:
    """Pixels from the first patch's centre, down and across, of patches given by index."""
    columns, per_column, patch_height, patch_width = grid
    row = tl.floor((patch + 0.5) * per_column)  # exact below 2^21 patches, and much faster than dividing integers
    return row * patch_height, (patch - row * columns) * patch_width


def _is_known(operator: AttentionOperator) -> bool:
    """Whether there are queries and keys, in a type and width that the kernels know."""
    queries, keys = operator.queries, operator.keys
    if queries is None or keys is None or operator.scale <= 0:
        return False
    return queries.dtype == keys.dtype and queries.shape[3] <= LARGEST_HEAD_DIM.get(queries.dtype, 0)


def _layout_of(cost: Cost | None) -> TokenLayout | None:
    """The layout whose distances a cost is; None for any other."""
    owner = getattr(cost, "__self__", None)
    return owner if isinstance(owner, TokenLayout) and cost == owner.token_distances else None


def _is_laid_out(operator: AttentionOperator, layout: TokenLayout | None, prefix: int) -> bool:
    """Whether the operator is self-attention over a layout, and `prefix` is the layout's."""
    return layout is not None and layout.prefix == prefix and operator.shape[2:] == (layout.tokens, layout.tokens)


def _grid(layout: TokenLayout | None) -> tuple[float, float, float, float]:
    """Columns, one over columns, and pixels of a patch, down and across; anything where there is no layout."""
    if layout is None:
        return 1.0, 1.0, 1.0, 1.0
    return float(layout.columns), 1 / layout.columns, float(layout.patch_height), float(layout.patch_width)


def _with_strides(tensor: Tensor) -> tuple[Tensor | int, ...]:
    """A tensor as the kernels take it: read in place, however it lies in memory."""
    return tensor, *tensor.stride()
