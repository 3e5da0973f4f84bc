"""The operator's arithmetic on any torch device, one cache-sized block of scores at a time.

A block is a few heads of one image times a few queries, against all keys. Its scores are made by one matrix
product into a buffer that stays in the cache, turned into exponentials, summed in every way that was asked for,
and forgotten. The log-sum-exp of each row is kept, so a later pass needs neither maximum nor sum.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from vitreous.capture.operator import AttentionOperator, Cost, RowStatistics


@contextmanager
def exact() -> Iterator[None]:
    """Without gradients and without autocast, so that sums are made in the precision they say; also a decorator."""
    with torch.no_grad(), ExitStack() as stack:
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):  # leaving alone what is off spares a tenth of a small layer's proof
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


BLOCK_ELEMENTS = {"cpu": 2**19, "cuda": 2**24}
"""Scores in a block, by device: two float32 buffers of 2 MiB stay near the cores; a GPU wants fewer launches."""

BLOCK_QUERIES = 256
"""Queries in a block, about: enough rows for an efficient matrix product."""

FEWEST_QUERIES = 16
"""Queries in a block, however many keys there are; a block may grow to four times its size before it takes fewer."""

SAFE_EXPONENT = 86.0
"""Scores smaller than this need no maximum taken out: 2^86 times a million keys is still a float32."""

LOG2_E = math.log2(math.e)


def precision(operator: AttentionOperator) -> torch.dtype:
    """The type that sums are made in: float64 for float64, else float32."""
    held = operator.weights if operator.weights is not None else operator.queries
    assert held is not None
    return torch.float64 if held.dtype == torch.float64 else torch.float32


class Block(NamedTuple):
    """Scores of some heads of one image and some queries, against all keys.

    `exponentials` are 2^`scores`: scores are held in bits, which spares a factor and is what torch does fastest. Both
    are buffers that the next block overwrites, and both may be used as scratch. `shift` was taken out of each row's
    scores, 0.0 where none was needed.
    """

    image: int
    heads: slice
    queries: slice
    scores: Tensor  # (heads, queries, keys)
    exponentials: Tensor  # (heads, queries, keys)
    shift: Tensor | float  # (heads, queries)


@exact()
def statistics(operator: AttentionOperator, cost: Cost | None, prefix: int, weights: Tensor | None) -> RowStatistics:
    """See `AttentionOperator.statistics`."""
    from vitreous.capture.operator import RowStatistics

    batch, heads, queries, keys = operator.shape
    sums = torch.zeros(5, batch, heads, queries, dtype=precision(operator), device=operator.device)
    pulled = sums.new_zeros(batch, heads, 1, keys)
    if weights is not None:
        weights = weights.to(sums).expand(batch, heads, -1)
    costs = Tensor()
    at = slice(0, 0)
    for block in _blocks(operator):
        prefix_sum, rest_sum, score_sum, cost_sum, shift = sums[:, block.image, block.heads, block.queries]
        if isinstance(block.shift, Tensor):
            shift.copy_(block.shift)
        if prefix:
            torch.sum(block.exponentials[..., :prefix], -1, out=prefix_sum)
        torch.sum(block.exponentials[..., prefix:], -1, out=rest_sum)
        if weights is not None:  # rows are whole, so their sums are known here and no second pass is needed
            share = weights[block.image, block.heads, block.queries] / (prefix_sum + rest_sum)  # (heads, queries)
            pulled[block.image, block.heads] += torch.bmm(share[:, None], block.exponentials)
        torch.sum(block.scores.mul_(block.exponentials), -1, out=score_sum)
        if cost is not None:
            if at != block.queries:  # neighbouring blocks are other heads of the same queries
                at, costs = block.queries, cost(block.queries).to(sums)
            torch.sum(block.exponentials.mul_(costs), -1, out=cost_sum)
    prefix_sum, rest_sum, score_sum, cost_sum, shift = sums
    total = prefix_sum + rest_sum
    bits = total.log2()
    return RowStatistics(
        entropy=bits - score_sum / total,
        prefix_mass=prefix_sum / total,
        rest_mass=rest_sum / total,
        log_sum_exp=(bits + shift) / LOG2_E,
        cost=None if cost is None else cost_sum / total,
        pulled=None if weights is None else pulled[:, :, 0],
    )


@exact()
def apply(operator: AttentionOperator, values: Tensor) -> Tensor:
    """See `AttentionOperator.apply`."""
    batch, heads, queries, _ = operator.shape
    dtype = precision(operator)
    passed = torch.empty(batch, heads, queries, values.shape[-1], dtype=dtype, device=operator.device)
    for block in _blocks(operator):
        sums = torch.bmm(block.exponentials, values[block.image, block.heads].to(dtype))  # (heads, queries, width)
        passed[block.image, block.heads, block.queries] = sums / block.exponentials.sum(-1, keepdim=True)
    return passed


@exact()
def pull(operator: AttentionOperator, weights: Tensor) -> Tensor:
    """See `AttentionOperator.pull`."""
    batch, heads, _, keys = operator.shape
    dtype = precision(operator)
    pulled = torch.zeros(batch, heads, keys, dtype=dtype, device=operator.device)
    weights = weights.to(pulled).expand(batch, heads, -1)
    for image in range(batch):
        used = weights[image].abs().amax(0).nonzero().squeeze(1)  # a one-hot vector costs one row
        if len(used) <= BLOCK_QUERIES:
            pulled[image] = _pull_rows(operator, image, used, weights[image])
            continue
        bits = operator.log_sum_exp[image] * LOG2_E  # (heads, queries)
        for block in _blocks(operator, image, bits):
            share = weights[image, block.heads, block.queries] * torch.exp2(
                block.shift - bits[block.heads, block.queries]
            )
            pulled[image, block.heads] += torch.bmm(share[:, None], block.exponentials)[:, 0]  # (heads, keys)
    return pulled


def _pull_rows(operator: AttentionOperator, image: int, used: Tensor, weights: Tensor) -> Tensor:
    """The same for a few queries only: weights (heads, queries) -> (heads, keys)."""
    rows = operator.image(image).rows(used)[0]  # (heads, used, keys)
    return torch.bmm(weights[:, None, used], rows)[:, 0]


def _blocks(operator: AttentionOperator, image: int | None = None, bits: Tensor | None = None) -> Iterator[Block]:
    """All blocks, in an order in which neighbours are other heads of the same queries.

    `bits` are the base-2 logarithms of the rows' sums (heads, queries), where they are known: no maximum
    is looked for then.
    """
    batch, heads, queries, keys = operator.shape
    some_heads, some_queries = _block_shape(operator)
    with _buffers(some_heads * some_queries * keys, precision(operator), operator.device) as buffers:
        for one in range(batch) if image is None else (image,):
            fill = _filler(operator, one, bits)
            for first in range(0, queries, some_queries):
                some = slice(first, min(queries, first + some_queries))
                for head in range(0, heads, some_heads):
                    group = slice(head, min(heads, head + some_heads))
                    shape = (group.stop - group.start, some.stop - some.start, keys)
                    scores, exponentials = (buffer[: math.prod(shape)].view(shape) for buffer in buffers)
                    shift = fill(group, some, scores, exponentials)
                    yield Block(one, group, some, scores, exponentials, shift)


def _block_shape(operator: AttentionOperator) -> tuple[int, int]:
    """Heads and queries in a block: heads by the number of threads, which take one each, so that none waits."""
    _, heads, queries, keys = operator.shape
    elements = BLOCK_ELEMENTS.get(operator.device.type, BLOCK_ELEMENTS["cuda"])
    threads = min(heads, torch.get_num_threads()) if operator.device.type == "cpu" else 1
    most_queries = min(queries, BLOCK_QUERIES, max(FEWEST_QUERIES, 4 * elements // (threads * keys)))
    some_queries = -(-queries // round(queries / most_queries))  # blocks of one size, with no small one at the end
    some_heads = max(1, round(elements / (some_queries * keys * threads))) * threads
    return min(heads, some_heads), some_queries


_kept = threading.local()


@contextmanager
def _buffers(elements: int, dtype: torch.dtype, device: torch.device) -> Iterator[Tensor]:
    """Two buffers, (2, elements), kept for the next layer: fresh memory costs a page fault every 4 KiB.

    Whoever comes while they are in use gets others.
    """
    buffers = _kept.__dict__.pop("buffers", None)
    if buffers is None or buffers.dtype != dtype or buffers.device != device or buffers.shape[1] < elements:
        buffers = torch.empty(2, elements, dtype=dtype, device=device)
    try:
        yield buffers
    finally:
        if device.type == "cpu":  # accelerators have allocators that do this
            _kept.buffers = buffers


Filler = Callable[[slice, slice, Tensor, Tensor], "Tensor | float"]


def _filler(operator: AttentionOperator, image: int, bits: Tensor | None) -> Filler:
    """A function that fills the buffers of a block, (heads, queries, scores, exponentials) -> shift."""
    dtype = precision(operator)
    lowest = torch.finfo(dtype).min  # a hidden key: its exponential is 0, and 0 times this stays 0
    if operator.weights is not None:
        weights = operator.weights[image]

        def from_weights(heads: slice, queries: slice, scores: Tensor, exponentials: Tensor) -> float:
            exponentials.copy_(weights[heads, queries])
            torch.log2(exponentials, out=scores).clamp_min_(lowest)
            return 0.0

        return from_weights

    assert operator.queries is not None and operator.keys is not None
    left = operator.queries[image].to(dtype)  # (heads, queries, head_dim)
    right = operator.keys[image].to(dtype).transpose(-1, -2)  # (heads, head_dim, keys)
    scale = operator.scale * LOG2_E
    bias = None if operator.bias is None else operator.bias.expand(operator.shape)[image]
    is_safe = bias is None and _is_bounded(left, right, scale)

    def from_queries(heads: slice, queries: slice, scores: Tensor, exponentials: Tensor) -> Tensor | float:
        torch.baddbmm(scores, left[heads, queries], right[heads], beta=0, alpha=scale, out=scores)
        if is_safe:
            torch.exp2(scores, out=exponentials)
            return 0.0
        if bias is not None:
            scores.add_(bias[heads, queries], alpha=LOG2_E)
        shift = scores.amax(-1) if bits is None else bits[heads, queries]  # (heads, queries)
        torch.exp2(scores.sub_(shift[..., None]), out=exponentials)
        scores.clamp_min_(lowest)
        return shift

    return from_queries


def _is_bounded(left: Tensor, right: Tensor, scale: float) -> bool:
    """Whether no score can reach SAFE_EXPONENT; asked only where the answer is cheaper than taking out maxima."""
    if right.shape[2] <= 4 * right.shape[1]:
        return False
    largest = left.norm(dim=-1).amax(-1) * right.norm(dim=-2).amax(-1)  # Cauchy-Schwarz, one bound a head
    return bool((largest * abs(scale) < SAFE_EXPONENT).all())
