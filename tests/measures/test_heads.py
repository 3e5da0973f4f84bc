"""Distance, entropy and prefix mass: the three measures that share one pass."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vitreous.capture.operator import AttentionOperator, RowStatistics
from vitreous.errors import CaptureError
from vitreous.measures.distance import depth_trend, longest_distance, uniform_distance
from vitreous.measures.heads import HEAD_MEASURES
from vitreous.measures.moments import BINS, HeadMoments
from vitreous.tokens import TokenLayout

LAYOUT = TokenLayout(1, 14, 14, 16, 16, 0)


def distances(attention: Tensor, layout: TokenLayout = LAYOUT) -> tuple[Tensor, Tensor, Tensor]:
    paper = measured("attention_distance", [attention], layout)
    return paper.mean(), paper.spread(), measured("attention_distance_renormalized", [attention], layout).mean()


def measured(name: str, attention: list[Tensor], layout: TokenLayout, *batches: slice) -> HeadMoments:
    """One of the measures of some layers' attention, each (images, heads, tokens, tokens), batch by batch."""
    moments, measure = HeadMoments(), HEAD_MEASURES[name]
    for batch in batches or (slice(None),):
        rows = RowStatistics.stack(
            [
                AttentionOperator(weights=one[batch]).statistics(layout.token_distances, layout.prefix)
                for one in attention
            ]
        )
        moments.update(measure.values(rows, layout), measure.highest(layout))
    return moments


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
    uniform = [torch.full((2, 3, 21, 21), 1 / 21)]
    assert measured("attention_entropy", uniform, layout).mean().tolist() == [pytest.approx([math.log2(21)] * 3)]
    assert measured("prefix_mass", uniform, layout).mean().tolist() == [pytest.approx([5 / 21] * 3)]


def test_mass_counts_only_the_patches_as_queries() -> None:
    layout = TokenLayout(1, 2, 2, 8, 8, 0)
    weights = torch.eye(5)[None, None].clone()  # the class token looks at itself, patches at themselves
    assert float(measured("prefix_mass", [weights], layout).mean()) == 0


@pytest.mark.parametrize("name", HEAD_MEASURES)
def test_batches_and_merged_processes_give_what_one_batch_gives(name: str) -> None:
    layout = TokenLayout(1, 3, 3, 16, 16, 0)
    attention = [(2 * torch.randn(7, 2, 10, 10)).softmax(-1) for _ in range(3)]
    whole = measured(name, attention, layout)
    in_batches = measured(name, attention, layout, slice(0, 3), slice(3, 4), slice(4, 7))
    merged = HeadMoments()
    for part in (slice(0, 2), slice(2, 7)):
        merged.merge(HeadMoments.from_state(measured(name, attention, layout, part).state()))
    merged.merge(HeadMoments())
    for other in (in_batches, merged):
        torch.testing.assert_close(other.mean(), whole.mean(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(other.spread(), whole.spread(), rtol=1e-12, atol=1e-12)
        assert torch.equal(other.histogram(), whole.histogram())
    queries = layout.tokens if name == "attention_entropy" else layout.patches
    assert whole.histogram().shape == (3, 2, BINS) and whole.histogram().sum(-1).unique().tolist() == [7 * queries]


def test_histograms_put_the_ends_into_the_first_and_the_last_bin() -> None:
    layout = TokenLayout(0, 2, 2, 16, 16)
    swapped = torch.eye(4).flip(0)[None, None]  # every patch looks at the opposite corner
    assert longest_distance(layout) == pytest.approx(16 * math.sqrt(2))
    for attention, bin in ((torch.eye(4)[None, None], 0), (swapped, BINS - 1)):
        histogram = measured("attention_distance", [attention], layout).histogram()
        assert histogram[0, 0].nonzero().tolist() == [[bin]] and int(histogram.sum()) == 4


def test_a_single_patch_has_distance_0() -> None:
    histogram = measured("attention_distance", [torch.ones(1, 1, 1, 1)], TokenLayout(0, 1, 1, 16, 16)).histogram()
    assert int(histogram[0, 0, 0]) == 1


def test_layers_of_different_heads_are_refused() -> None:
    with pytest.raises(CaptureError, match="2 to 3 heads"):
        measured("attention_entropy", [torch.ones(1, n, 4, 4) / 4 for n in (2, 3)], TokenLayout(0, 2, 2, 8, 8))


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
