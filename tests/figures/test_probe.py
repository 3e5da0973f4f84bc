import pytest
import torch

from vitreous.errors import ConfigError, NumericError, ShapeError
from vitreous.figures.files import write_figure
from vitreous.figures.probe import draw_probe

LAYERS = ("embedding", "layer 0", "layer 1", "read-out")
DRAWS = torch.tensor([[0.1, 0.3], [0.4, 0.6], [0.5, 0.9], [0.8, 0.8]])  # (layers, draws)


def lines(axes):
    return [line for line in axes.lines if line.get_marker() != "None"]


def test_lines_are_the_means_over_the_draws_in_percent():
    (axes,) = draw_probe(LAYERS, {"5 shots": DRAWS, "linear": DRAWS[:, 0]}, chance=0.1).axes
    several, single = lines(axes)
    assert several.get_xdata().tolist() == [0, 1, 2, 3]
    assert several.get_ydata().tolist() == pytest.approx([20, 50, 70, 80])
    assert single.get_ydata().tolist() == pytest.approx([10, 40, 50, 80])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["5 shots", "linear"]
    (band,) = axes.collections  # the deviation of two draws is their distance over the root of 2
    low, high = band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max()
    assert low == pytest.approx(20 - 20 / 2**0.5) and high == pytest.approx(70 + 40 / 2**0.5)
    (dotted,) = [line for line in axes.lines if line.get_marker() == "None"]
    assert dotted.get_ydata() == [10, 10]
    assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > 80
    assert "standard deviation" in axes.texts[-1].get_text() and "chance, 10.0%" in axes.texts[-1].get_text()


def test_layers_are_named_below_the_axis():
    (axes,) = draw_probe(LAYERS, {"linear": DRAWS[:, 0]}, title="a $model$ on _data_").axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["E", "0", "1", "R"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("layer (E embedding, R read-out)", "accuracy (%)")
    assert axes.get_figure().get_suptitle() == "a $model$ on _data_"
    (axes,) = draw_probe(("stage 0", "stage 1", "read-out"), {"linear": DRAWS[:3, 0]}).axes
    assert axes.get_xlabel() == "stage (R read-out)"
    many = ("embedding", *(f"layer {n}" for n in range(40)), "read-out")
    (axes,) = draw_probe(many, {"linear": torch.rand(42, generator=torch.Generator().manual_seed(0))}).axes
    names = [tick.get_text() for tick in axes.get_xticklabels()]
    assert names[0] == "E" and names[-1] == "R" and len(names) < 20
    assert [names[tick] for tick in range(1, 4)] == ["2", "5", "8"]


def test_a_single_draw_has_no_band():
    (axes,) = draw_probe(LAYERS, {"one": DRAWS[:, :1]}).axes
    assert not axes.collections


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ShapeError, match="at least one line"):
        draw_probe(LAYERS, {})
    with pytest.raises(ShapeError, match="expected 4 accuracies of linear, one a layer, but got 3"):
        draw_probe(LAYERS, {"linear": DRAWS[:3, 0]})
    with pytest.raises(NumericError):
        draw_probe(LAYERS, {"linear": DRAWS[:, 0] * torch.nan})
    with pytest.raises(ConfigError, match=r"probe.txt is no name for a figure; it ends in .png, .pdf or .svg"):
        write_figure(draw_probe(LAYERS, {"linear": DRAWS[:, 0]}), tmp_path / "probe.txt")


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("SVG", b"<?xml")])
def test_a_figure_is_the_kind_of_file_that_its_name_says(tmp_path, kind, start):
    write_figure(draw_probe(LAYERS, {"linear": DRAWS[:, 0]}), tmp_path / f"new/probe.{kind}")
    assert (tmp_path / f"new/probe.{kind}").read_bytes().startswith(start)


@pytest.mark.parametrize("names", [("1 shot", "5 shots", "10 shots", "25 shots"), ("1 shot", "5 shots")])
def test_numbers_of_shots_stand_in_one_row_in_their_order(names):
    figure = draw_probe(LAYERS, dict.fromkeys(names, DRAWS))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    boxes = [text.get_window_extent() for text in axes.get_legend().get_texts()]
    assert len({round(box.y0) for box in boxes}) == 1
    assert [box.x0 for box in boxes] == sorted(box.x0 for box in boxes)
    assert boxes[-1].x1 < figure.bbox.x1
