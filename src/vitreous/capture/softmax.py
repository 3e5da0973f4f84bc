"""Attention that a model spells out: a matrix followed from `q @ k^T` to `@ v`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from vitreous.capture import proof
from vitreous.capture.calls import Attention, as_bias, with_heads
from vitreous.capture.operator import AttentionOperator


@dataclass
class _Scores:
    """Scores on their way to a softmax: (queries keys^T) * scale, as far as it was followed."""

    queries: Tensor
    keys: Tensor
    scale: float = 1.0
    bias: Tensor | None = None


class SoftmaxTracker:
    """Follows a matrix from `q @ k^T` through scaling, masks, softmax and dropout to `@ v`.

    Only a softmax whose result is multiplied with values is attention; the product is also the proof. Where the
    way from queries and keys was not understood, the operator holds the model's own weights.
    """

    PRODUCTS = frozenset(
        {torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm, torch.Tensor.bmm, torch.einsum}
    )
    SCALINGS = frozenset({torch.Tensor.mul, torch.Tensor.__mul__, torch.mul, torch.Tensor.__rmul__, torch.Tensor.div,
                          torch.Tensor.__truediv__, torch.div, torch.Tensor.mul_, torch.Tensor.__imul__})  # fmt: skip
    SUMS = frozenset({torch.Tensor.add, torch.Tensor.__add__, torch.add, torch.Tensor.add_, torch.Tensor.__iadd__})
    SOFTMAXES = frozenset({F.softmax, torch.softmax, torch.Tensor.softmax})
    UNCHANGED = frozenset({F.dropout, torch.Tensor.to, torch.Tensor.type, torch.Tensor.float, torch.Tensor.contiguous,
                           torch.Tensor.type_as, torch.Tensor.half, torch.Tensor.bfloat16, torch.dropout})  # fmt: skip

    CALLS = PRODUCTS | SCALINGS | SUMS | SOFTMAXES | UNCHANGED

    def __init__(self) -> None:
        self._scores: Any = WeakTensorKeyDictionary()
        self._attention: Any = WeakTensorKeyDictionary()
        self.too_many_axes = 0  # softmaxes that are left out
        self.unapplied = 0  # softmaxes over square matrices that were not (yet) multiplied with values

    def see(self, call: Any, given: tuple[Any, ...], returned: Any, batch: int | None) -> Attention | None:
        """What this call completes: an application of attention, or (mostly) nothing.

        Args:
            call: the torch function.
            given: all its arguments, in order.
            returned: what it gave back.
            batch: images in the pass, where it is known.
        """
        if not isinstance(returned, Tensor) or not given:
            return None
        if call in self.PRODUCTS:
            return self._product(call, given, returned, batch)
        if not isinstance(given[0], Tensor):
            return None
        if call in self.SOFTMAXES:
            self._softmax(given[0], returned)
        elif call in self.UNCHANGED:
            for followed in (self._scores, self._attention):
                if given[0] in followed and returned is not given[0]:
                    followed[returned] = followed[given[0]]
        elif len(given) > 1 and given[0] in self._scores:
            if call in self.SCALINGS:
                self._scale(call, given[0], given[1], returned)
            elif call in self.SUMS:
                self._add(self._scores[given[0]], given[1], returned)
        return None

    def _product(self, call: Any, given: tuple[Any, ...], returned: Tensor, batch: int | None) -> Attention | None:
        operands = given[1:] if call is torch.einsum else given[:2]
        if len(operands) != 2 or not all(isinstance(operand, Tensor) for operand in operands):
            return None
        left, right = operands
        if left.ndim != right.ndim or left.ndim not in (3, 4):
            return None
        if left in self._attention and returned.shape[:-1] == left.shape[:-1]:
            return self._applied(left, right, returned, batch)
        keys = right if call is torch.einsum else right.transpose(-1, -2)  # einsum: (..., tokens, head_dim) as they are
        fits = left.shape[:-2] == keys.shape[:-2] and left.shape[-1] == keys.shape[-1]
        if fits and returned.shape == (*left.shape[:-1], keys.shape[-2]):
            self._scores[returned] = _Scores(left.detach(), keys.detach())
        return None

    def _scale(self, call: Any, tensor: Tensor, factor: Any, returned: Tensor) -> None:
        if isinstance(factor, Tensor):
            if factor.numel() != 1:
                return
            factor = factor.item()
        old = self._scores[tensor]
        by = 1 / factor if call in (torch.Tensor.div, torch.Tensor.__truediv__, torch.div) else factor
        bias = None if old.bias is None else old.bias * by
        self._scores[returned] = _Scores(old.queries, old.keys, old.scale * by, bias)

    def _add(self, old: _Scores, bias: Any, returned: Tensor) -> None:
        if isinstance(bias, Tensor):
            both = bias.detach() if old.bias is None else old.bias + bias.detach()
            self._scores[returned] = _Scores(old.queries, old.keys, old.scale, both)

    def _softmax(self, scores: Tensor, returned: Tensor) -> None:
        if returned.ndim > 4 and returned.shape[-1] == returned.shape[-2]:
            self.too_many_axes += 1
        if returned.ndim in (3, 4) and returned.shape[-1] > 1:
            self._attention[returned] = (returned.detach(), self._scores.get(scores))
            self.unapplied += returned.shape[-1] == returned.shape[-2]

    def _applied(self, attention: Tensor, values: Tensor, returned: Tensor, batch: int | None) -> Attention | None:
        weights, scores = self._attention[attention]
        self.unapplied -= weights.shape[-1] == weights.shape[-2]
        weights, values, result = (
            with_heads(t, batch or t.shape[0]) for t in (weights, values.detach(), returned.detach())
        )
        if scores is not None:
            q, k = (with_heads(t, batch or t.shape[0]) for t in (scores.queries, scores.keys))
            operator = AttentionOperator(q, k, scores.scale, as_bias(scores.bias, q))
            error = proof.prove(operator, values, result)
            if proof.is_proved(error, result.dtype):
                return Attention(operator, error, result.dtype)
        operator = AttentionOperator(weights=weights)
        not_summing = proof.error_of(
            weights.float().sum(-1), torch.ones(weights.shape[:-1], device=weights.device)
        )  # edited in place
        return Attention(operator, max(proof.prove(operator, values, result), not_summing), result.dtype)
