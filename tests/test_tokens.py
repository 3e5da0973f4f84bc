from __future__ import annotations

import math

import pytest
import torch

from vitreous.errors import ShapeError
from vitreous.tokens import TokenLayout


@pytest.mark.parametrize(
    ("rows", "patch", "pixels"),
    [(14, 16, 116.492), (7, 32, 115.503), (16, 14, 116.565), (24, 16, 200.048), (28, 8, 116.722), (37, 14, 269.992)],
)
def test_mean_distance_of_a_square_grid_is_the_published_oracle(rows: int, patch: int, pixels: float) -> None:
    layout = TokenLayout(1, rows, rows, patch, patch, 0)
    assert float(layout.distances().mean()) == pytest.approx(pixels, abs=5e-4)


def test_distances_of_a_grid_that_is_not_square_follow_the_rows() -> None:
    layout = TokenLayout(2, 2, 3, 10, 4)
    slow = [
        [math.hypot(10 * (a - c), 4 * (b - d)) for c in range(2) for d in range(3)] for a in range(2) for b in range(3)
    ]
    assert layout.distances().tolist() == pytest.approx(torch.tensor(slow, dtype=torch.float64))


def test_token_distances_by_rows_are_the_whole_matrix_with_zeros_for_the_prefix() -> None:
    layout = TokenLayout(2, 3, 5, 8, 4, 0)
    whole = torch.zeros(layout.tokens, layout.tokens, dtype=torch.float64)
    whole[2:, 2:] = layout.distances()
    for step in (1, 4, 17):
        parts = [layout.token_distances(slice(a, min(a + step, 17))) for a in range(0, 17, step)]
        torch.testing.assert_close(torch.cat(parts).double(), whole, rtol=1e-6, atol=1e-6)


def test_patch_tokens_and_grid_keep_the_order() -> None:
    layout = TokenLayout(2, 2, 3, 4, 4, 1)
    sequence = torch.arange(8)
    assert layout.to_grid(layout.patch_tokens(sequence)).tolist() == [[2, 3, 4], [5, 6, 7]]
    assert layout.patch_tokens(torch.arange(16).view(8, 2), axis=0)[0].tolist() == [4, 5]
    assert (layout.tokens, layout.patches, layout.image_height, layout.image_width) == (8, 6, 8, 12)


def test_wrong_lengths_are_refused() -> None:
    layout = TokenLayout(1, 2, 2, 4, 4, 0)
    with pytest.raises(ShapeError, match="has length 4, but the layout has 5 tokens"):
        layout.patch_tokens(torch.zeros(4))
    with pytest.raises(ShapeError, match="has length 5, but the layout has 4 patches"):
        layout.to_grid(torch.zeros(5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 2, 2, 4, 4), "prefix is -1"),
        ((0, 0, 2, 4, 4), "rows is 0"),
        ((0, 2, 2, 4, 0), "patch_width is 0"),
        ((1, 2, 2, 4, 4, 1), "only tokens 0 to 0"),
    ],
)
def test_impossible_layouts_are_refused(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        TokenLayout(*arguments)
