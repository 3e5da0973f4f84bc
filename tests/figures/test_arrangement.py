import dataclasses
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from vitreous.arrangement.result import Interval
from vitreous.errors import NumericError, ShapeError
from vitreous.figures import canvas
from vitreous.figures.arrangement import (
    draw_grid_shuffle,
    draw_occlusion,
    draw_positions,
    write_arrangement_figures,
)

MADE = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "arrangements.py")))  # tests are no package


def lines(axes):
    """Of models: all but levels to compare with."""
    return [line for line in axes.lines if line.get_marker() not in ("None", "_")]


def ends(axes, place):
    """Lowest and highest of the band or bar of the model at this place, by x."""
    found = {}
    for path in axes.collections[place].get_paths():
        for x, y in path.vertices:
            low, high = found.get(round(float(x), 6), (y, y))
            found[round(float(x), 6)] = (min(low, y), max(high, y))
    return found


def words(figure):
    figure.draw_without_rendering()
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    return " ".join(texts).replace("\n", " ")


def names(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_lines_of_the_grid_shuffle_are_the_numbers_and_bands_their_intervals():
    made = MADE.arrangement()
    accuracy, divergence, cosine = draw_grid_shuffle(made).axes
    for axes, name, factor in ((accuracy, "accuracy", 100), (divergence, "divergence", 1), (cosine, "cosine", 1)):
        for place, model in enumerate(made.models):
            line = lines(axes)[place]
            numbers = {k: getattr(answers, name) for k, answers in model.shuffled.items()}
            assert list(line.get_xdata()) == [1, 2, 4, 8]
            assert list(line.get_ydata()) == pytest.approx([factor * numbers[k].value for k in (1, 2, 4, 8)])
            for k in (2, 4, 8):
                assert ends(axes, place)[k] == pytest.approx((factor * numbers[k].low, factor * numbers[k].high))
    assert [axes.get_ylabel() for axes in (accuracy, divergence, cosine)] == [
        "accuracy (%)", "divergence (nats)", "cosine of features",
    ]  # fmt: skip
    assert accuracy.get_ylim() == (0, 104) and divergence.get_ylim()[0] == 0 and cosine.get_ylim() == (0, 1.04)


def test_grids_stand_at_even_steps_and_are_named():
    figure = draw_grid_shuffle(MADE.arrangement())
    figure.draw_without_rendering()
    last = figure.axes[-1]
    assert [tick.get_text() for tick in last.get_xticklabels()] == ["1", "2", "4", "8"]
    assert last.get_xscale() == "log" and "logarithmic" in last.get_xlabel()


def test_chance_is_dotted_where_there_are_labels_and_agreement_is_drawn_where_there_are_none():
    labelled = draw_grid_shuffle(MADE.arrangement())
    (level,) = [line for line in labelled.axes[0].lines if line.get_marker() == "None"]
    assert set(level.get_ydata()) == {10}
    assert "dotted: chance, 1 of 10 classes" in words(labelled)
    made = MADE.arrangement(labels=False)
    bare = draw_grid_shuffle(made)
    assert bare.axes[0].get_ylabel() == "same answer (%)" and len(bare.axes[0].lines) == 2
    shares = [100 * answers.agreement.value for answers in made.models[0].shuffled.values()]
    assert list(lines(bare.axes[0])[0].get_ydata()) == pytest.approx(shares)
    assert "chance" not in words(bare)


def test_a_model_has_one_colour_and_marker_in_all_figures():
    models = [MADE.model("cnn", "CNN"), MADE.model("vit"), MADE.model("other", "hybrid")]
    made = MADE.arrangement(models)
    for draw in (draw_grid_shuffle, draw_positions, draw_occlusion):
        figure = draw(made)
        legend = dict(zip(names(figure), figure.legends[0].legend_handles, strict=True))
        assert set(legend) == ({"vit", "other"} if draw is draw_positions else {"cnn", "vit", "other"})
        for place, model in enumerate(models):
            if model.name in legend:
                look = (canvas.SERIES[place], canvas.MARKERS[place])
                assert (legend[model.name].get_color(), legend[model.name].get_marker()) == look
                assert look in {(line.get_color(), line.get_marker()) for line in figure.axes[0].lines}


def test_many_models_have_bars_in_place_of_bands_and_it_is_said():
    models = [MADE.model(f"model {place}", strength=place + 1) for place in range(8)]
    figure = draw_grid_shuffle(MADE.arrangement(models))
    assert ends(figure.axes[0], 3)[4.0] == pytest.approx(
        (100 * models[3].shuffled[4].accuracy.low, 100 * models[3].shuffled[4].accuracy.high)
    )
    assert "a bar is a 95 % interval over 2,000 images" in words(figure)
    assert "a band is a 95 % interval" in words(draw_grid_shuffle(MADE.arrangement(models[:3])))
    seventh = lines(figure.axes[0])[6]
    assert seventh.get_color() == canvas.SERIES[0] and seventh.get_linestyle() != "-"


def test_one_image_has_no_intervals_and_it_is_said():
    made = MADE.arrangement([MADE.model("one", half=None)], images=1)
    for figure in (draw_grid_shuffle(made), draw_occlusion(made), draw_positions(made)):
        assert "no intervals" in words(figure) and "95 %" not in words(figure)
        drawn = [path.vertices for part in figure.axes[0].collections for path in part.get_paths()]
        assert all(not len(points) or (points != points).any() for points in drawn)  # nothing, or NaN


def test_position_embeddings_have_a_mark_a_condition_beside_the_unchanged():
    made = MADE.arrangement([MADE.model("a"), MADE.model("b", "CNN"), MADE.model("c", strength=2)])
    accuracy, divergence = draw_positions(made).axes
    assert [tick.get_text() for tick in divergence.get_xticklabels()] == [
        "unchanged", "zeroed", "shuffled", "transplanted",
    ]  # fmt: skip
    for place, model in enumerate((made.models[0], made.models[2])):
        expected = [model.shuffled[1], *(model.positions[name] for name in ("zeroed", "shuffled", "transplanted"))]
        for axes, name, factor in ((accuracy, "accuracy", 100), (divergence, "divergence", 1)):
            dots = lines(axes)[place]
            assert list(dots.get_ydata()) == pytest.approx([factor * getattr(one, name).value for one in expected])
            assert list(dots.get_xdata()) == pytest.approx([at + (0.2 if place else -0.2) for at in range(4)])
            bars = list(ends(axes, place).values())
            known = [getattr(one, name) for one in expected if getattr(one, name).low is not None]
            edges = [(factor * one.low, factor * one.high) for one in known]
            assert len(bars) >= 3
            assert np.allclose(bars[-len(edges) :], edges)
    assert "not drawn: 1 without a table of position embeddings" in words(divergence.get_figure())


def test_occlusion_has_a_panel_an_order_with_the_areas_above_it():
    made = MADE.arrangement()
    figure = draw_occlusion(made)
    for axes, order in zip(figure.axes, ("random", "centre first", "rollout"), strict=True):
        for place, model in enumerate(made.models):
            curve = model.occluded[order]
            assert list(lines(axes)[place].get_xdata()) == pytest.approx([100 * share for share in curve])
            values = [100 * answers.accuracy.value for answers in curve.values()]
            assert list(lines(axes)[place].get_ydata()) == pytest.approx(values)
        areas = [text.get_text() for text in axes.get_legend().get_texts()]
        one = made.models[0].areas[order]
        assert areas[0] == f"{one.value:.2f} ({one.low:.2f}–{one.high:.2f})"
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["at random", "centre first", "by rollout"]
    assert figure.axes[-1].get_xlabel() == "patches hidden (%)"
    assert "rollout, for all models: that of cifar10-ti4" in words(figure)


def test_what_a_model_lacks_is_left_out():
    bare = dataclasses.replace(MADE.model("bare"), occluded={"random": {}}, areas={}, positions={})
    made = MADE.arrangement([MADE.model("whole"), bare], rollout_of=None)
    figure = draw_occlusion(made)
    assert len(lines(figure.axes[0])) == 1 and "rollout" not in words(figure)
    assert names(draw_positions(made)) == ["whole"]
    with pytest.raises(ShapeError, match="a model with a table of position embeddings"):
        draw_positions(MADE.arrangement([bare]))
    with pytest.raises(ShapeError, match="at least one order"):
        draw_occlusion(MADE.arrangement([dataclasses.replace(bare, occluded={})]))
    with pytest.raises(ShapeError, match="at least one model"):
        draw_grid_shuffle(MADE.arrangement([]))


@pytest.mark.parametrize("number", [Interval(float("nan")), Interval(0.5, 0.4, float("inf"))])
def test_what_is_no_number_is_refused(number):
    whole = MADE.model("whole")
    broken = dataclasses.replace(whole.shuffled[4], accuracy=number)
    made = MADE.arrangement([dataclasses.replace(whole, shuffled={**whole.shuffled, 4: broken})])
    with pytest.raises(NumericError):
        draw_grid_shuffle(made)


def test_names_from_outside_are_drawn_as_they_are(tmp_path):
    hostile = ("_private", "$x$ \\frac{", "a" * 300, "\udcff\x00\u202e")
    figure = draw_grid_shuffle(MADE.arrangement([MADE.model(name) for name in hostile]))
    figure.savefig(tmp_path / "figure.svg")
    assert names(figure)[:2] == ["_private", "$x$ \\frac{"]
    assert len(names(figure)[2]) <= 48


def test_all_figures_are_written_as_pdf_and_png_and_only_those_with_numbers(tmp_path):
    small = dataclasses.replace(MADE.model("m", "CNN"), occluded={}, areas={}, read_out={})
    written = write_arrangement_figures(MADE.arrangement([small]), None, tmp_path / "new")
    assert [path.name for path in written] == [
        "grid-shuffle.pdf",
        "grid-shuffle.png",
        "translation.pdf",
        "translation.png",
    ]
    assert written[0].read_bytes().startswith(b"%PDF") and written[1].read_bytes().startswith(b"\x89PNG")
    everything = write_arrangement_figures(MADE.arrangement(), MADE.faces(seeds=2), tmp_path / "all")
    assert [path.stem for path in everything[::2]] == [
        "grid-shuffle", "position-read-out", "position-embeddings", "translation", "occlusion", "faces",
    ]  # fmt: skip
