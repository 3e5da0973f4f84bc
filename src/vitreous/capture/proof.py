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
    generator = torch.Generator(device="cpu").manual_seed(queries)
    others = torch.randint(queries, (ROWS - 1,), generator=generator, device="cpu")
    return torch.cat([torch.zeros_like(others[:1]), others]).unique()


def error_of(expected: Tensor, returned: Tensor) -> float:
    """Largest difference, relative to the largest value on the rows tried."""
    returned = returned.to(expected)
    largest = returned.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)
    return float((expected - returned).abs().max() / largest)


@exact()
def prove(operator: AttentionOperator, values: Tensor, returned: Tensor) -> float:
    """Error of the operator against the model's own output, on a few rows of every image.

    Args:
        operator: what was captured.
        values: (batch, heads, keys, width), as the model's kernel got them.
        returned: (batch, heads, queries, width), what the kernel gave back.

    Returns:
        Largest difference on the rows tried, relative to the largest output.
    """
    chosen = rows_to_try(operator.shape[2]).to(operator.device)
    attention = operator.rows(chosen)  # (batch, heads, chosen, keys)
    passed = [torch.bmm(rows, v.to(rows)) for rows, v in zip(attention, values, strict=True)]  # no copy of all values
    return error_of(torch.stack(passed), returned[:, :, chosen])


def is_proved(error: float, dtype: torch.dtype) -> bool:
    """Whether an error is rounding; NaN is not."""
    if dtype == torch.float32 and torch.cuda.is_available() and torch.get_float32_matmul_precision() != "highest":
        dtype = torch.float16  # TensorFloat-32 keeps as many bits
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
