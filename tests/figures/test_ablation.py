import numpy as np
import pytest

from vitreous.errors import NumericError, ShapeError
from vitreous.figures.ablation import Mean, draw_ablation_by_name, draw_ablation_by_rate


def mean(value, *others):
    values = (value, *others)
    return Mean(float(np.mean(values)), 0.01 if others else None, values)


POSITIONS = {
    "at the stem": {"none": mean(0.6, 0.62), "1-D": mean(0.7, 0.71), "2-D": mean(0.72, 0.7)},
    "at every layer": {"1-D": mean(0.68, 0.69), "2-D": mean(0.69, 0.69)},
}
RATES = {
    "class token": {"0.001": mean(0.7, 0.72), "0.0003": mean(0.6, 0.61)},
    "average": {"0.001": mean(0.71, 0.7), "0.0003": mean(0.5, 0.52)},
}


def marks(axes, index):
    """Where the means of one series stand: (marks, 2)."""
    found = [one.get_offsets() for one in axes.collections if one.get_label() == list(POSITIONS)[index]]
    return np.asarray(found[0])


def test_means_stand_over_their_names_beside_those_of_other_series():
    (axes,) = draw_ablation_by_name(POSITIONS, "positions").axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["none", "1-D", "2-D"]
    stem, layers = marks(axes, 0), marks(axes, 1)
    assert stem[:, 0].tolist() == [0, 0.75, 1.75]  # alone in the middle, else to the left
    assert layers[:, 0].tolist() == [1.25, 2.25]
    assert stem[:, 1].tolist() == pytest.approx([0.61, 0.705, 0.71])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(POSITIONS)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("positions", "test accuracy, top-1 (%)")


def test_bars_are_the_intervals_and_dots_the_runs():
    (axes,) = draw_ablation_by_name(POSITIONS, "positions").axes
    bars = [bar.get_segments()[0] for bar in axes.collections if hasattr(bar, "get_segments") and bar.get_segments()]
    first = next(bar for bar in bars if bar[0][0] == 0)
    assert first[:, 1].tolist() == pytest.approx([0.60, 0.62])
    runs = [np.asarray(one.get_offsets()) for one in axes.collections if str(one.get_label()).startswith("_")]
    heights = sorted(round(float(y), 6) for dots in runs if dots.ndim == 2 and len(dots) == 2 for y in dots[:, 1])
    assert heights == sorted(v for s in POSITIONS.values() for one in s.values() for v in one.values)


def test_accuracies_are_percents_and_the_caption_tells_what_is_drawn():
    figure = draw_ablation_by_name(POSITIONS, "positions")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    low, high = axes.get_ylim()
    assert 0.5 < low < 0.6 and 0.72 < high < 0.8
    assert {"60", "65", "70"} <= {label.get_text() for label in axes.get_yticklabels()}
    words = " ".join(text.get_text() for text in axes.texts).replace("\n", " ")
    assert "the mean of 2, a bar its 95 % t-interval" in words and "does not begin at 0" in words


def test_one_run_has_no_bar_and_one_series_no_legend():
    (axes,) = draw_ablation_by_name({"top-1": {"4 x 4 pixels, 64 patches": mean(0.7), "8": mean(0.0)}}, "patch").axes
    assert axes.get_legend() is None and not axes.containers
    assert axes.get_xticklabels()[0].get_text() == "4 x 4 pixels,\n64 patches"
    assert axes.get_ylim()[0] == 0
    words = " ".join(text.get_text() for text in axes.texts)
    assert "one run each: no interval" in words and "begin" not in words


def test_rates_stand_in_order_on_a_logarithmic_axis_and_each_has_its_name():
    (axes,) = draw_ablation_by_rate(RATES).axes
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "learning rate (logarithmic)"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.0003", "0.001"]
    lines = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_linewidth() == 1.3]
    assert [line.get_ydata() for line in lines] == [pytest.approx([0.605, 0.71]), pytest.approx([0.51, 0.705])]
    for line in lines:
        assert line.get_xdata() == pytest.approx([0.0003, 0.001], rel=0.05)


def test_one_wide_bar_does_not_flatten_all_others():
    wide = {"a": {"x": Mean(0.6, 5.0, (0.6, 0.61)), "y": mean(0.65, 0.66)}}
    (axes,) = draw_ablation_by_name(wide, "x").axes
    low, high = axes.get_ylim()
    assert high - low < 0.3
    assert "bars that reach the frame are longer" in axes.texts[0].get_text().replace("\n", " ")
    (axes,) = draw_ablation_by_name(POSITIONS, "x").axes
    assert "longer" not in axes.texts[0].get_text()


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ShapeError, match="at least one run"):
        draw_ablation_by_name({}, "x")
    with pytest.raises(ShapeError, match=r"numbers above 0 .* got 'high'"):
        draw_ablation_by_rate({"a": {"high": mean(0.5)}})
    with pytest.raises(NumericError):
        draw_ablation_by_name({"a": {"x": mean(float("nan"))}}, "x")
