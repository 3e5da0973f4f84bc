import math

import numpy as np
import pytest
import torch

from vitreous.errors import NumericError, ShapeError
from vitreous.figures import draw_attention_distance, draw_entropy, draw_prefix_mass
from vitreous.figures.canvas import blank

DISTANCES = torch.tensor([[30.0, 10.0, 20.0], [80.0, 90.0, 70.0]])  # (layers, heads)


def dots(axes):
    (scatter,) = [part for part in axes.collections if len(part.get_offsets()) == DISTANCES.numel()]
    return np.asarray(scatter.get_offsets())


def captions(axes):
    return "\n".join(text.get_text() for text in axes.texts)


def test_the_dots_are_the_distances_of_each_layer_in_rising_order():
    (axes,) = draw_attention_distance({"model": DISTANCES}).axes
    assert dots(axes)[:, 1].tolist() == [10, 20, 30, 70, 80, 90]
    assert dots(axes)[:, 0].round().tolist() == [0, 0, 0, 1, 1, 1]
    assert np.diff(dots(axes)[:3, 0]).min() > 0  # no head hides another


def test_a_single_head_stands_exactly_on_its_layer():
    (axes,) = draw_attention_distance({"model": DISTANCES[:, :1].repeat(3, 1)}).axes
    assert dots(axes)[:, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_the_axes_say_pixels_bits_and_shares():
    words = {
        "mean attention distance (pixels)": draw_attention_distance({"": DISTANCES}),
        "attention entropy (bits)": draw_entropy({"": DISTANCES}),
        "attention on prefix tokens (share, 0 to 1)": draw_prefix_mass({"": DISTANCES / 100}),
    }
    for expected, figure in words.items():
        assert figure.axes[0].get_ylabel() == expected
        assert figure.axes[0].get_xlabel() == "layer (0 is the first)"


def test_the_y_axis_starts_at_zero_and_has_room_for_dots_bars_and_the_line():
    figure = draw_attention_distance({"m": DISTANCES}, spread={"m": DISTANCES}, uniform=120.0)
    bottom, top = figure.axes[0].get_ylim()
    assert bottom == 0
    assert top > 180  # the highest bar: 90 + 90


def test_prefix_mass_is_shown_from_0_to_1():
    assert draw_prefix_mass({"m": DISTANCES / 1000}).axes[0].get_ylim() == (0, 1)


def test_the_line_of_uniform_attention_is_where_it_was_told():
    axes = draw_attention_distance({"m": DISTANCES}, uniform=116.492).axes[0]
    assert axes.lines[0].get_ydata() == [116.492, 116.492]
    assert "116.5 pixels" in captions(axes)


def test_the_entropy_line_is_log2_of_the_tokens():
    axes = draw_entropy({"m": DISTANCES / 20}, tokens=197).axes[0]
    assert axes.lines[0].get_ydata()[0] == pytest.approx(math.log2(197))
    assert "7.62 bits" in captions(axes)


def test_bars_reach_one_standard_deviation_up_and_down():
    spread = torch.tensor([[3.0, 1.0, 2.0], [8.0, 9.0, 7.0]])
    axes = draw_attention_distance({"m": DISTANCES}, spread={"m": spread}).axes[0]
    bars = next(part for part in axes.collections if hasattr(part, "get_segments")).get_segments()
    assert [(low[1], high[1]) for low, high in bars[:3]] == [(9, 11), (18, 22), (27, 33)]
    assert "standard deviation" in captions(axes)


def test_models_side_by_side_share_one_y_axis_and_are_named():
    figure = draw_attention_distance({"ViT-L/16": DISTANCES, "R50x1 + ViT-L/16": DISTANCES * 2})
    left, right = figure.axes
    assert left.get_ylim() == right.get_ylim()
    assert [axes.get_title(loc="left") for axes in (left, right)] == ["ViT-L/16", "R50x1 + ViT-L/16"]


def test_it_draws_into_axes_it_is_given():
    figure = blank(6, 3)
    axes = list(figure.subplots(1, 2))
    assert draw_entropy({"a": DISTANCES, "b": DISTANCES}, axes=axes) is figure
    assert dots(axes[1])[:, 1].tolist() == [10, 20, 30, 70, 80, 90]


def test_arguments_are_not_changed():
    before = DISTANCES.clone()
    draw_attention_distance({"m": DISTANCES}, spread={"m": DISTANCES})
    assert torch.equal(DISTANCES, before)


def test_a_wrong_shape_is_refused_by_its_axes():
    with pytest.raises(ShapeError, match="layers, heads"):
        draw_attention_distance({"m": torch.zeros(2, 3, 4)})
    with pytest.raises(ShapeError, match="at least one model"):
        draw_attention_distance({})
    with pytest.raises(ShapeError, match="spread of m"):
        draw_attention_distance({"m": DISTANCES}, spread={"m": DISTANCES[:1]})
    with pytest.raises(ShapeError, match="spread of other"):
        draw_attention_distance({"m": DISTANCES}, spread={"other": DISTANCES})
    with pytest.raises(ShapeError, match="2 axes"):
        draw_entropy({"a": DISTANCES, "b": DISTANCES}, axes=[blank(2, 2).add_subplot()])


def test_nan_is_refused_with_its_place():
    broken = DISTANCES.clone()
    broken[1, 2] = torch.nan
    with pytest.raises(NumericError, match=r"\(1, 2\) is nan"):
        draw_attention_distance({"m": broken})
