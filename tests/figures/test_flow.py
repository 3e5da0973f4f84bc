from itertools import pairwise

import numpy as np
import pytest
import torch

from vitreous.errors import ConfigError, NumericError, ShapeError
from vitreous.figures.canvas import blank
from vitreous.figures.flow import CUT_COLOURS, draw_flow, paint_cuts
from vitreous.figures.rollout import mask_image, paint_patches
from vitreous.measures.flow_solver import CUTS, INPUT, INTERIOR, OUTPUT


def white(images, height=32, width=48):
    return torch.full((images, height, width, 3), 200, dtype=torch.uint8)


def maps(images, cut=INTERIOR):
    generator = torch.Generator().manual_seed(images)
    rollouts, flows = torch.rand(2, images, 4, 6, generator=generator, dtype=torch.float64)
    return rollouts / 20, flows, torch.full((images, 4, 6), cut, dtype=torch.int8)


def names(images):
    return [f"photo-{index}.jpg" for index in range(images)]


def words(figure):
    return " ".join(text.get_text() for text in figure.texts)


def test_each_image_has_input_rollout_flow_and_limit():
    thumbnails, (rollouts, flows, cuts) = white(2, 240, 240), maps(2)
    cuts[1, 0, 0], cuts[1, 0, 1] = OUTPUT, INPUT
    figure = draw_flow(thumbnails, rollouts, flows, cuts, names(2), [(("cat", 0.75),), (("dog", 0.5),)])
    pictures = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert np.array_equal(pictures[4], thumbnails[1].numpy())
    assert np.array_equal(pictures[5], mask_image(thumbnails[1], rollouts[1]))
    assert np.array_equal(pictures[6], mask_image(thumbnails[1], flows[1]))
    assert np.array_equal(pictures[7], paint_cuts(cuts[1]))
    assert [axes.get_title(loc="left") for axes in figure.axes[:4]] == ["input", "rollout", "flow", "limit"]
    below = [axes.texts[0].get_text() for axes in figure.axes[4:]]
    largest, lowest, highest = rollouts[1].max(), flows[1].min(), flows[1].max()
    assert below == ["photo-1.jpg\ndog  50%", f"up to {largest:.2g}", f"{lowest:.2f} to {highest:.2f}", "92% interior"]


def test_the_patch_style_is_the_flow_itself():
    rollouts, flows, cuts = maps(1)
    figure = draw_flow(white(1), rollouts, flows, cuts, names(1), style="patches")
    assert np.array_equal(figure.axes[2].images[0].get_array(), paint_patches(white(1)[0], flows[0]))


def test_each_cut_has_its_own_colour_that_the_legend_names():
    painted = paint_cuts(torch.tensor([[OUTPUT, INPUT, INTERIOR]]))
    assert ["#" + bytes(pixel).hex() for pixel in painted[0].tolist()] == list(CUT_COLOURS)
    figure = draw_flow(white(1), *maps(1), names(1))
    assert [text.get_text().split(":")[0] for text in figure.texts[:3]] == list(CUTS)
    colours = [square.get_facecolor() for square in figure.artists]
    in_bytes = (255 * np.array(colours)[:, :3]).round().astype(int)
    assert np.array_equal(in_bytes, painted[0])


def test_the_cuts_differ_in_lightness_too():
    lightness = paint_cuts(torch.tensor([[OUTPUT, INPUT, INTERIOR]]))[0] @ [0.299, 0.587, 0.114]
    assert np.all(np.diff(lightness) < -30)


def test_it_says_where_the_flow_is_only_the_first_layers_column_sums():
    assert "100% of the patches have min(1, column sum" in words(draw_flow(white(2), *maps(2, INPUT), names(2)))
    assert "column sum of the first layer" not in words(draw_flow(white(2), *maps(2), names(2)))


@pytest.mark.parametrize(("images", "rows"), [(1, 1), (3, 3), (4, 2), (8, 4)])
def test_pictures_and_legend_fill_a_sheet_without_overlap(images, rows):
    figure = draw_flow(white(images), *maps(images, OUTPUT), names(images))
    figure.draw_without_rendering()
    boxes = [axes.get_position() for axes in figure.axes]
    assert len(boxes) == 4 * images and len({round(box.y0, 6) for box in boxes}) == rows
    lines = [text.get_window_extent().transformed(figure.transFigure.inverted()) for text in figure.texts]
    assert all(0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1 for box in [*boxes, *lines])
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in [*boxes[index + 1 :], *lines])


@pytest.mark.parametrize("images", [1, 4])
def test_long_names_do_not_run_into_the_numbers_beside_them(images):
    named = ["n02095889_Sealyham_terrier.JPEG" for _ in range(images)]
    likely = [(("West Highland white terrier", 0.99),) for _ in range(images)]
    figure = draw_flow(white(images), *maps(images), named, likely)
    figure.draw_without_rendering()
    below = [axes.texts[0].get_window_extent() for axes in figure.axes]
    assert not any(one.overlaps(other) for one, other in pairwise(below))


def test_it_draws_into_axes_it_is_given():
    figure = blank(8, 2)
    drawn = draw_flow(white(1), *maps(1), names(1), axes=list(figure.subplots(1, 4)))
    assert drawn is figure and not figure.texts


def test_what_does_not_fit_is_refused():
    rollouts, flows, cuts = maps(1)
    with pytest.raises(ShapeError, match="differ in shape"):
        draw_flow(white(1), rollouts, flows[:, :3], cuts, names(1))
    with pytest.raises(ShapeError, match="2 rollouts"):
        draw_flow(white(2), rollouts, flows, cuts, names(2))
    with pytest.raises(ShapeError, match="four an image"):
        draw_flow(white(1), rollouts, flows, cuts, names(1), axes=[blank(2, 2).add_subplot()])
    with pytest.raises(ConfigError, match="codes from 0 to 2, but 2 to 3 came"):
        draw_flow(white(1), rollouts, flows, cuts.clone().index_fill(1, torch.tensor([0]), 3), names(1))
    with pytest.raises(NumericError):
        draw_flow(white(1), rollouts, flows * torch.nan, cuts, names(1))
