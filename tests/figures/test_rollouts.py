from itertools import pairwise

import numpy as np
import pytest
import torch

from vitreous.errors import ShapeError
from vitreous.figures.rollout import mask_image
from vitreous.figures.rollouts import draw_rollouts


def shown(images, height, width, seed):
    random = torch.Generator().manual_seed(seed)
    thumbnails = torch.randint(0, 256, (images, height, width, 3), generator=random, dtype=torch.uint8)
    return thumbnails, torch.rand(images, 3, 4, generator=random)


def test_rows_are_images_and_columns_are_the_input_and_each_model():
    models = {"first": shown(2, 32, 48, 0), "second": shown(2, 64, 64, 1)}
    figure = draw_rollouts(models, ["x.png", "y.png"])
    assert len(figure.axes) == 2 * 3
    for row in range(2):
        pictures = [axes.images[0].get_array() for axes in figure.axes[3 * row : 3 * row + 3]]
        assert np.array_equal(pictures[0], models["first"][0][row])
        for picture, (thumbnails, rollouts) in zip(pictures[1:], models.values(), strict=True):
            assert np.array_equal(picture, mask_image(thumbnails[row], rollouts[row]))
    assert [axes.get_title(loc="left") for axes in figure.axes[:3]] == ["input", "first", "second"]
    assert figure.axes[3].texts[0].get_text() == "y.png"


def test_pictures_do_not_overlap():
    figure = draw_rollouts({name: shown(3, 32, 48, 0) for name in "abcdefgh"}, list("xyz"))
    boxes = [axes.get_position() for axes in figure.axes]
    lefts, bottoms = (sorted({round(getattr(box, end), 6) for box in boxes}) for end in ("x0", "y0"))
    assert (len(lefts), len(bottoms)) == (9, 3)
    assert all(after - before > boxes[0].width for before, after in pairwise(lefts))
    assert all(after - before > boxes[0].height for before, after in pairwise(bottoms))


def test_numbers_that_differ_are_refused():
    with pytest.raises(ShapeError, match="at least one model"):
        draw_rollouts({}, [])
    thumbnails, rollouts = shown(2, 8, 8, 0)
    with pytest.raises(ShapeError, match="m has 2 thumbnails and 1 rollouts for 2 images"):
        draw_rollouts({"m": (thumbnails, rollouts[:1])}, ["x", "y"])
