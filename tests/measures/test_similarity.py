from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vitreous.errors import ShapeError
from vitreous.measures.similarity import position_similarity, position_structure


def waves(rows: int, columns: int, period: float) -> Tensor:
    """A table whose cosine similarity is the mean of two cosines, of the row and of the column offset."""
    turn = 2 * math.pi / period
    down, across = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([(turn * down).sin(), (turn * down).cos(), (turn * across).sin(), (turn * across).cos()], -1)


def test_similarity_is_the_cosine_of_every_pair() -> None:
    table = torch.randn(3, 4, 9)
    found = position_similarity(table)
    assert found.shape == (3, 4, 3, 4)
    for i, j, k, m in [(0, 0, 2, 3), (1, 2, 1, 2), (2, 1, 0, 3)]:
        expected = torch.nn.functional.cosine_similarity(table[i, j], table[k, m], dim=0)
        assert float(found[i, j, k, m]) == pytest.approx(float(expected), abs=1e-6)


def test_similarity_of_waves_is_the_cosine_of_the_offset() -> None:
    found = position_similarity(waves(8, 6, 5.0))
    expected = (math.cos(2 * math.pi * 3 / 5) + math.cos(2 * math.pi * 2 / 5)) / 2
    assert float(found[1, 1, 4, 3]) == pytest.approx(expected, abs=1e-6)


def test_whole_periods_are_regained_and_a_steady_fall_is_not() -> None:
    assert position_structure(position_similarity(waves(9, 9, 4.0)))["periodicity"] == pytest.approx(1, abs=1e-6)
    assert position_structure(position_similarity(waves(9, 9, 40.0)))["periodicity"] == 0


def test_similarity_that_falls_with_distance_is_local() -> None:
    places = torch.cartesian_prod(torch.arange(7.0), torch.arange(7.0))
    falling = 1 - torch.cdist(places, places) / 20
    structure = position_structure(falling.reshape(7, 7, 7, 7))
    assert structure["locality"] == pytest.approx(1)
    assert abs(structure["row_column"]) < 0.5 / 20  # off-axis partners are up to half a patch nearer or farther


def test_rows_and_columns_that_share_a_part_are_found() -> None:
    rows, columns = torch.eye(6), torch.eye(5)
    table = torch.cat([rows[:, None].expand(6, 5, 6), columns[None].expand(6, 5, 5)], -1)  # half is shared in a row
    structure = position_structure(position_similarity(table))
    assert structure["row_column"] == pytest.approx(0.5)


def test_random_embeddings_show_no_structure() -> None:
    table = torch.randn(14, 14, 768, generator=torch.Generator().manual_seed(0))
    structure = position_structure(position_similarity(table))
    assert abs(structure["locality"]) < 0.05 and abs(structure["row_column"]) < 0.01


def test_a_single_patch_has_no_structure_and_another_shape_is_refused() -> None:
    assert position_structure(torch.ones(1, 1, 1, 1)) == {}
    with pytest.raises(ShapeError, match="rows, columns, width"):
        position_similarity(torch.zeros(4, 4))
