import dataclasses
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vitreous.arrangement.result import Faces
from vitreous.errors import NumericError, ShapeError
from vitreous.figures import canvas
from vitreous.figures.faces import draw_faces_task

MADE = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "arrangements.py")))  # tests are no package
QUANTILE = 2.7764451051977987  # of Student's t, 4 degrees of freedom, 97.5 %, from tables


def pictures(faces):
    return torch.rand(len(faces.example_kinds), 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def faces():
    return MADE.faces()


@pytest.fixture(scope="module")
def figure(faces):
    return draw_faces_task(faces, pictures(faces))


def panels(figure):
    """The blocks of examples, and the panels of tests."""
    blocks = [axes for axes in figure.axes if axes.images]
    return blocks, [axes for axes in figure.axes if not axes.images]


def answers(axes):
    """What is written below the pictures: {(column, row): text}, rows from the top."""
    cells = [text for text in axes.texts if not hasattr(text, "xyann")]
    rows = sorted({round(text.get_position()[1], 6) for text in cells}, reverse=True)
    return {(int(t.get_position()[0]), rows.index(round(t.get_position()[1], 6))): t for t in cells}


def test_an_example_stands_below_its_kind_with_every_models_answer(faces, figure):
    given = np.rint(255 * pictures(faces).numpy()).transpose(0, 2, 3, 1)
    kinds = list(dict.fromkeys(faces.example_kinds))
    blocks, _ = panels(figure)
    assert len(blocks) == 2
    for nth, axes in enumerate(blocks):
        written = answers(axes)
        assert len(written) == len(kinds) * len(faces.models)
        for column, kind in enumerate(kinds):
            example = [place for place, one in enumerate(faces.example_kinds) if one == kind][nth]
            image = axes.images[column]
            assert np.array_equal(np.asarray(image.get_array()), given[example])
            assert column < image.get_extent()[0] < image.get_extent()[1] < column + 1
            for row, model in enumerate(faces.models):
                assert written[column, row].get_text() == f"{100 * model.answers[example]:.0f}"
    heads = [text.get_text().replace("\n", " ") for text in blocks[0].texts if hasattr(text, "xyann")]
    assert [head for head in heads if head in kinds] == kinds


def test_wrong_answers_alone_are_boxed_and_bold(faces, figure):
    kinds = list(dict.fromkeys(faces.example_kinds))
    blocks, _ = panels(figure)
    count = 0
    for nth, axes in enumerate(blocks):
        boxed = {(int(patch.get_x() + 0.5), round(patch.get_y() + patch.get_height() / 2, 6)) for patch in axes.patches}
        for (column, row), text in answers(axes).items():
            example = [place for place, one in enumerate(faces.example_kinds) if one == kinds[column]][nth]
            says_right = faces.models[row].answers[example] > 0.5
            is_wrong = says_right != (kinds[column] == "right")
            assert (text.get_fontweight() == "bold") == is_wrong
            assert ((column, round(text.get_position()[1], 6)) in boxed) == is_wrong
            count += is_wrong
    assert 0 < count < 20


def test_accuracies_are_a_dot_a_seed_with_their_mean_and_t_interval(faces, figure):
    _, tests = panels(figure)
    kinds = list(faces.models[0].accuracies)
    assert [axes.get_title().replace("\n", " ") for axes in tests] == kinds
    for axes, kind in zip(tests, kinds, strict=True):
        dots = [np.asarray(one.get_offsets()) for one in axes.collections]
        means = [line for line in axes.lines if line.get_marker() == "D"]
        bars = [line for line in axes.lines if line.get_marker() == "None" and len(set(line.get_ydata())) == 1]
        for row, model in enumerate(faces.models):
            shares = 100 * np.array(model.accuracies[kind])
            half = QUANTILE * shares.std(ddof=1) / 5**0.5
            assert dots[row][:, 0] == pytest.approx(shares)
            assert abs(dots[row][0, 1] - row) < 0.5 and abs(means[row].get_ydata()[0] - row) < 0.5
            assert means[row].get_xdata() == pytest.approx([shares.mean()])
            assert bars[row].get_xdata() == pytest.approx([shares.mean() - half, shares.mean() + half])
        upright = [line for line in axes.lines if len(set(line.get_ydata())) > 1]
        (chance,) = [line for line in upright if set(line.get_xdata()) == {50}]
        assert chance.get_linestyle() != "-"
        assert axes.get_xlim() == tests[0].get_xlim() and axes.get_ylim()[0] > axes.get_ylim()[1]  # first on top
    words = " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
    assert "accuracy (%)" in words and "the mean of 5, a bar its 95 % t-interval" in words and "chance" in words


def test_accuracies_below_the_frame_widen_it():
    faces = MADE.faces(seeds=2, examples=1, names=["one"])
    low = dataclasses.replace(faces.models[0], accuracies={"turned": (0.1, 0.2)})
    _, (axes,) = panels(draw_faces_task(dataclasses.replace(faces, models=(low,)), pictures(faces)))
    assert axes.get_xlim() == (-4, 104)


def test_one_seed_has_no_interval_and_it_is_said():
    faces = MADE.faces(seeds=1, examples=1)
    figure = draw_faces_task(faces, pictures(faces))
    blocks, tests = panels(figure)
    assert len(blocks) == 1
    assert not [line for line in tests[0].lines if line.get_marker() == "None" and len(set(line.get_ydata())) == 1]
    assert not tests[0].collections
    assert "one seed: no interval" in figure.texts[-1].get_text()


def test_nothing_is_written_outside_the_figure(faces, figure):
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    assert box.x0 >= 0 and box.x1 <= canvas.WIDTH and box.y0 >= 0 and box.y1 <= figure.get_figheight()


def test_names_from_outside_are_drawn_as_they_are(tmp_path):
    faces = MADE.faces(seeds=2, examples=1, names=["$x$ \\frac{", "_one", "n" * 200, "\udcff\x00"])
    accuracies = {"$y$ \\frac{ " * 9: (0.5, 0.6)}
    faces = dataclasses.replace(
        faces,
        example_kinds=("right", "$z$ \\frac{"),
        models=tuple(dataclasses.replace(one, accuracies=accuracies, answers=(0.1, 0.2)) for one in faces.models),
    )
    figure = draw_faces_task(faces, pictures(faces))
    figure.savefig(tmp_path / "figure.svg")
    blocks, _ = panels(figure)
    assert {"$x$ \\frac{", "_one", "$z$ \\frac{"} <= {text.get_text() for text in blocks[0].texts}


def test_the_same_after_a_journey_through_json(faces):
    import json

    back = Faces.from_dict(json.loads(json.dumps(faces.to_dict())))
    assert back == faces and back.models[0].interval("turned") == faces.models[0].interval("turned")


def test_what_does_not_fit_is_refused(faces):
    shown = pictures(faces)
    with pytest.raises(ShapeError, match="expected 12 pictures, one an example, but got 3"):
        draw_faces_task(faces, shown[:3])
    with pytest.raises(ShapeError, match="at least one model and one example"):
        draw_faces_task(dataclasses.replace(faces, models=()), shown)
    short = dataclasses.replace(faces.models[0], answers=(0.5,))
    with pytest.raises(ShapeError, match="expected 12 answers of CNN, one an example, but got 1"):
        draw_faces_task(dataclasses.replace(faces, models=(short,)), shown)
    for change in ({"answers": (float("nan"),) * 12}, {"accuracies": {"turned": (float("inf"),)}}):
        with pytest.raises(NumericError):
            draw_faces_task(dataclasses.replace(faces, models=(dataclasses.replace(faces.models[0], **change),)), shown)
