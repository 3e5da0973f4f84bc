import numpy as np
import pytest
import torch

from vitreous.errors import ShapeError
from vitreous.figures import draw_position_similarity
from vitreous.figures.canvas import blank


def striped(rows, columns):
    """Every pair's cosine tells which pair it is."""
    return torch.linspace(-0.5, 1, (rows * columns) ** 2).reshape(rows, columns, rows, columns)


def test_each_tile_is_the_map_of_its_patch():
    cosines = striped(3, 4)
    picture = np.asarray(draw_position_similarity(cosines).axes[0].images[0].get_array())
    assert picture.shape == (3 * 4 - 1, 4 * 5 - 1)
    for row in range(3):
        for column in range(4):
            tile = picture[4 * row : 4 * row + 3, 5 * column : 5 * column + 4]
            np.testing.assert_array_equal(tile.astype(np.float32), cosines[row, column].numpy())


def test_colours_go_from_minus_1_to_1_whatever_the_values():
    image = draw_position_similarity(0.1 * striped(3, 3)).axes[0].images[0]
    assert image.get_clim() == (-1, 1)


def test_axes_and_colours_are_labelled():
    figure = draw_position_similarity(striped(3, 3), {"locality": 0.5, "row_column": -0.25})
    axes = figure.axes[0]
    assert axes.get_xlabel() == "column of the patch"
    assert axes.get_ylabel() == "row of the patch"
    assert axes.child_axes[0].get_ylabel() == "cosine similarity"
    assert axes.texts[0].get_text() == "locality 0.50, row-column -0.25"


def test_a_large_grid_shows_evenly_spaced_patches_and_says_so():
    cosines = striped(24, 24)
    axes = draw_position_similarity(cosines).axes[0]
    picture = np.asarray(axes.images[0].get_array())
    assert picture.shape == (12 * 25 - 1, 12 * 25 - 1)
    np.testing.assert_array_equal(picture[:24, :24].astype(np.float32), cosines[1, 1].numpy())
    assert axes.get_xticklabels()[0].get_text() == "1"
    assert "one patch in 2" in axes.texts[0].get_text()


def test_it_draws_into_axes_it_is_given_and_leaves_their_size():
    figure = blank(3, 7)
    assert draw_position_similarity(striped(2, 2), axes=figure.add_subplot()) is figure
    assert tuple(figure.get_size_inches()) == (3, 7)


def test_two_different_grids_are_refused():
    with pytest.raises(ShapeError, match="twice the same grid"):
        draw_position_similarity(torch.zeros(3, 4, 4, 3))
    with pytest.raises(ShapeError, match="rows, columns, rows, columns"):
        draw_position_similarity(torch.zeros(9, 9))
