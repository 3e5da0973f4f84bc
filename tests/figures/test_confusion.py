import numpy as np
import pytest

from vitreous.errors import NumericError, ShapeError
from vitreous.figures.confusion import draw_confusion


def counts(classes, images=10, wrong=()):
    matrix = np.diag(np.full(classes, images))
    for row, column, many in wrong:
        matrix[row, column] += many
        matrix[row, row] -= many
    return matrix


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_rows_are_true_classes_and_cells_have_count_and_share():
    axes = draw_confusion(counts(3, 40, [(0, 2, 1), (1, 0, 10)]), ["cat", "dog", "owl"]).axes[0]
    picture = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(picture, [[0.975, 0, 0.025], [0.25, 0.75, 0], [0, 0, 1]])
    cells = {tuple(round(v) for v in text.get_position()): text.get_text() for text in axes.texts if "%" in str(text)}
    assert cells[2, 0] == "1\n2.5 %"  # (column, row)
    assert cells[0, 1] == "10\n25 %" and cells[2, 2] == "40\n100 %"
    assert (1, 0) not in cells
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog", "owl"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "dog", "owl"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("class named by the model", "true class")
    assert axes.get_title(loc="left") == "90.8 % of 120 images right"  # 109 of 120


def test_colours_have_one_range_whatever_the_values():
    for matrix in (np.ones((2, 2)), counts(40)):
        figure = draw_confusion(matrix, [str(n) for n in range(len(matrix))])
        image = figure.axes[0].images[0]
        assert (image.norm.vmin, image.norm.vmax) == (0, 1)
        figure.draw_without_rendering()
        bar = figure.axes[0].child_axes[-1]
        assert [label.get_text() for label in bar.get_yticklabels()] == ["0 %", "1 %", "5 %", "25 %", "50 %", "100 %"]


def test_twenty_classes_have_counts_alone():
    axes = draw_confusion(counts(20, 50, [(3, 4, 7)]), [f"class {n}" for n in range(20)]).axes[0]
    assert "7" in texts(axes) and "43" in texts(axes) and not any("%" in text and "\n" in text for text in texts(axes))


def test_a_thousand_classes_are_a_picture_of_the_largest_shares_and_a_list_of_mistakes():
    wrong = [(999, 0, 30), (3, 7, 20), (500, 501, 10)]
    names = [f"class {n}" for n in range(1000)]
    figure = draw_confusion(counts(1000, 50, wrong), names)
    picture = np.asarray(figure.axes[0].images[0].get_array())
    assert picture.shape == (250, 250)
    assert picture[249, 0] == 0.6 and picture[0, 1] == 0.4 and picture[125, 125] == 1.0
    assert picture[0, 2] == 0
    listed = texts(figure.axes[1])
    assert listed[:4] == ["30", "60 %", "class 999", "class 0"]
    assert listed[4:8] == ["20", "40 %", "class 3", "class 7"]
    assert len(listed) == 12  # no more than were made
    assert "4 x 4 pairs of classes" in " ".join(texts(figure.axes[0]))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[:2] == ["0", "100"] and labels[-1] == "900"
    ticks = figure.axes[0].get_yticks()
    assert ticks[1] == pytest.approx(25.125 - 0.5)  # the middle of class 100, four classes a dot


def test_numbers_of_classes_that_do_not_divide_are_all_seen():
    picture = np.asarray(draw_confusion(counts(251), [""] * 251).axes[0].images[0].get_array())
    assert picture.shape == (126, 126) and (np.diag(picture) == 1).all()


def test_columns_of_the_list_do_not_reach_into_each_other():
    names = [f"a name that is much longer than there is room, of class {n}" for n in range(100)]
    figure = draw_confusion(counts(100, 50, [(n, n + 1, 5) for n in range(20)]), names)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[1].texts]
    for row in range(0, len(boxes), 4):
        for left, right in zip(boxes[row : row + 3], boxes[row + 1 : row + 4], strict=True):
            assert left.x1 < right.x0
    assert boxes[-1].x1 <= figure.bbox.x1 and boxes[-1].y0 >= 0


def test_a_class_without_images_has_an_empty_row_and_foreign_names_are_safe():
    matrix = counts(3)
    matrix[1] = 0
    figure = draw_confusion(matrix, ["$x$", "a\nb", "猫"])
    assert not np.asarray(figure.axes[0].images[0].get_array())[1].any()
    figure.draw_without_rendering()
    assert draw_confusion(np.zeros((2, 2)), ["a", "b"]).axes[0].get_title(loc="left") == "no images"


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ShapeError, match="a name for each class, but got \\(2, 2\\) and 3 names"):
        draw_confusion(np.ones((2, 2)), ["a", "b", "c"])
    with pytest.raises(ShapeError):
        draw_confusion(np.ones((2, 3)), ["a", "b"])
    with pytest.raises(NumericError):
        draw_confusion(np.full((2, 2), np.nan), ["a", "b"])
