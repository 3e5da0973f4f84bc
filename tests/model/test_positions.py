from __future__ import annotations

import pytest
import torch
from timm.layers import resample_abs_pos_embed

from vitreous.errors import ShapeError
from vitreous.model.positions import resample_positions


def a_table(tokens: int, width: int = 8) -> torch.Tensor:
    return torch.randn(1, tokens, width, generator=torch.Generator().manual_seed(0))


def test_an_equal_grid_gives_the_same_tensor() -> None:
    table = a_table(1 + 12)
    assert resample_positions(table, (3, 4), (3, 4), prefix=1) is table


@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize("new_grid", [(7, 7), (4, 6), (3, 2), (2, 18), (6, 6), (12, 3)])
def test_it_equals_timms(prefix: int, new_grid: tuple[int, int]) -> None:
    table = a_table(prefix + 36)
    ours = resample_positions(table, (6, 6), new_grid, prefix)
    theirs = resample_abs_pos_embed(table, list(new_grid), [6, 6], num_prefix_tokens=prefix)
    assert torch.equal(ours, theirs)


def test_a_grid_of_as_many_patches_but_another_form_is_resampled() -> None:
    table = a_table(36)
    assert not torch.equal(resample_positions(table, (6, 6), (4, 9), 0), table)


def test_prefix_tokens_keep_their_positions() -> None:
    table = a_table(3 + 16)
    assert torch.equal(resample_positions(table, (4, 4), (9, 5), 3)[:, :3], table[:, :3])


def test_a_constant_table_stays_constant() -> None:
    table = torch.full((1, 16, 2), 0.5)
    torch.testing.assert_close(resample_positions(table, (4, 4), (7, 3), 0), torch.full((1, 21, 2), 0.5))


def test_half_precision_comes_back_as_it_was() -> None:
    assert resample_positions(a_table(16).half(), (4, 4), (6, 6), 0).dtype == torch.float16


def test_a_table_of_another_length_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"it is \(1, 17, width\)"):
        resample_positions(a_table(16), (4, 4), (5, 5), prefix=1)
