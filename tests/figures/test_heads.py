import numpy as np
import pytest
import torch

from vitreous.errors import ShapeError
from vitreous.figures import draw_class_attention
from vitreous.figures.canvas import blank

MAPS = torch.rand(3, 2, 4, 5, generator=torch.Generator().manual_seed(0))  # (layers, heads, rows, columns)


def test_layers_go_right_and_heads_go_down_each_map_over_its_largest():
    picture = np.asarray(draw_class_attention(MAPS).axes[0].images[0].get_array())
    assert picture.shape == (2 * 5 - 1, 3 * 6 - 1)
    for layer in range(3):
        for head in range(2):
            tile = picture[5 * head : 5 * head + 4, 6 * layer : 6 * layer + 5]
            np.testing.assert_allclose(tile, (MAPS[layer, head] / MAPS[layer, head].max()).numpy(), rtol=1e-6)


def test_axes_colours_and_range_are_stated():
    axes = draw_class_attention(MAPS, name="photo.jpg").axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("layer (0 is the first)", "head")
    assert axes.images[0].get_clim() == (0, 1)
    assert axes.child_axes[0].get_ylabel() == "attention / largest"
    assert axes.get_title(loc="left") == "photo.jpg"


def test_the_thumbnail_stands_beside_the_sheet():
    thumbnail = torch.full((20, 25, 3), 9, dtype=torch.uint8)
    left, sheet = draw_class_attention(MAPS, thumbnail).axes[:2]
    assert np.array_equal(left.images[0].get_array(), thumbnail.numpy())
    assert left.child_axes[0].get_xlabel() == "attention over the\nlargest of its map"
    assert left.get_position().x1 < sheet.get_position().x0


def test_a_map_without_attention_stays_dark():
    picture = np.asarray(draw_class_attention(torch.zeros(1, 1, 2, 2)).axes[0].images[0].get_array())
    assert (picture == 0).all()


def test_it_draws_into_axes_it_is_given():
    figure = blank(4, 4)
    assert draw_class_attention(MAPS, axes=figure.add_subplot()) is figure
    assert tuple(figure.get_size_inches()) == (4, 4)


def test_maps_of_several_images_are_refused():
    with pytest.raises(ShapeError, match="layers, heads, rows, columns"):
        draw_class_attention(MAPS[None])
