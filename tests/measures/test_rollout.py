from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vitreous.capture.operator import AttentionOperator
from vitreous.errors import ConfigError, ShapeError
from vitreous.measures.rollout import attention_rollout, read_out
from vitreous.tokens import TokenLayout

LAYOUT = TokenLayout(1, 3, 4, 16, 16, 0)


def layers(count: int, tokens: int = 13, batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [(3 * torch.randn(batch, 4, tokens, tokens, generator=generator)).softmax(-1) for _ in range(count)]


def operators(attention: list[Tensor]) -> list[AttentionOperator]:
    return [AttentionOperator(weights=one) for one in attention]


def the_papers_product(attention: list[Tensor], fuse, residual: float = 0.5) -> Tensor:
    """Abnar & Zuidema, equation 1, as it stands: the whole product, (batch, tokens, tokens)."""
    product = torch.eye(attention[0].shape[-1], dtype=torch.float64)
    for layer in attention:
        fused = fuse(layer.double())
        fused = fused / fused.sum(-1, keepdim=True)
        product = (residual * torch.eye(fused.shape[-1], dtype=torch.float64) + (1 - residual) * fused) @ product
    return product


FUSIONS = {"mean": lambda a: a.mean(1), "max": lambda a: a.amax(1), "min": lambda a: a.amin(1)}


@pytest.mark.parametrize("heads", FUSIONS)
@pytest.mark.parametrize("residual", [0.0, 0.5, 0.9])
def test_rollout_is_a_row_of_the_papers_product(heads, residual: float) -> None:
    attention = layers(5)
    product = the_papers_product(attention, FUSIONS[heads], residual)
    for token in (0, 7):
        found = attention_rollout(operators(attention), LAYOUT, token=token, heads=heads, residual=residual)
        torch.testing.assert_close(found.double(), product[:, token], rtol=1e-5, atol=1e-7)
    mean = attention_rollout(operators(attention), LAYOUT, token="mean", heads=heads, residual=residual)
    torch.testing.assert_close(mean.double(), product[:, 1:].mean(1), rtol=1e-5, atol=1e-7)


def test_rollout_sums_to_1_for_every_image() -> None:
    found = attention_rollout(operators(layers(4, batch=3)), LAYOUT)
    torch.testing.assert_close(found.sum(-1), torch.ones(3))


def test_rollout_of_uniform_attention_is_the_closed_form() -> None:
    depth = 6
    found = attention_rollout(operators([torch.full((1, 2, 13, 13), 1 / 13)] * depth), LAYOUT)
    share = (1 - 2**-depth) / 13
    expected = torch.full((1, 13), share)
    expected[0, 0] += 2**-depth
    torch.testing.assert_close(found, expected)


def test_rollout_of_the_identity_is_the_token_itself() -> None:
    found = attention_rollout(operators([torch.eye(13).expand(1, 2, 13, 13)] * 3), LAYOUT, token=5)
    assert found.argmax() == 5 and float(found[0, 5]) == pytest.approx(1)


def test_rollout_of_a_cyclic_shift_is_binomial() -> None:
    shift = torch.eye(13).roll(1, dims=1).expand(1, 1, 13, 13)  # token i looks at token i + 1
    found = attention_rollout(operators([shift] * 4), LAYOUT, token=2)
    expected = torch.zeros(13)
    expected[2:7] = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    torch.testing.assert_close(found[0], expected)


def test_rollout_follows_the_tokens_when_they_are_permuted() -> None:
    attention = layers(3)
    order = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(12)])
    permuted = [one[:, :, order][:, :, :, order] for one in attention]
    torch.testing.assert_close(
        attention_rollout(operators(permuted), LAYOUT), attention_rollout(operators(attention), LAYOUT)[:, order]
    )


def test_read_out_is_the_class_token_or_the_mean_of_the_patches() -> None:
    assert read_out(LAYOUT).tolist() == [1.0] + [0.0] * 12
    assert read_out(TokenLayout(4, 1, 2, 8, 8)).tolist() == [0.0, 0.0, 0.0, 0.0, 0.5, 0.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"residual": 1.0}, "residual is 1.0"),
        ({"heads": "median"}, "choose mean, max or min"),
        ({"token": 13}, "tokens 0 to 12"),
        ({"token": "classs"}, "a class token and tokens 0 to 12"),
    ],
)
def test_settings_that_do_not_exist_are_refused(arguments, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        attention_rollout(operators(layers(1)), LAYOUT, **arguments)


def test_layers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="no class token"):
        read_out(TokenLayout(0, 2, 2, 4, 4), "class")
    with pytest.raises(ShapeError, match="the layout has 13"):
        attention_rollout(operators(layers(2, tokens=12)), LAYOUT)
    with pytest.raises(ShapeError, match="at least one layer"):
        attention_rollout([], LAYOUT)
