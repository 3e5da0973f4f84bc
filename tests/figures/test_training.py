import io

import numpy as np
import pytest
import torch
from PIL import Image

from vitreous.errors import ShapeError
from vitreous.figures.training import draw_over_epochs, draw_training_frame, film

VALUES = torch.arange(3 * 5 * 2).reshape(3, 5, 2).float()  # (checkpoints, layers, heads)


def test_lines_are_the_first_the_middle_and_the_last_layer_over_epochs():
    (axes,) = draw_over_epochs((0, 5, 20), VALUES, "entropy (bits)", level=40.0, level_words="even").axes
    lines = [line for line in axes.lines if line.get_marker() != "None"]
    assert [line.get_xdata().tolist() for line in lines] == [[0, 5, 20]] * 3
    for line, layer in zip(lines, (0, 2, 4), strict=True):
        assert line.get_ydata().tolist() == VALUES[:, layer].mean(1).tolist()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["layer 0", "layer 2", "layer 4"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epochs of training", "entropy (bits)")
    assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > 40
    (single,) = draw_over_epochs((0, 5, 20), VALUES[:, :1], "y").axes
    assert len(single.lines) == 1


def test_there_is_one_epoch_a_checkpoint():
    with pytest.raises(ShapeError, match="expected 3 epochs, one a checkpoint, but got 2"):
        draw_over_epochs((0, 5), VALUES, "y")


def frame(epoch, **more):
    random = torch.Generator().manual_seed(epoch)
    similarity = torch.rand(2, 3, 2, 3, generator=random)
    thumbnail = torch.randint(0, 256, (8, 12, 3), generator=random, dtype=torch.uint8)
    rollout = thumbnail, torch.rand(2, 3, generator=random)
    distance = torch.rand(2, 2, generator=random)
    return draw_training_frame(epoch, distance, top=2.0, similarity=similarity, rollout=rollout, **more)


def test_a_frame_has_its_epoch_and_axes_that_do_not_move():
    frames = [frame(epoch, uniform=1.0) for epoch in (0, 5, 10)]
    assert [one.get_suptitle() for one in frames] == ["epoch 0", "epoch 5", "epoch 10"]
    assert {one.axes[0].get_ylim() for one in frames} == {(0, 2)}
    assert {one.axes[1].images[0].get_clim() for one in frames} == {(-1, 1)}
    assert {one.axes[0].lines[0].get_ydata()[0] for one in frames} == {1}


def test_a_frame_leaves_out_what_a_model_does_not_have():
    assert len(draw_training_frame(3, torch.ones(2, 2)).axes) == 1


def test_the_film_has_the_frames_in_order_repeats_and_rests_on_the_last():
    frames = [frame(epoch) for epoch in (0, 5, 10)]
    animation = Image.open(io.BytesIO(film(frames)))
    assert (animation.format, animation.n_frames, animation.info["loop"]) == ("GIF", 3, 0)
    durations = []
    for index, one in enumerate(frames):
        animation.seek(index)
        durations.append(animation.info["duration"])
        still = io.BytesIO()
        one.savefig(still, format="png", dpi=100)
        wanted = np.asarray(Image.open(still).convert("RGB"), dtype=int)
        assert np.abs(np.asarray(animation.convert("RGB"), dtype=int) - wanted).mean() < 3  # of 255
    assert durations == [700, 700, 2100]
