"""A capture proves itself: on a few query rows, softmax(q k^T) v must be what the model's own kernel returned."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from vitreous.capture.blocked import exact
from vitreous.capture.operator import AttentionOperator
from vitreous.errors import CaptureError

ROWS = 4
"""Queries tried in each layer: the first (a class token, if any) and random others."""

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 4e-2}
"""Largest difference accepted, relative to the largest output: some rounding steps of each type."""


@cache
def rows_to_try(queries: int) -> Tensor:
    """The first query and a few random ones, without touching the caller's random state."""
    generator = torch.Generator().manual_seed(queries)
    others = torch.randint(queries, (ROWS - 1,), generator=generator)
    return torch.cat([torch.zeros(1, dtype=torch.long), others]).unique()


def error_of(expected: Tensor, returned: Tensor) -> float:
    """Largest difference, relative to the largest value that the model returned."""
    returned = returned.to(expected)
    largest = returned.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)
    return float((expected - returned).abs().max() / largest)


@exact
def prove(operator: AttentionOperator, values: Tensor, returned: Tensor) -> float:
    """Error of the operator against the model's own output, on a few rows of the last image of the batch.

    Args:
        operator: what was captured.
        values: (batch, heads, keys, width), as the model's kernel got them.
        returned: (batch, heads, queries, width), what the kernel gave back.

    Returns:
        Largest difference on the rows tried, relative to the largest output.
    """
    chosen = rows_to_try(operator.shape[2]).to(operator.device)
    attention = operator.image(-1).rows(chosen)[0]  # (heads, chosen, keys)
    return error_of(torch.bmm(attention, values[-1].to(attention)), returned[-1][:, chosen])


def is_proved(error: float, dtype: torch.dtype) -> bool:
    """Whether an error is rounding; NaN is not."""
    return error <= TOLERANCE.get(dtype, TOLERANCE[torch.bfloat16])


def check(error: float, dtype: torch.dtype, layer: int) -> None:
    """Raises CaptureError unless the error is rounding."""
    if not is_proved(error, dtype):
        raise CaptureError(
            f"layer {layer}: attention rebuilt from what was seen differs from the model's own output "
            f"by {error:.1e} of its largest value\n"
            "the kernel does more than softmax(q k^T * scale + bias) v (sinks, soft caps, mixed heads, dropout?), "
            "so its attention is not shown"
        )
