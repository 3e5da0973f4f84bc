import dataclasses
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from vitreous.errors import NumericError, ShapeError
from vitreous.figures import canvas
from vitreous.figures.places import draw_read_out, draw_translation

MADE = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "arrangements.py")))  # tests are no package


def lines(axes):
    return [line for line in axes.lines if line.get_marker() not in ("None", "")]


def dashes(line):
    return str(line._unscaled_dash_pattern)  # the public name is "--" for all of them


def caption(figure):
    return figure.get_supxlabel().replace("\n", " ")


def test_each_model_has_a_panel_with_a_line_a_condition():
    made = MADE.arrangement()
    figure = draw_read_out(made)
    for place, (axes, model) in enumerate(zip(figure.axes, made.models, strict=True)):
        assert axes.get_title(loc="left") == model.name
        for line, values in zip(lines(axes), model.read_out.values(), strict=True):
            assert list(line.get_ydata()) == list(values)
            assert list(line.get_xdata()) == list(range(len(model.layers)))
            assert line.get_color() == canvas.SERIES[place] and line.get_marker() == canvas.MARKERS[place]
        assert len({dashes(line) for line in lines(axes)}) == 3
        (level,) = [line for line in axes.lines if line.get_marker() == "None"]
        assert set(level.get_ydata()) == {0}
        assert axes.get_ylim() == figure.axes[0].get_ylim()
    assert figure.axes[0].get_ylim()[0] < -0.03 and figure.axes[0].get_ylim()[1] == 1.04
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "images as they are", "rolled images", "rolled images, no positions or no zero padding",
    ]  # fmt: skip
    assert figure.axes[0].get_ylabel() == "R² of row, column"


def test_values_far_below_0_are_outside_the_frame_and_it_is_said():
    model = MADE.model("m")
    made = MADE.arrangement([dataclasses.replace(model, read_out={"images as they are": (-7.0, *[0.5] * 6)})])
    figure = draw_read_out(made)
    assert figure.axes[0].get_ylim()[0] == pytest.approx(-0.54)
    assert "what is below -0.5 is outside the frame" in caption(figure)
    assert "outside" not in caption(draw_read_out(MADE.arrangement()))


@pytest.mark.parametrize(
    ("layers", "ticks", "words"),
    [
        (("embedding", "layer 0", "layer 1"), ["E", "0", "1"], "layer (E embedding)"),
        (("unit 0", "unit 1"), ["0", "1"], "unit"),
        (("unit 0", "embedding", "layer 0"), ["u0", "E", "l0"], "u unit, l layer, E embedding"),
        (("$x$ \\frac{", "_"), ["$", "_"], "$ $x$ \\frac{, _ _"),
        (tuple(f"layer {n}" for n in range(16)), [str(n) for n in range(0, 16, 2)], "layer"),
    ],
)
def test_layers_are_named_below_the_axis(layers, ticks, words):
    model = dataclasses.replace(MADE.model("m"), layers=layers, read_out={"images as they are": (0.5,) * len(layers)})
    figure = draw_read_out(MADE.arrangement([model]))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ticks
    assert axes.get_xlabel() == words


def test_translation_has_answers_above_and_errors_by_layer_below():
    made = MADE.arrangement()
    figure = draw_translation(made)
    top, *panels = figure.axes
    for place, model in enumerate(made.models):
        line = lines(top)[place]
        assert list(line.get_xdata()) == [1, 2, 4]
        assert list(line.get_ydata()) == pytest.approx([100 * one.agreement.value for one in model.shifted.values()])
        band = top.collections[place].get_paths()[0].vertices[:, 1]
        assert band.min() == pytest.approx(100 * min(one.agreement.low for one in model.shifted.values()))
        assert band.max() == pytest.approx(100 * max(one.agreement.high for one in model.shifted.values()))
        for drawn, pixels in zip(lines(panels[place]), (1, 2, 4), strict=True):
            assert list(drawn.get_ydata()) == list(model.equivariance[pixels])
        assert panels[place].get_ylim() == panels[0].get_ylim() and panels[place].get_ylim()[1] > 1
    assert top.get_ylim()[0] > 0 and "the upper axis does not begin at 0" in caption(figure)
    assert "a band is a 95 % interval over 2,000 images" in caption(figure)
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [entry for entry in entries if entry] == [
        "cifar10-ti4", "cifar10-resnet", "shift of 1 px", "shift of 2 px", "shift of 4 px",
    ]  # fmt: skip


def test_shifts_that_only_one_model_had_keep_their_dashes():
    first, second = MADE.model("a"), MADE.model("b")
    second = dataclasses.replace(second, shifted={8: second.shifted[4]}, equivariance={8: second.equivariance[4]})
    figure = draw_translation(MADE.arrangement([first, second]))
    legend = dict(
        zip([t.get_text() for t in figure.legends[0].get_texts()], figure.legends[0].legend_handles, strict=True)
    )
    (drawn,) = lines(figure.axes[2])
    assert dashes(drawn) == dashes(legend["shift of 8 px"])
    assert len({dashes(legend[f"shift of {pixels} px"]) for pixels in (1, 2, 4, 8)}) == 4
    assert list(figure.axes[0].get_xticks()) == [1, 2, 4, 8]


def test_what_cannot_be_told_is_a_gap():
    model = MADE.model("m")
    gaps = dataclasses.replace(model, equivariance={1: (None, 0.5, None, 1.7, 0.1, 0.2, 0.3), 2: (None,) * 7})
    figure = draw_translation(MADE.arrangement([gaps]))
    first, second = lines(figure.axes[1])
    assert np.isnan(first.get_ydata()).tolist() == [True, False, True, False, False, False, False]
    assert np.isnan(second.get_ydata()).all()
    assert figure.axes[1].get_ylim()[1] == pytest.approx(1.08 * 1.7)


def test_what_does_not_fit_is_refused():
    model = MADE.model("m")
    with pytest.raises(ShapeError, match="whose positions were read out"):
        draw_read_out(MADE.arrangement([dataclasses.replace(model, read_out={})]))
    with pytest.raises(ShapeError, match="expected 7 numbers, one a layer, but got 2"):
        draw_read_out(MADE.arrangement([dataclasses.replace(model, read_out={"rolled images": (0.1, 0.2)})]))
    with pytest.raises(NumericError):
        draw_read_out(MADE.arrangement([dataclasses.replace(model, read_out={"rolled images": (float("nan"),) * 7})]))
    with pytest.raises(ShapeError, match="at least one shift"):
        draw_translation(MADE.arrangement([dataclasses.replace(model, shifted={}, equivariance={})]))
    with pytest.raises(NumericError):
        draw_translation(MADE.arrangement([dataclasses.replace(model, equivariance={1: (float("inf"),) * 7})]))
    for draw in (draw_read_out, draw_translation):
        with pytest.raises(ShapeError):
            draw(MADE.arrangement([]))
