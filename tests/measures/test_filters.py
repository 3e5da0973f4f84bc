from __future__ import annotations

import numpy as np
import pytest
import torch

from vitreous.errors import ShapeError
from vitreous.measures.filters import embedding_filters


@pytest.mark.parametrize("width", [40, 400], ids=["fewer filters than entries", "more filters than entries"])
def test_components_are_scikit_learns(width: int) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    kernel = torch.randn(width, 3, 6, 6, generator=torch.Generator().manual_seed(0)).cumsum(-1)
    components, variance = embedding_filters(kernel, 10)
    reference = decomposition.PCA(10, svd_solver="full").fit(kernel.flatten(1).double().numpy())
    np.testing.assert_allclose(variance.numpy(), reference.explained_variance_ratio_, rtol=1e-5)
    cosines = np.abs((components.flatten(1).double().numpy() * reference.components_).sum(1))
    np.testing.assert_allclose(cosines, 1, atol=1e-6)


def test_a_single_direction_comes_back_with_its_largest_entry_positive() -> None:
    direction = torch.zeros(3, 4, 4)
    direction[1, 2, 3], direction[0, 0, 0] = -4.0, 3.0
    kernel = torch.linspace(-1, 1, 9)[:, None, None, None] * direction
    components, variance = embedding_filters(kernel)
    assert components.shape == (1, 3, 4, 4)
    torch.testing.assert_close(components[0], -direction / 5)
    assert variance.tolist() == pytest.approx([1.0])


def test_a_common_offset_of_all_filters_changes_nothing() -> None:
    kernel = torch.randn(30, 3, 4, 4)
    offset = 5 * torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(
        embedding_filters(kernel)[0], embedding_filters(kernel + offset)[0], rtol=1e-3, atol=1e-4
    )


def test_identical_filters_have_no_component() -> None:
    components, variance = embedding_filters(torch.ones(8, 3, 4, 4))
    assert components.shape == (0, 3, 4, 4) and len(variance) == 0


def test_another_shape_is_refused() -> None:
    with pytest.raises(ShapeError, match="width, channels, height, width"):
        embedding_filters(torch.zeros(8, 48))
