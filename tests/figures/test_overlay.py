import numpy as np
import pytest
import torch

from vitreous.errors import NumericError, ShapeError
from vitreous.figures.canvas import blank
from vitreous.figures.depth import Quantity
from vitreous.figures.distance import draw_attention_distance
from vitreous.figures.overlay import draw_overlay

TWO = {"a": torch.tensor([[1.0, 3.0], [4.0, 8.0]]), "b": torch.tensor([[0.0, 2.0], [2.0, 2.0]])}
PIXELS = Quantity("distance (pixels)", {"a": 5.0, "b": 6.0}, "even")


def series(axes):
    """The lines over depth, without the levels."""
    return [line for line in axes.lines if line.get_marker() != "None"]


def words(axes):
    return "\n".join(text.get_text() for text in axes.texts)


def test_a_line_is_the_mean_over_heads_of_each_layer():
    (axes,) = draw_overlay(TWO, PIXELS).axes
    assert [line.get_ydata().tolist() for line in series(axes)] == [[2, 6], [1, 2]]
    assert [line.get_xdata().tolist() for line in series(axes)] == [[0, 1], [0, 1]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("layer (0 is the first)", "distance (pixels)")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]


def test_models_of_different_depth_are_drawn_over_relative_depth():
    (axes,) = draw_overlay(TWO | {"c": torch.ones(5, 2), "d": torch.ones(1, 2)}, PIXELS).axes
    assert series(axes)[0].get_xdata().tolist() == [0, 1]
    assert series(axes)[2].get_xdata().tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert series(axes)[3].get_xdata().tolist() == [0]
    assert axes.get_xlabel() == "relative depth (0 first, 1 last layer)"


def test_the_band_is_one_standard_deviation_over_heads():
    (axes,) = draw_overlay(TWO, PIXELS).axes
    corners = axes.collections[0].get_paths()[0].vertices
    assert sorted(set(corners[corners[:, 0] == 0, 1])) == [1, 3]  # 2 ± 1
    assert sorted(set(corners[corners[:, 0] == 1, 1])) == [4, 8]
    assert "standard deviation" in words(axes)
    (crowded,) = draw_overlay({str(index): TWO["a"] for index in range(4)}, PIXELS).axes
    assert not crowded.collections and "standard deviation" not in words(crowded)


def test_each_model_has_its_level_in_its_colour_and_room_for_it():
    (axes,) = draw_overlay(TWO, PIXELS).axes
    levels = [line for line in axes.lines if line.get_marker() == "None"]
    assert [line.get_ydata()[0] for line in levels] == [5, 6]
    assert [line.get_color() for line in levels] == [line.get_color() for line in series(axes)]
    assert axes.get_ylim() == pytest.approx((0, 1.08 * 8))
    assert "dotted: even" in words(axes)


def test_twelve_models_look_different_and_every_name_is_there():
    names = ["_hidden", "$x_{", *map(str, range(10))]
    (axes,) = draw_overlay(dict.fromkeys(names, TWO["a"]), Quantity("y")).axes
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in series(axes)}
    assert len(looks) == 12
    assert [text.get_text() for text in axes.get_legend().get_texts()] == names
    axes.figure.draw_without_rendering()


def test_it_draws_into_axes_it_is_given():
    axes = blank(4, 3).add_subplot()
    assert draw_overlay(TWO, PIXELS, axes=axes) is axes.figure


def test_nothing_to_draw_and_nan_are_refused():
    with pytest.raises(ShapeError, match="at least one model"):
        draw_overlay({}, PIXELS)
    with pytest.raises(ShapeError, match="layers, heads"):
        draw_overlay({"a": torch.ones(3)}, PIXELS)
    with pytest.raises(NumericError, match="nan"):
        draw_overlay({"a": torch.tensor([[np.nan]])}, PIXELS)


def test_panels_of_many_models_stand_in_rows_of_four_with_one_axis_and_their_own_level():
    models = {f"model {index}": TWO["a"] * index for index in range(1, 7)}
    uniform = {name: 10.0 * index for index, name in enumerate(models, 1)}
    figure = draw_attention_distance(models, uniform=uniform, unit="diagonals")
    assert len(figure.axes) == 6
    assert len({round(axes.get_position().y0, 6) for axes in figure.axes}) == 2
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    assert [axes.lines[0].get_ydata()[0] for axes in figure.axes] == [10, 20, 30, 40, 50, 60]
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert [index for index, label in enumerate(labels) if label] == [0, 3]
    assert labels[0] == "mean attention distance (diagonals)"
    assert draw_attention_distance(TWO, top=99.0).axes[0].get_ylim() == (0, 99)
