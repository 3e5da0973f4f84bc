"""Distance, entropy and prefix mass: the three measures that share one pass."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vitreous.capture.operator import AttentionOperator
from vitreous.measures.distance import AttentionDistance, depth_trend, uniform_distance
from vitreous.measures.entropy import AttentionEntropy
from vitreous.measures.mass import PrefixMass
from vitreous.tokens import TokenLayout

LAYOUT = TokenLayout(1, 14, 14, 16, 16, 0)


def distances(attention: Tensor, layout: TokenLayout = LAYOUT) -> tuple[Tensor, Tensor, Tensor]:
    measure = AttentionDistance()
    measure.update(0, AttentionOperator(weights=attention), layout)
    return measure.result()


def on_patches(patches: Tensor) -> Tensor:
    """Attention among 196 patches with a class token put in front that nobody looks at: (1, 1, 197, 197)."""
    whole = torch.eye(197)
    whole[1:, 1:] = patches
    return whole[None, None]


def the_authors_loop(attention: Tensor, layout: TokenLayout) -> list[list[float]]:
    """Issue 162's definition in plain loops: (images, heads)."""
    found = []
    for image in attention.tolist():
        heads = []
        for head in image:
            total = 0.0
            for i in range(layout.patches):
                for j in range(layout.patches):
                    down = (i // layout.columns - j // layout.columns) * layout.patch_height
                    across = (i % layout.columns - j % layout.columns) * layout.patch_width
                    total += head[layout.prefix + i][layout.prefix + j] * math.sqrt(down**2 + across**2)
            heads.append(total / layout.patches)
        found.append(heads)
    return found


def test_distance_is_the_authors_definition() -> None:
    layout = TokenLayout(3, 3, 5, 8, 4, 0)
    attention = (2 * torch.randn(4, 2, 18, 18)).softmax(-1)
    slow = torch.tensor(the_authors_loop(attention, layout))
    mean, spread, _ = distances(attention, layout)
    torch.testing.assert_close(mean[0].float(), slow.mean(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(spread[0].float(), slow.std(0, correction=0), rtol=1e-4, atol=1e-5)


def test_distance_of_uniform_attention_is_the_published_oracle() -> None:
    mean, _, _ = distances(on_patches(torch.full((196, 196), 1 / 196)))
    assert float(mean) == pytest.approx(116.492, abs=1e-3)
    assert uniform_distance(LAYOUT) == pytest.approx(116.492, abs=1e-3)


def test_distance_of_a_head_that_looks_at_itself_is_0() -> None:
    assert float(distances(on_patches(torch.eye(196)))[0]) == 0


def test_distance_of_a_shift_by_one_column_is_one_patch() -> None:
    shift = torch.eye(14).roll(1, 1)
    shift[-1] = torch.eye(14)[-2]  # the last column looks back, also one patch away
    mean, _, _ = distances(on_patches(torch.block_diag(*[shift] * 14)))
    assert float(mean) == pytest.approx(16)


def test_attention_on_the_class_token_shortens_the_papers_distance_and_not_the_renormalised_one() -> None:
    whole = on_patches(torch.full((196, 196), 0.75 / 196))
    whole[..., 1:, 0] = 0.25
    mean, _, renormalized = distances(whole)
    assert float(mean) == pytest.approx(0.75 * 116.492, abs=1e-3)
    assert float(renormalized) == pytest.approx(116.492, abs=1e-3)


def test_a_row_wholly_on_the_class_token_has_distance_0_in_both_readings() -> None:
    whole = torch.zeros(1, 1, 197, 197)
    whole[..., 0] = 1
    assert [float(value) for value in distances(whole)] == [0, 0, 0]


def test_entropy_and_mass_of_uniform_attention_are_the_closed_forms() -> None:
    layout = TokenLayout(5, 4, 4, 16, 16, 0)
    operator = AttentionOperator(weights=torch.full((2, 3, 21, 21), 1 / 21))
    entropy, mass = AttentionEntropy(), PrefixMass()
    entropy.update(0, operator, layout)
    mass.update(0, operator, layout)
    assert entropy.result().tolist() == [pytest.approx([math.log2(21)] * 3, rel=1e-6)]
    assert mass.result().tolist() == [pytest.approx([5 / 21] * 3, rel=1e-6)]


def test_mass_counts_only_the_patches_as_queries() -> None:
    layout = TokenLayout(1, 2, 2, 8, 8, 0)
    weights = torch.eye(5)[None, None].clone()  # the class token looks at itself, patches at themselves
    mass = PrefixMass()
    mass.update(0, AttentionOperator(weights=weights), layout)
    assert float(mass.result()) == 0


@pytest.mark.parametrize("kind", [AttentionDistance, AttentionEntropy, PrefixMass])
def test_batches_and_merged_processes_give_what_one_batch_gives(kind) -> None:
    layout = TokenLayout(1, 3, 3, 16, 16, 0)
    attention = [(2 * torch.randn(7, 2, 10, 10)).softmax(-1) for _ in range(3)]

    def measured(*parts: slice):
        measure = kind()
        for part in parts:
            for layer, weights in enumerate(attention):
                measure.update(layer, AttentionOperator(weights=weights[part]), layout)
        return measure

    whole = measured(slice(0, 7)).result()
    in_batches = measured(slice(0, 3), slice(3, 4), slice(4, 7)).result()
    merged = kind()
    merged.merge(measured(slice(0, 2)))
    merged.merge(measured(slice(2, 7)))
    results = [r if isinstance(r, tuple) else (r,) for r in (whole, in_batches, merged.result())]
    for expected, *others in zip(*results, strict=True):
        for other in others:
            torch.testing.assert_close(other, expected, rtol=1e-12, atol=1e-12)


def test_heads_keep_their_places() -> None:
    layout = TokenLayout(0, 3, 3, 16, 16)
    attention = (2 * torch.randn(1, 4, 9, 9)).softmax(-1)
    order = [2, 0, 3, 1]
    torch.testing.assert_close(distances(attention[:, order], layout)[0], distances(attention, layout)[0][:, order])


def test_depth_trend_is_the_least_squares_line() -> None:
    distance = torch.tensor([[10.0, 30.0], [25.0, 35.0], [40.0, 40.0]])
    trend = depth_trend(distance)
    assert trend == pytest.approx(
        {
            "first_layer_mean": 20,
            "last_layer_mean": 40,
            "mean_per_layer": 10,
            "first_layer_spread": 10,
            "last_layer_spread": 0,
            "spread_per_layer": -5,
        }
    )
    assert depth_trend(distance[:1])["mean_per_layer"] == 0


def test_the_renormalised_distance_keeps_shares_that_rounding_would_lose() -> None:
    scores = torch.zeros(1, 1, 197, 197)
    scores[..., 0] = 30.0  # all but 1e-11 of every row is on the class token
    mean, _, renormalized = distances(scores.softmax(-1))
    assert float(mean) < 1e-6
    assert float(renormalized) == pytest.approx(116.492, abs=1e-2)
