import numpy as np
import pytest
import torch

from vitreous.errors import ShapeError
from vitreous.figures import draw_filters
from vitreous.figures.canvas import blank


def components(count, channels=3, side=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, channels, side, side, generator=generator), torch.full((count,), 1 / count)


def picture(figure):
    return np.asarray(figure.axes[0].images[0].get_array())


def test_each_component_is_scaled_to_its_own_range():
    weights, variance = components(8)
    weights[3] *= 1000
    drawn = picture(draw_filters(weights, variance))
    for index in range(8):
        row, column = divmod(index, 7)
        tile = drawn[5 * row : 5 * row + 4, 5 * column : 5 * column + 4, :3]
        low, high = weights[index].min(), weights[index].max()
        expected = ((weights[index] - low) / (high - low)).permute(1, 2, 0)
        np.testing.assert_allclose(tile, expected.numpy(), atol=1e-6)


def test_28_components_are_shown_and_fewer_where_fewer_exist():
    assert picture(draw_filters(*components(40))).shape == (4 * 5 - 1, 7 * 5 - 1, 4)
    assert picture(draw_filters(*components(5))).shape == (4, 5 * 5 - 1, 4)


def test_missing_tiles_and_gaps_are_transparent():
    drawn = picture(draw_filters(*components(8)))
    assert (drawn[5:, 5:, 3] == 0).all()
    assert (drawn[4, :, 3] == 0).all()
    assert (drawn[:4, :4, 3] == 1).all()


def test_a_flat_component_is_grey():
    weights, variance = components(2)
    weights[0] = 7
    assert (picture(draw_filters(weights, variance))[:4, :4, :3] == 0.5).all()


def test_explained_variance_adds_up_in_per_cent():
    weights, _ = components(3)
    axes = draw_filters(weights, torch.tensor([0.5, 0.3, 0.1])).axes[1]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [50, 80, 90], rtol=1e-6)
    assert axes.get_xlabel() == "first components (3 explain 90.0 %)"
    assert axes.get_ylabel() == "variance\nexplained"
    assert axes.get_ylim()[0] == 0


@pytest.mark.parametrize(("channels", "words"), [(1, "range"), (3, "range"), (4, "mean of 4 channels")])
def test_other_channels_than_three_are_grey_and_named(channels, words):
    figure = draw_filters(*components(2, channels))
    drawn = picture(figure)
    assert (np.ptp(drawn[..., :3], axis=-1) == 0).all() == (channels != 3)
    assert figure.axes[0].texts[0].get_text().endswith(words)


def test_it_draws_into_axes_it_is_given():
    figure = blank(4, 4)
    assert draw_filters(*components(3), axes=tuple(figure.subplots(2, 1))) is figure


def test_wrong_counts_are_refused():
    weights, variance = components(3)
    with pytest.raises(ShapeError, match="each of 3 filters"):
        draw_filters(weights, variance[:2])
    with pytest.raises(ShapeError, match="components, channels"):
        draw_filters(weights[0], variance)
    with pytest.raises(ValueError, match="components is 0"):
        draw_filters(weights, variance, components=0)
