from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.capture.watch import watch_attention
from vitreous.model import attend as module
from vitreous.model.attend import FEW_TOKENS, attend
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer

SHAPE = (2, 3, 17, 8)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(dtype: torch.dtype = torch.float32, *, shape: tuple[int, ...] = SHAPE) -> list[Tensor]:
    """Queries, keys, values, and a bias for each head."""
    tensors = [drawn(*shape, seed=seed) for seed in range(3)]
    tensors.append(drawn(1, shape[1], shape[2], shape[2], seed=3))
    return [tensor.to(dtype).requires_grad_() for tensor in tensors]


def slow(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    """One query after the other, in float64."""
    rows = torch.zeros_like(queries, dtype=torch.float64)
    for image, head, query in torch.cartesian_prod(*(torch.arange(length) for length in queries.shape[:3])).tolist():
        scores = (keys[image, head].double() @ queries[image, head, query].double()) / math.sqrt(queries.shape[-1])
        if bias is not None:
            scores = scores + bias[0, head, query].double()
        shares = (scores - scores.max()).exp()
        rows[image, head, query] = shares @ values[image, head].double() / shares.sum()
    return rows


def gradients(outputs: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    weights = drawn(*outputs.shape, seed=9).to(outputs.dtype)
    return list(torch.autograd.grad((outputs * weights).sum(), tensors))


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 0.06)])
def test_outputs_and_gradients_are_those_of_a_slow_loop_in_float64(
    dtype: torch.dtype, tolerance: float, with_bias: bool
) -> None:
    tensors = inputs(dtype)[: 4 if with_bias else 3]
    found = attend(*tensors)
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    expected = slow(*exact[:3], exact[3] if with_bias else None)
    torch.testing.assert_close(found.double(), expected, atol=tolerance, rtol=0)
    for ours, theirs in zip(gradients(found, tensors), gradients(expected, exact), strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=tolerance * theirs.abs().max().item(), rtol=0)


def calls_of_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    seen: list[tuple[int, ...]] = []
    fused = F.scaled_dot_product_attention

    def counted(queries: Tensor, *rest: Tensor, **more: Tensor | None) -> Tensor:
        seen.append(tuple(queries.shape))
        return fused(queries, *rest, **more)

    monkeypatch.setattr(module.F, "scaled_dot_product_attention", counted)
    return seen


def test_only_training_with_few_tokens_in_bfloat16_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = calls_of_the_fused_kernel(monkeypatch)
    attend(*inputs(torch.bfloat16)[:3])
    with torch.autocast("cpu", torch.bfloat16):
        attend(*inputs()[:3])
    assert not seen
    attend(*inputs()[:3])  # float32
    with torch.no_grad():
        attend(*inputs(torch.bfloat16)[:3])  # no training
    attend(*(tensor.detach() for tensor in inputs(torch.bfloat16)[:3]))  # frozen
    attend(*inputs(torch.bfloat16, shape=(1, 1, FEW_TOKENS + 1, 8))[:3])  # many tokens
    with torch.autocast("cpu", torch.float16):
        assert attend(*inputs()[:3]).dtype == torch.float16
    assert len(seen) == 5


@pytest.mark.parametrize("tokens", [FEW_TOKENS, FEW_TOKENS + 1])
def test_written_out_or_fused_the_same_comes_out(tokens: int) -> None:
    queries, keys, values, bias = inputs(torch.bfloat16, shape=(1, 2, tokens, 16))
    trained = attend(queries, keys, values, bias)
    with torch.no_grad():
        tested = attend(queries, keys, values, bias)
    torch.testing.assert_close(trained, tested, atol=0.02, rtol=0)


def a_model() -> VisionTransformer:
    config = ViTConfig((16, 16), (4, 4), width=24, depth=2, heads=3, classes=5, positions="relative-bias")
    model = VisionTransformer(config, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(drawn(*parameter.shape) * 0.1)
    return model


@pytest.mark.parametrize("is_half", [False, True])
def test_watching_while_testing_sees_every_layer_and_changes_no_bit(is_half: bool) -> None:
    model, images = a_model().eval(), drawn(2, 3, 16, 16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=is_half):
        expected = model(images)
        with watch_attention(model) as watched:
            found = model(images)
    assert torch.equal(found, expected)
    assert [operator.queries.shape for operator in watched.layers] == [(2, 3, 17, 8)] * 2


def test_in_training_the_gradients_of_bfloat16_point_where_those_of_float32_do() -> None:
    directions = []
    for enabled in (False, True):
        model = a_model().train()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits = model(drawn(4, 3, 16, 16))
        F.cross_entropy(logits.float(), torch.tensor([0, 1, 2, 3])).backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        assert gradient.dtype == torch.float32 and gradient.isfinite().all()
        directions.append(gradient / gradient.norm())
    assert (directions[0] @ directions[1]).item() > 0.999
