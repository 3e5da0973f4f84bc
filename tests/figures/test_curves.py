import pytest

from vitreous.errors import NumericError, ShapeError
from vitreous.figures.curves import draw_curves


def run(epochs=3, offset=0.0):
    """Lines as a run writes them: one every 50 steps, and one for each epoch of 120 steps."""
    lines = []
    for step in range(1, 120 * epochs + 1):
        line = {"step": step, "learning_rate": 1e-3 * (1 + offset) / step, "train_loss_nats": 2 / step + offset}
        if step % 120 == 0:
            lines.append(line | {"epoch": step // 120, "test_loss_nats": 3 / step, "test_top1": step / 500})
        elif step % 50 == 0:
            lines.append(line)
    return lines


def drawn(axes):
    return [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in axes.lines]


def test_loss_accuracy_and_rate_are_drawn_over_the_steps():
    lines = run()
    loss, accuracy, rate = draw_curves({"digits": lines}).axes
    learned, tested = drawn(loss)
    stretches = [line for line in lines if "epoch" not in line]
    assert learned == ([line["step"] for line in stretches], [line["train_loss_nats"] for line in stretches])
    assert tested == ([120, 240, 360], [3 / 120, 3 / 240, 3 / 360])
    assert drawn(accuracy) == [([120, 240, 360], [0.24, 0.48, 0.72])]
    assert drawn(rate) == [([line["step"] for line in lines], [line["learning_rate"] for line in lines])]
    assert (loss.get_ylabel(), rate.get_xlabel()) == ("loss (nats)", "step of the optimizer")
    assert accuracy.get_ylabel() == "test accuracy, top-1"
    assert loss.get_legend() is None


def test_several_runs_have_a_colour_and_a_name_each_and_room_for_all_of_their_numbers():
    figure = draw_curves({"adamw $x$": run(), "muon": run(epochs=2, offset=1.0)})
    loss, accuracy, rate = figure.axes
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["adamw $x$", "muon"]
    assert [line.get_color() for line in accuracy.lines] == ["#0072b2", "#d55e00"]
    assert rate.get_ylim()[0] == 0 and rate.get_ylim()[1] > 1e-3 * 2 / 50
    figure.draw_without_rendering()  # a name with dollars is no formula


def test_a_run_without_classes_has_no_panel_of_accuracy_and_a_short_one_is_drawn_by_epochs():
    lines = [{name: line[name] for name in line if "test" not in name} for line in run(epochs=1)[-1:]]
    loss, rate = draw_curves({"hidden patches": lines}).axes
    assert drawn(loss) == [([120], [2 / 120])] and len(rate.lines) == 1


def test_nothing_to_draw_and_numbers_that_are_none_are_refused():
    for runs in ({}, {"new": []}):
        with pytest.raises(ShapeError, match="at least one line of metrics"):
            draw_curves(runs)
    with pytest.raises(NumericError, match="nan"):
        draw_curves({"broken": [{"step": 1, "train_loss_nats": float("nan")}]})


def test_a_run_of_one_line_has_a_mark_in_each_panel() -> None:
    line = {
        "step": 7,
        "epoch": 1,
        "train_loss_nats": 1.0,
        "test_loss_nats": 0.9,
        "test_top1": 0.5,
        "learning_rate": 0.1,
    }
    for axes in draw_curves({"short": [line]}).axes:
        assert all(drawn.get_marker() == "o" for drawn in axes.get_lines() if len(drawn.get_xdata()))
