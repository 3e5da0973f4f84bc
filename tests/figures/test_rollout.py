import numpy as np
import pytest
import torch

from vitreous.errors import NumericError, ShapeError
from vitreous.figures import draw_rollout
from vitreous.figures.canvas import blank
from vitreous.figures.rollout import enlarge, mask_image, paint_patches


def white(images, height=32, width=48):
    return torch.full((images, height, width, 3), 200, dtype=torch.uint8)


def names(images):
    return [f"photo-{index}.jpg" for index in range(images)]


def test_a_uniform_rollout_leaves_the_image_as_it_is():
    image = torch.arange(240 * 240 * 3).reshape(240, 240, 3).remainder(256).to(torch.uint8)
    assert np.array_equal(mask_image(image, torch.full((3, 4), 0.02)), image.numpy())


def test_the_mask_is_bright_at_the_largest_share_and_black_where_nothing_reaches():
    rollout = torch.zeros(4, 4)
    rollout[1, 2] = 0.3
    masked = mask_image(white(1, 240, 240)[0], rollout)
    assert masked[90, 150].tolist() == [200, 200, 200]  # the middle of patch row 1, column 2
    assert masked[210, 30].max() == 0


def test_the_mask_does_not_depend_on_the_sum_of_the_rollout():
    rollout = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(mask_image(white(1)[0], rollout), mask_image(white(1)[0], rollout / 8))


def test_a_rollout_that_reaches_nothing_is_black():
    assert mask_image(white(1)[0], torch.zeros(4, 4)).max() == 0


def test_small_images_are_enlarged_by_repeating_pixels():
    image = torch.arange(8 * 8 * 3).reshape(8, 8, 3).to(torch.uint8)
    larger = enlarge(image)
    assert larger.shape == (224, 224, 3)
    assert np.array_equal(larger[14::28, 14::28], image.numpy())


def test_patches_are_painted_one_pixel_each_darkest_for_nothing():
    painted = paint_patches(white(1)[0], torch.tensor([[0.0, 0.5, 1.0]]))
    assert painted.shape == (1, 3, 3)
    assert painted[0, 0].max() < 10
    assert painted[0].astype(int).sum(-1).tolist() == sorted(painted[0].astype(int).sum(-1))


@pytest.mark.parametrize(("images", "rows"), [(1, 1), (2, 1), (3, 1), (5, 2), (8, 2), (16, 4)])
def test_pairs_fill_a_sheet_without_overlap(images, rows):
    figure = draw_rollout(white(images), torch.rand(images, 4, 6), names(images))
    boxes = [axes.get_position() for axes in figure.axes]
    assert len(boxes) == 2 * images
    assert len({round(box.y0, 6) for box in boxes}) == rows
    assert all(0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1 for box in boxes)
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])


def test_pairs_are_input_then_attention_with_name_and_prediction_below():
    thumbnails, rollouts = white(2, 224, 224), torch.rand(2, 4, 6)
    figure = draw_rollout(thumbnails, rollouts, names(2), [(("cat", 0.75), ("dog", 0.1)), (("$a_{", 0.5),)])
    pictures = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert np.array_equal(pictures[2], thumbnails[1].numpy())
    assert np.array_equal(pictures[3], mask_image(thumbnails[1], rollouts[1]))
    assert figure.axes[0].texts[0].get_text() == "photo-0.jpg\ncat  75%"
    assert figure.axes[2].texts[0].get_text() == "photo-1.jpg\n$a_{  50%"
    assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == ["input", "attention"]
    assert "largest value" in figure.texts[0].get_text()


def test_the_patch_style_is_the_rollout_itself():
    rollouts = torch.rand(1, 4, 6)
    figure = draw_rollout(white(1), rollouts, names(1), style="patches")
    assert np.array_equal(figure.axes[1].images[0].get_array(), paint_patches(white(1)[0], rollouts[0]))


def test_it_draws_into_axes_it_is_given():
    figure = blank(4, 2)
    assert draw_rollout(white(1), torch.rand(1, 2, 3), names(1), axes=list(figure.subplots(1, 2))) is figure


def test_counts_that_differ_are_refused():
    with pytest.raises(ShapeError, match="2 rollouts"):
        draw_rollout(white(2), torch.rand(1, 4, 6), names(2))
    with pytest.raises(ShapeError, match="2 names"):
        draw_rollout(white(2), torch.rand(2, 4, 6), names(1))
    with pytest.raises(ShapeError, match="2 predictions"):
        draw_rollout(white(2), torch.rand(2, 4, 6), names(2), [(("cat", 1.0),)])
    with pytest.raises(ShapeError, match="two an image"):
        draw_rollout(white(1), torch.rand(1, 4, 6), names(1), axes=[blank(2, 2).add_subplot()])
    with pytest.raises(NumericError):
        draw_rollout(white(1), torch.full((1, 4, 6), torch.nan), names(1))
