"""The kernels beside dense float64 matrices: in Triton's interpreter with TRITON_INTERPRET=1, else on a GPU.

The interpreter takes Triton over for a whole process, so `test_triton.py` runs this file in one of its own.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import pytest
import torch
import triton.language as tl
from torch import Tensor

from vitreous.capture import triton as kernels
from vitreous.capture.operator import AttentionOperator
from vitreous.tokens import TokenLayout

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [  # of the interpreter's numpy
    pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning"),  # past the end, unused
]

HALF, WHOLE = torch.float16, torch.float32
LAYOUT = TokenLayout(5, 9, 11, 16, 8, 0)  # 104 tokens: not a multiple of any block, more than one of each


@pytest.fixture(scope="module", autouse=True)
def bfloat16_is_no_integer() -> Any:
    """Triton's interpreter keeps bfloat16 as uint16, and multiplies matrices of them as integers."""
    if not INTERPRETED:
        yield
        return
    from triton.runtime import interpreter

    def widened(held: Any) -> Any:
        if held.dtype != tl.bfloat16:
            return held
        return interpreter.TensorHandle((held.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    create_dot = interpreter.InterpreterBuilder.create_dot
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            interpreter.InterpreterBuilder,
            "create_dot",
            lambda self, a, b, *rest: create_dot(self, widened(a), widened(b), *rest),
        )
        yield


def make(
    layout: TokenLayout = LAYOUT,
    dtype: torch.dtype = HALF,
    head_dim: int = 16,
    scale: float | None = None,
    bias: Tensor | None = None,
    images: int = 1,
) -> AttentionOperator:
    generator = torch.Generator().manual_seed(layout.tokens)
    shape = (images, 2, layout.tokens, head_dim)
    q, k = (torch.randn(shape, generator=generator).to(DEVICE, dtype) for _ in range(2))
    bias = None if bias is None else bias.to(DEVICE)
    return AttentionOperator(q, k, head_dim**-0.5 if scale is None else scale, bias)


def weights_for(operator: AttentionOperator) -> Tensor:
    return torch.rand(operator.shape[:3], generator=torch.Generator().manual_seed(1)).to(DEVICE)


def by_hand(operator: AttentionOperator, layout: TokenLayout, weights: Tensor) -> dict[str, Tensor]:
    """Every sum from whole matrices in float64, by its equation."""
    assert operator.queries is not None and operator.keys is not None
    scores = operator.queries.double() @ operator.keys.double().mT * operator.scale  # (batch, heads, queries, keys)
    if operator.bias is not None:
        scores = scores + operator.bias.double()
    attention = scores.softmax(-1)
    costs = torch.zeros(layout.tokens, layout.tokens, dtype=torch.float64)
    costs[layout.prefix :, layout.prefix :] = layout.distances()
    return {
        "entropy": -(attention * torch.where(attention > 0, attention, 1.0).log2()).sum(-1),
        "cost": (attention * costs.to(DEVICE)).sum(-1),
        "prefix_mass": attention[..., : layout.prefix].sum(-1),
        "rest_mass": attention[..., layout.prefix :].sum(-1),
        "log_sum_exp": scores.logsumexp(-1),
        "pulled": (weights.double()[:, :, None] @ attention)[:, :, 0],
    }


def check(operator: AttentionOperator, layout: TokenLayout, tolerances: dict[str, float] | None = None) -> None:
    """All sums within 1e-5 of their largest value: the budget for float32."""
    weights = weights_for(operator)
    found = kernels.statistics(operator, layout.token_distances, layout.prefix, weights)
    for name, expected in by_hand(operator, layout, weights).items():
        close(getattr(found, name), expected, (tolerances or {}).get(name, 1e-5), name)


def close(found: Tensor | None, expected: Tensor, tolerance: float = 1e-5, name: str = "") -> None:
    assert found is not None and found.dtype == torch.float32 and found.shape == expected.shape
    error = float((found.double() - expected).abs().max() / expected.abs().max().clamp_min(1e-300))
    assert error <= tolerance, f"{name} is off by {error:.1e} of its largest value"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "layout",
    [
        TokenLayout(0, 16, 4, 16, 16),  # whole blocks
        TokenLayout(1, 2, 3, 4, 4, 0),  # less than a block
        LAYOUT,
        TokenLayout(20, 2, 41, 14, 7, 3),  # more prefix tokens than a block of them has
    ],
    ids=lambda layout: f"{layout.prefix} + {layout.rows} x {layout.columns}",
)
def test_every_sum_equals_the_dense_float64_matrix(layout: TokenLayout, dtype: torch.dtype) -> None:
    check(make(layout, dtype, images=2), layout)


@pytest.mark.parametrize(("dtype", "head_dim"), [(WHOLE, 3), (HALF, 64), (torch.bfloat16, 80), (HALF, 192)])
def test_heads_of_any_width_are_taken(dtype: torch.dtype, head_dim: int) -> None:
    check(make(dtype=dtype, head_dim=head_dim), LAYOUT)


@pytest.mark.parametrize("scale", [0.02, 3.0])
def test_the_scale_is_the_operators(scale: float) -> None:
    check(make(scale=scale), LAYOUT)


def test_scores_of_thousands_keep_their_small_differences() -> None:
    """Whole numbers, so that float32 holds every score; what is pulled goes through a logarithm of a few thousand."""
    generator = torch.Generator().manual_seed(0)
    q = torch.randint(-20, 21, (1, 1, 104, 16), generator=generator).float()
    k = torch.full((1, 1, 104, 16), 40.0)  # a score's large part is the same for all keys
    q[..., 0] = 1
    k[..., 0] = torch.randint(-8, 9, (104,), generator=generator).float()
    scores = q @ k.mT * 0.25
    assert scores.abs().max() > 1000 and (scores.amax(-1) - scores.amin(-1)).max() <= 4
    operator = AttentionOperator(q.to(DEVICE), k.to(DEVICE), 0.25)
    check(operator, LAYOUT, {"pulled": float(scores.abs().max()) * 2**-22})


BIASES = {
    "for every pair": lambda draw: draw(2, 2, 104, 104),
    "one for all heads and images": lambda draw: draw(104, 104),
    "for keys alone": lambda draw: draw(104),
    "for queries alone": lambda draw: draw(2, 1, 104, 1),
    "by image, keys hidden": lambda draw: draw(2, 1, 1, 104).masked_fill(torch.arange(104) % 3 == 1, -math.inf),
    "whole blocks hidden": lambda draw: draw(2, 104, 1).masked_fill(torch.arange(104) < 75, -math.inf),
    "all before the last hidden": lambda draw: draw(1, 104).masked_fill(torch.arange(104) < 103, -math.inf),
    "float16 lowest": lambda draw: draw(1, 104).masked_fill(torch.arange(104) < 75, -65504.0).half(),
    "bfloat16, by head, transposed": lambda draw: draw(2, 104, 104).mT.bfloat16(),
}


@pytest.mark.parametrize("name", BIASES)
def test_a_bias_of_any_shape_is_added(name: str) -> None:
    generator = torch.Generator().manual_seed(2)
    bias = BIASES[name](lambda *shape: torch.randn(shape, generator=generator))
    check(make(bias=bias, images=2 if bias.ndim == 4 else 1), LAYOUT)


def test_a_query_that_may_see_no_key_has_no_numbers_and_others_keep_theirs() -> None:
    bias = torch.zeros(104, 104)
    bias[30] = -math.inf
    operator = make(bias=bias)
    found = kernels.statistics(operator, LAYOUT.token_distances, 5, None)
    expected = by_hand(make(), LAYOUT, weights_for(operator))
    others = torch.arange(104) != 30
    for name in ("entropy", "cost", "prefix_mass", "rest_mass", "log_sum_exp"):
        assert bool(getattr(found, name)[:, :, 30].isnan().all()), name
        close(getattr(found, name)[:, :, others], expected[name][:, :, others], name=name)


@pytest.mark.parametrize("bias", [None, torch.zeros(104)], ids=["without bias", "with a bias"])
def test_nan_is_not_hidden(bias: Tensor | None) -> None:
    operator = make(bias=bias)
    assert operator.queries is not None and operator.keys is not None
    operator.queries[0, 0, 50, 3] = operator.keys[0, 1, 50, 3] = math.nan
    found = kernels.statistics(operator, LAYOUT.token_distances, 5, None)
    expected = torch.zeros(1, 2, 104, dtype=torch.bool)
    expected[0, 0, 50] = expected[0, 1] = True  # one query; every query that meets the key
    for name in ("entropy", "cost", "prefix_mass", "rest_mass", "log_sum_exp"):
        assert torch.equal(getattr(found, name).isnan().cpu(), expected), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_strided_queries_and_keys_are_read_in_place_and_results_repeat_bit_by_bit(dtype: torch.dtype) -> None:
    packed = torch.randn(1, 104, 3, 2, 20, generator=torch.Generator().manual_seed(3)).to(DEVICE, dtype)
    q, k, _ = packed.permute(2, 0, 3, 1, 4).unbind(0)  # as a fused qkv projection gives them
    k = k.mT.contiguous().mT  # and keys that lie by columns
    strided = AttentionOperator(q, k, 0.2)
    whole = AttentionOperator(q.contiguous(), k.contiguous(), 0.2)
    ours, theirs = (
        kernels.statistics(one, LAYOUT.token_distances, 5, weights_for(strided)) for one in (strided, whole)
    )
    for name in ("entropy", "cost", "prefix_mass", "rest_mass", "log_sum_exp", "pulled"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name


def test_other_keys_than_queries_are_summed_where_there_is_no_layout() -> None:
    generator = torch.Generator().manual_seed(5)
    q, k = (torch.randn(1, 2, tokens, 16, generator=generator).to(DEVICE) for tokens in (40, 70))
    operator = AttentionOperator(q, k, 0.25)
    attention = (q.double() @ k.double().mT * 0.25).softmax(-1)
    found = kernels.statistics(operator, None, 3, None)
    assert found.cost is None and found.pulled is None
    close(found.entropy, -(attention * attention.log2()).sum(-1))
    close(found.prefix_mass, attention[..., :3].sum(-1))
    all_prefix = kernels.statistics(operator, None, 99, None)
    close(all_prefix.entropy, -(attention * attention.log2()).sum(-1))
    close(all_prefix.prefix_mass, attention.sum(-1))
    close(kernels.pull(operator, torch.ones(1, 1, 40).to(DEVICE)), attention.sum(2))


@pytest.mark.parametrize("queries", [104, 1100], ids=["looked at in one step", "looked at in two"])
def test_pulled_weights_may_be_few(queries: int) -> None:
    generator = torch.Generator().manual_seed(4)
    q, k = (torch.randn(2, 1, count, 16, generator=generator).to(DEVICE, HALF) for count in (queries, 40))
    operator = AttentionOperator(q, k, 0.25)
    scores = q.double() @ k.double().mT * 0.25
    operator.__dict__["log_sum_exp"] = scores.logsumexp(-1).float()
    attention = scores.softmax(-1)
    some = torch.zeros(2, 1, queries, device=DEVICE)
    assert kernels.pull(operator, some).abs().max() == 0
    last = queries - 1
    some[0, 0, 0] = some[1, 0, last] = 1
    expected = torch.stack([attention[0, :, 0], attention[1, :, last]])
    close(kernels.pull(operator, some), expected)
    some[0, 0, 70] = -0.5
    expected[0] -= 0.5 * attention[0, :, 70]
    close(kernels.pull(operator, some), expected)
