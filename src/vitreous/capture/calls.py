"""What a torch call says about attention: each function translates one kind of call into an operator.

A call that is attention gives an `Attention`: the operator, and how far it is from what the call gave back.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.capture import proof
from vitreous.capture.blocked import exact
from vitreous.capture.operator import AttentionOperator
from vitreous.errors import CaptureError


@dataclass(frozen=True)
class Attention:
    """One application of attention, seen.

    Attributes:
        operator: softmax(queries keys^T * scale + bias).
        error: of the operator against the model's own output, relative to its largest value.
        dtype: the precision that the model's kernel worked in.
        note: why this is no self-attention over tokens, else None.
    """

    operator: AttentionOperator
    error: float
    dtype: torch.dtype
    note: str | None = None


def _signature_of_sdpa(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, *, scale: float | None = None, enable_gqa: bool = False,
) -> None: ...  # fmt: skip


SDPA = inspect.signature(_signature_of_sdpa)
MHA = inspect.signature(F.multi_head_attention_forward)


def from_sdpa(args: tuple[Any, ...], kwargs: dict[str, Any], returned: Tensor, batch: int) -> Attention:
    """`F.scaled_dot_product_attention`: queries, keys and values are its arguments."""
    call = SDPA.bind(*args, **kwargs)
    call.apply_defaults()
    given = call.arguments
    if given["dropout_p"]:
        raise CaptureError("attention drops weights at random in this mode\ncall model.eval() before watching it")
    query, key, value = (in_autocast(given[name].detach()) for name in ("query", "key", "value"))
    query, key, value, result = (with_heads(tensor, batch) for tensor in (query, key, value, returned.detach()))
    scale = given["scale"] if given["scale"] is not None else 1 / math.sqrt(query.shape[-1])
    bias = as_bias(given["attn_mask"], query)
    return attended(query, key, value, result, float(scale), bias, is_causal=given["is_causal"])


def attended(
    query: Tensor, key: Tensor, value: Tensor, returned: Tensor, scale: float, bias: Tensor | None, *,
    is_causal: bool = False,
) -> Attention:  # fmt: skip
    """Attention from what a kernel got and gave back, each (batch, heads, tokens, width).

    Fewer heads of keys and values each serve several heads of queries; one image of them may serve all.
    """
    key, value = (_serving(tensor, query) for tensor in (key, value))
    operator = AttentionOperator(query, key, scale, bias)
    if is_causal:
        return Attention(operator, math.nan, query.dtype, "causal attention: a text tower's, not an image's")
    return Attention(operator, proof.prove(operator, value, returned), query.dtype)


def _serving(tensor: Tensor, query: Tensor) -> Tensor:
    if 1 < tensor.shape[1] < query.shape[1]:
        tensor = tensor.repeat_interleave(query.shape[1] // tensor.shape[1], 1)
    return tensor.expand(*query.shape[:2], -1, -1)


def from_multi_head(args: tuple[Any, ...], kwargs: dict[str, Any], returned: tuple[Tensor, Any]) -> Attention:
    """`F.multi_head_attention_forward`: inputs and projection weights are its arguments, tokens first."""
    call = MHA.bind(*args, **kwargs)
    call.apply_defaults()
    given = call.arguments
    if given["training"] and given["dropout_p"]:
        raise CaptureError("attention drops weights at random in this mode\ncall model.eval() before watching it")
    if given["query"].ndim != 3:
        raise CaptureError("attention without a batch axis is not shown\ngive the model a batch, of one image at least")
    if given["use_separate_proj_weight"] or given["bias_k"] is not None or given["add_zero_attn"]:
        raise CaptureError("multi_head_attention_forward with separate or extended keys is not shown")
    query, key, value = (given[name].transpose(0, 1) for name in ("query", "key", "value"))  # batch first
    return from_projections(
        (query, key, value),
        (given["in_proj_weight"], given["in_proj_bias"]),
        (given["out_proj_weight"], given["out_proj_bias"]),
        given["num_heads"],
        (given["attn_mask"], given["key_padding_mask"]),
        returned[0].transpose(0, 1),
    )


def from_projections(
    inputs: tuple[Tensor, Tensor, Tensor],
    in_projection: tuple[Tensor, Tensor | None],
    out_projection: tuple[Tensor, Tensor | None],
    heads: int,
    masks: tuple[Tensor | None, Tensor | None],
    returned: Tensor,
) -> Attention:
    """Multi-head attention seen from outside, inputs to outputs; queries and keys are projected once more.

    Args:
        inputs: query (batch, queries, width), key and value (batch, keys, width).
        in_projection: weight (3 * width, width), rows of q, k, v in this order; and bias.
        out_projection: weight (width, width), and bias.
        heads: number of heads.
        masks: attention mask and key padding mask, as in `torch.nn.MultiheadAttention`.
        returned: (batch, queries, width).
    """
    query, key, value = (in_autocast(tensor.detach()) for tensor in inputs)
    with exact():
        weights = in_projection[0].detach().chunk(3)
        biases = in_projection[1].detach().chunk(3) if in_projection[1] is not None else (None, None, None)
        q, k = (
            F.linear(tensor, weight.to(tensor), None if bias is None else bias.to(tensor))
            .unflatten(-1, (heads, -1))
            .transpose(1, 2)
            for tensor, weight, bias in zip((query, key), weights[:2], biases[:2], strict=True)
        )  # (batch, heads, tokens, head_dim)
        operator = AttentionOperator(q, k, 1 / math.sqrt(q.shape[-1]), _both_masks(masks, q, k))
        chosen = proof.rows_to_try(q.shape[2]).to(q.device)
        mixed = operator.rows(chosen) @ value[:, None].to(torch.float32 if q.dtype != torch.float64 else q.dtype)
        value_weight = weights[2].to(mixed).unflatten(0, (heads, -1))  # (heads, head_dim, width)
        # Rows sum to 1, so A (X W + b) = (A X) W + b: only the chosen rows are projected.
        passed = torch.einsum("bhqw,hdw->bqhd", mixed, value_weight).flatten(2)  # (batch, chosen, width)
        if biases[2] is not None:
            passed = passed + biases[2].to(mixed)
        weight, bias = out_projection
        expected = F.linear(passed, weight.detach().to(mixed), None if bias is None else bias.detach().to(mixed))
        return Attention(operator, proof.error_of(expected, returned.detach()[:, chosen]), q.dtype)


def with_heads(tensor: Tensor, batch: int) -> Tensor:
    """(batch, heads, tokens, width) from that, or from (batch * heads, tokens, width)."""
    if tensor.ndim == 3 and tensor.shape[0] % batch == 0:
        return tensor.unflatten(0, (batch, -1))
    if tensor.ndim == 4 and tensor.shape[0] == batch:
        return tensor
    raise CaptureError(
        f"attention over {tuple(tensor.shape)} is not (batch, heads, tokens, head_dim) for {batch} image(s): "
        "windows or axes share a batch\nonly attention among all tokens of an image is shown"
    )


def in_autocast(tensor: Tensor) -> Tensor:
    """The tensor in the type that the kernel sees: autocast converts it on the way."""
    kind = tensor.device.type
    if tensor.is_floating_point() and torch.is_autocast_enabled(kind) and tensor.dtype != torch.float64:
        return tensor.to(torch.get_autocast_dtype(kind))
    return tensor


def as_bias(mask: Tensor | None, queries: Tensor) -> Tensor | None:
    """An attention mask as something to add: boolean masks keep where True."""
    if mask is None:
        return None
    mask = mask.detach()
    if mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -math.inf)
    if mask.ndim == 3 and mask.shape[0] == queries.shape[0] * queries.shape[1]:
        mask = mask.unflatten(0, queries.shape[:2])
    return mask


def _both_masks(masks: tuple[Tensor | None, Tensor | None], q: Tensor, k: Tensor) -> Tensor | None:
    """`nn.MultiheadAttention`'s masks as one bias; its boolean masks hide where True."""
    total: Tensor | None = None
    for mask, padding in zip(masks, (False, True), strict=True):
        if mask is None:
            continue
        bias = as_bias(~mask if mask.dtype == torch.bool else mask, q)
        assert bias is not None
        if padding:
            bias = bias[:, None, None, :]  # (batch, 1, 1, keys)
        total = bias if total is None else total + bias
    return total
