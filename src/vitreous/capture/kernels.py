"""Attention in an operator that another library registered with torch, as flash-attn and xformers do.

Nothing is known of such an operator but the names of its arguments and its numbers, and that is enough: three tensors
are taken for queries, keys and values, in the two orders of axes that there are, and the proof tells.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch._ops import OpOverload, OpOverloadPacket

from vitreous.capture import proof
from vitreous.capture.calls import Attention, as_bias, attended, with_heads
from vitreous.errors import CaptureError

ATTENTION = re.compile(r"att|flash|sdpa|mha", re.IGNORECASE)


def is_kernel(call: Any) -> bool:
    """Whether a call is an operator that is not torch's own, or a private attention of torch's."""
    if not isinstance(call, (OpOverload, OpOverloadPacket)):
        return False
    space, _, name = name_of(call).partition("::")
    return space not in ("aten", "prim", "prims") or "attention" in name


def name_of(call: OpOverload | OpOverloadPacket) -> str:
    """Such as `flash_attn::_flash_attn_forward`."""
    packet = call.overloadpacket if isinstance(call, OpOverload) else call
    return packet._qualified_op_name


def from_kernel(
    call: OpOverload | OpOverloadPacket, args: tuple[Any, ...], kwargs: dict[str, Any], returned: Any, batch: int | None
) -> Attention | None:
    """Attention, if an operator was called with something like queries, keys and values; most are not.

    Args:
        call: the operator.
        args: its arguments by position; queries, keys and values are the first three tensors.
        kwargs: its arguments by name.
        returned: what it gave back; the first tensor that fits is the attention's output.
        batch: images in the pass, where it is known.

    Raises:
        CaptureError: if its name says attention, but its numbers do not.
    """
    schema = (call if isinstance(call, OpOverload) else getattr(call, call.overloads()[0]))._schema
    given = dict(zip((argument.name for argument in schema.arguments), args, strict=False)) | kwargs
    tensors = [value.detach() for value in given.values() if isinstance(value, Tensor)][:3]
    if len(tensors) < 3 or not _fit(*tensors):
        return None
    query, _, value = tensors
    results = returned if isinstance(returned, (tuple, list)) else (returned,)
    fitting = (r for r in results if isinstance(r, Tensor) and r.shape == (*query.shape[:-1], value.shape[-1]))
    result = next(fitting, None)
    capped = any("cap" in name and value for name, value in given.items() if not isinstance(value, Tensor))
    if result is not None and not capped:
        for tried in _in_both_orders([*tensors, result.detach()], given, batch or query.shape[0]):
            if tried.note or math.isnan(tried.error) or proof.is_proved(tried.error, tried.dtype):
                return tried
    if ATTENTION.search(name_of(call)):
        raise CaptureError(
            f"{name_of(call)} was called with queries, keys and values, but did not give back "
            "softmax(q k^T * scale + bias) v\na window, a soft cap, sinks, dropout or sequences of different lengths? "
            "such attention is not shown; where the model can use F.scaled_dot_product_attention instead, it is seen"
        )
    return None


def looks_like_attention(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether an operator's first three tensors could be queries, keys and values."""
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)][:3]
    return len(tensors) == 3 and _fit(*tensors)


def _fit(query: Tensor, key: Tensor, value: Tensor) -> bool:
    return (
        query.ndim in (3, 4)
        and query.ndim == key.ndim
        and query.shape[0] == key.shape[0]
        and query.shape[-1] == key.shape[-1]
        and key.shape[:-1] == value.shape[:-1]
    )


def _in_both_orders(tensors: list[Tensor], given: dict[str, Any], batch: int) -> Iterator[Attention]:
    """Attention with tokens before heads, as these libraries have them, then with heads before tokens."""
    scales = [value for name, value in given.items() if "scale" in name and isinstance(value, (int, float))]
    biases = [value for name, value in given.items() if re.search("bias|mask", name) and isinstance(value, Tensor)]
    is_causal = any(value is True for name, value in given.items() if "causal" in name)
    orders: tuple[Callable[[Tensor], Tensor | None], ...] = (
        lambda tensor: _tokens_first(tensor, batch),
        lambda tensor: _heads_first(tensor, batch),
    )
    for order in orders:
        query, key, value, result = (order(tensor) for tensor in tensors)
        if query is None or key is None or value is None or result is None or query.shape[1] % key.shape[1]:
            continue
        scale = scales[0] if scales else 1 / math.sqrt(query.shape[-1])
        bias = as_bias(biases[0], query) if biases and biases[0].ndim > 1 else None
        yield attended(query, key, value, result, float(scale), bias, is_causal=is_causal)


def _tokens_first(tensor: Tensor, batch: int) -> Tensor | None:
    """(batch, heads, tokens, width) from (batch, tokens, heads, width), or with all tokens in one row."""
    rows = tensor.flatten(0, -3)  # (batch * tokens, heads, width)
    return rows.unflatten(0, (batch, -1)).transpose(1, 2) if len(rows) % batch == 0 else None


def _heads_first(tensor: Tensor, batch: int) -> Tensor | None:
    fits = tensor.shape[0] == batch if tensor.ndim == 4 else tensor.shape[0] % batch == 0
    return with_heads(tensor, batch) if fits else None
