import io
import subprocess
import sys

import numpy as np
import pytest
import torch

from vitreous.errors import ShapeError
from vitreous.figures import canvas


def test_no_figure_imports_pyplot():
    code = "import sys, vitreous.figures, vitreous.figures.inline; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_mosaic_has_every_tile_at_its_place_and_gaps_between():
    tiles = np.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2).astype(float)
    picture = canvas.mosaic(tiles, 1, np.nan)
    assert picture.shape == (2 * 3 - 1, 3 * 3 - 1)
    for row in range(2):
        for column in range(3):
            place = picture[3 * row : 3 * row + 2, 3 * column : 3 * column + 2]
            assert np.array_equal(place, tiles[row, column])
    assert np.isnan(picture[2]).all()
    assert np.isnan(picture[:, 5]).all()


def test_ticks_stand_in_the_middle_of_tiles_and_skip_where_crowded():
    axes = canvas.blank(4, 4).add_subplot()
    canvas.tick_tiles(axes.xaxis, range(20), 5, 1, most=10)
    assert axes.get_xticks().tolist() == [12 * index + 2 for index in range(10)]
    assert [text.get_text() for text in axes.get_xticklabels()] == [str(2 * index) for index in range(10)]


def test_numbers_take_tensors_lists_and_half_precision():
    assert canvas.numbers(torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True), "a", "b").dtype == np.float64
    assert canvas.numbers([1, 2], "a").tolist() == [1, 2]
    with pytest.raises(ShapeError, match="none of them empty"):
        canvas.numbers(torch.zeros(0, 2), "a", "b")


def test_pictures_are_uint8_only():
    with pytest.raises(ValueError, match="uint8"):
        canvas.pictures(torch.zeros(2, 2, 3), "image_height", "image_width", "colours")


def test_long_names_keep_both_ends():
    short = canvas.shorten("n01491361_a_very_long_name_of_a_file.JPEG", 20)
    assert len(short) == 20
    assert short.startswith("n01491361")
    assert short.endswith("file.JPEG")
    assert canvas.shorten("short.jpg", 20) == "short.jpg"


@pytest.mark.filterwarnings("error")
def test_foreign_text_is_drawn_without_a_warning_and_without_mathematics():
    figure = canvas.blank(4, 2)
    axes = figure.add_subplot()
    canvas.title(axes, "$x_{1 \u202e\x00\n 사진 العربية \U0001f431 \ue000")
    figure.savefig(io.BytesIO(), format="png")
    assert axes.get_title(loc="left").startswith("$x_{1 ")
    assert not set("\u202e\x00\n\ue000") & set(axes.get_title(loc="left"))


def test_empty_height_is_cut_off():
    figure = canvas.blank(4, 9)
    figure.add_subplot().imshow(np.zeros((2, 4)))
    canvas.fit_height(figure)
    assert figure.get_figwidth() == 4
    assert 1.5 < figure.get_figheight() < 2.5
