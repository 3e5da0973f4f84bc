"""Attention held as an operator: queries and keys instead of a tokens x tokens matrix.

    A = softmax(queries @ keys^T * scale + bias)

Everything here applies A to something small, block of rows by block of rows, so memory grows with the number
of tokens and not with its square.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from vitreous.capture import blocked
from vitreous.errors import CaptureError, MemoryLimitError, ShapeError

Cost = Callable[[slice], Tensor]
"""A cost given by rows: a slice of queries -> (queries, keys)."""

DENSE_LIMIT = 2**30
"""Bytes that `dense()` may take unless told otherwise: 1 GiB."""


@dataclass(frozen=True)
class RowStatistics:
    """What one pass over the scores tells of every query: each (batch, heads, queries), `pulled` excepted.

    Attributes:
        entropy: bits, from 0 (one key) to log2(keys) (all keys alike).
        prefix_mass: share of the attention on the first `prefix` keys, in [0, 1].
        rest_mass: share on all others; not one minus the above, which would lose small shares to rounding.
        log_sum_exp: natural logarithm of each row's sum of exponentials.
        cost: expected cost; None where no cost was given.
        pulled: (batch, heads, keys), weights @ A; None where no weights were given.
    """

    entropy: Tensor
    prefix_mass: Tensor
    rest_mass: Tensor
    log_sum_exp: Tensor
    cost: Tensor | None = None
    pulled: Tensor | None = None

    @classmethod
    def stack(cls, layers: Sequence[RowStatistics]) -> RowStatistics:
        """Those of several layers as one, (layers, batch, heads, queries) each; `pulled` is left out.

        Raises:
            CaptureError: if the layers differ in the number of heads.
        """
        heads = [rows.entropy.shape[1] for rows in layers]
        if len(set(heads)) > 1:
            raise CaptureError(
                f"layers have {min(heads)} to {max(heads)} heads, and figures show a grid of layers x heads"
            )
        costs = [rows.cost for rows in layers if rows.cost is not None]
        return cls(
            entropy=torch.stack([rows.entropy for rows in layers]),
            prefix_mass=torch.stack([rows.prefix_mass for rows in layers]),
            rest_mass=torch.stack([rows.rest_mass for rows in layers]),
            log_sum_exp=torch.stack([rows.log_sum_exp for rows in layers]),
            cost=torch.stack(costs) if costs else None,
        )


@dataclass(frozen=True, eq=False)
class AttentionOperator:
    """One layer's attention, ready to be applied.

    Either queries and keys, or, for a model that makes the matrix itself in a way that cannot be taken apart,
    its weights. Tensors stay in the model's own precision; every sum is made in float32 (float64 for float64).

    Attributes:
        queries: (batch, heads, queries, head_dim), or None with `weights`.
        keys: (batch, heads, keys, head_dim), or None with `weights`.
        scale: factor on the scores; 1 / sqrt(head_dim) in the paper (appendix A, equation 6).
        bias: added to the scaled scores, broadcastable to (batch, heads, queries, keys); -inf hides a key.
        weights: (batch, heads, queries, keys), rows sum to 1; only where the model made them itself.

    Raises:
        ShapeError: if the axes do not fit each other.
    """

    queries: Tensor | None = None
    keys: Tensor | None = None
    scale: float = 1.0
    bias: Tensor | None = None
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        if self.weights is not None:
            if self.weights.ndim != 4:
                raise ShapeError(f"weights are {tuple(self.weights.shape)}, not (batch, heads, queries, keys)")
            return
        if self.queries is None or self.keys is None:
            raise ShapeError("an operator needs queries and keys, or weights")
        q, k = tuple(self.queries.shape), tuple(self.keys.shape)
        if len(q) != 4 or len(k) != 4 or q[:2] != k[:2] or q[3] != k[3]:
            raise ShapeError(
                f"queries {q} and keys {k} are not (batch, heads, queries, head_dim) and (batch, heads, keys, head_dim)"
            )

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the matrix that is never made: (batch, heads, queries, keys)."""
        if self.weights is not None:
            batch, heads, queries, keys = self.weights.shape
            return batch, heads, queries, keys
        assert self.queries is not None and self.keys is not None
        batch, heads, queries, _ = self.queries.shape
        return batch, heads, queries, self.keys.shape[2]

    @property
    def device(self) -> torch.device:
        """Where the tensors live, and where results are made."""
        held = self.weights if self.weights is not None else self.queries
        assert held is not None
        return held.device

    def image(self, index: int) -> AttentionOperator:
        """The same for one image of the batch: (1, heads, queries, keys). Nothing is copied."""
        one = slice(index, index + 1 or None)
        bias = None if self.bias is None else self.bias.expand(self.shape)[one]
        if self.weights is not None:
            return AttentionOperator(weights=self.weights[one])
        assert self.queries is not None and self.keys is not None
        return AttentionOperator(self.queries[one], self.keys[one], self.scale, bias)

    def compact(self) -> AttentionOperator:
        """The same with queries and keys that keep no other memory alive: a model's often lie among its values."""
        if self.queries is None or self.keys is None:
            return self
        q, k = (
            held
            if held.untyped_storage().nbytes() <= held.nbytes
            else held.clone(memory_format=torch.contiguous_format)
            for held in (self.queries, self.keys)
        )
        return AttentionOperator(q, k, self.scale, self.bias)

    @cached_property
    def log_sum_exp(self) -> Tensor:
        """Natural logarithm of each row's sum of exponentials: (batch, heads, queries). Made once, kept."""
        return self.statistics().log_sum_exp

    def statistics(self, cost: Cost | None = None, prefix: int = 0, pull: Tensor | None = None) -> RowStatistics:
        """Entropy, expected cost and prefix mass of every query, in one pass over the scores.

        The newest answer is kept: measures that ask for the same cost and prefix share one pass.

        Args:
            cost: cost of attending from a query to a key, given by rows: a slice of queries -> (queries, keys).
            prefix: how many of the first keys count as prefix.
            pull: weights as in `pull`, to be pulled back in the same pass.

        Raises:
            ShapeError: if `pull` does not fit.
        """
        if pull is not None:
            self._check_weights(pull)
        last = self.__dict__.get("_last")
        if last is None or last[0] != (cost, prefix):
            last = self.__dict__["_last"] = ((cost, prefix), _arithmetic(self).statistics(self, cost, prefix, pull))
            self.__dict__["log_sum_exp"] = last[1].log_sum_exp  # the cache of the property above
            return last[1]
        return last[1] if pull is None else replace(last[1], pulled=_arithmetic(self).pull(self, pull))

    def entropy(self) -> Tensor:
        """Entropy of each query's attention, in bits: (batch, heads, queries), from 0 to log2(keys)."""
        return self.statistics().entropy

    def expect(self, cost: Tensor | Cost) -> Tensor:
        """Expected cost of each query, sum over keys of A[query, key] * cost[query, key]: (batch, heads, queries).

        Args:
            cost: (queries, keys), or a function from a slice of queries to (queries, keys).

        Raises:
            ShapeError: if a cost tensor is not (queries, keys).
        """
        if isinstance(cost, Tensor):
            if tuple(cost.shape) != self.shape[2:]:
                raise ShapeError(f"cost is {tuple(cost.shape)}, the operator's (queries, keys) are {self.shape[2:]}")
            whole = cost
            found = blocked.statistics(self, lambda rows: whole[rows], 0, None).cost
        else:
            found = self.statistics(cost).cost
        assert found is not None
        return found

    def apply(self, values: Tensor) -> Tensor:
        """What the heads pass on, A @ values: (batch, heads, keys, width) -> (batch, heads, queries, width).

        Raises:
            ShapeError: if `values` does not have this operator's batch, heads and keys.
        """
        batch, heads, _, keys = self.shape
        if values.ndim != 4 or tuple(values.shape[:3]) != (batch, heads, keys):
            raise ShapeError(f"values are {tuple(values.shape)}, not ({batch}, {heads}, {keys}, width)")
        return blocked.apply(self, values)

    def pull(self, weights: Tensor) -> Tensor:
        """A row vector pulled back through the attention, weights @ A.

        Args:
            weights: (batch, heads, queries), or (batch, 1, queries) for the same in every head.

        Returns:
            (batch, heads, keys); sums over keys equal the sums of `weights` over queries.

        Raises:
            ShapeError: if `weights` does not fit.
        """
        self._check_weights(weights)
        return _arithmetic(self).pull(self, weights)

    def rows(self, queries: Tensor | list[int]) -> Tensor:
        """Attention of a few queries: (batch, heads, len(queries), keys); each row sums to 1.

        Args:
            queries: indices of query tokens.

        Raises:
            IndexError: if there is no such query.
        """
        chosen = torch.as_tensor(queries, device=self.device)
        return self._matrix(chosen)

    def dense(self, limit: int = DENSE_LIMIT) -> Tensor:
        """The whole matrix: (batch, heads, queries, keys); each row sums to 1.

        Args:
            limit: bytes it may take.

        Raises:
            MemoryLimitError: if it would take more; with both numbers.
        """
        needed = math.prod(self.shape) * blocked.precision(self).itemsize
        if needed > limit:
            batch, heads, queries, keys = self.shape
            raise MemoryLimitError(
                f"dense attention of {batch} x {heads} x {queries} x {keys} takes {needed / 2**20:,.0f} MiB, "
                f"the limit is {limit / 2**20:,.0f} MiB\n"
                "ask for rows(), expect(), entropy(), apply() or pull(), or raise limit="
            )
        return self._matrix(torch.arange(self.shape[2], device=self.device))

    def _check_weights(self, weights: Tensor) -> None:
        batch, heads, queries, _ = self.shape
        if weights.ndim != 3 or tuple(weights.shape) not in {(batch, heads, queries), (batch, 1, queries)}:
            raise ShapeError(f"weights are {tuple(weights.shape)}, not ({batch}, {heads} or 1, {queries})")

    @blocked.exact()
    def _matrix(self, chosen: Tensor) -> Tensor:
        dtype = blocked.precision(self)
        if self.weights is not None:
            return self.weights[:, :, chosen].to(dtype)
        assert self.queries is not None and self.keys is not None
        bias = None if self.bias is None else self.bias.expand(self.shape)
        rows = []
        for image in range(self.shape[0]):  # one by one: a product over both axes would copy the keys
            keys = self.keys[image].to(dtype).transpose(-1, -2)  # (heads, head_dim, keys)
            scores = torch.bmm(self.queries[image][:, chosen].to(dtype), keys) * self.scale
            if bias is not None:
                scores = scores + bias[image][:, chosen].to(dtype)
            rows.append(scores.softmax(-1))
        return torch.stack(rows)  # (batch, heads, chosen, keys)


def _arithmetic(operator: AttentionOperator) -> ModuleType:
    """The kernels where there is an NVIDIA GPU and triton, torch's own operations anywhere else."""
    if operator.device.type == "cuda" and find_spec("triton"):
        from vitreous.capture import triton

        if triton.is_for(operator):
            return triton
    return blocked
