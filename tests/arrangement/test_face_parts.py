from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vitreous.arrangement import face_parts as module
from vitreous.arrangement.face_parts import HALF, PARTS, REACH, draw_parts

FACES = torch.arange(2000)


def pixels() -> tuple[Tensor, Tensor]:
    """Across and down from the middle of a window, of every pixel: (1, window * window) each."""
    steps = torch.arange(-HALF, HALF + 1.0)
    down, across = torch.meshgrid(steps, steps, indexing="ij")
    return across.reshape(1, -1), down.reshape(1, -1)


def test_ink_stays_within_reach() -> None:
    covers = draw_parts(3, FACES).covers
    assert covers.min() == 0 and covers.max() == 1
    for part, (down, across) in enumerate(REACH):
        outside = covers[:, part].clone()
        outside[:, HALF - down : HALF + down + 1, HALF - across : HALF + across + 1] = 0
        assert outside.max() == 0, PARTS[part]
        assert covers[:, part].sum((-2, -1)).min() > 4  # and there is something to see


def test_eyes_are_as_high_as_wide_noses_higher_and_mouths_wider() -> None:
    covers = draw_parts(3, FACES).covers
    squares = torch.arange(-HALF, HALF + 1.0) ** 2
    high = (covers.sum(-1) * squares).sum(-1) / covers.sum((-2, -1))  # mean square of ink down, (faces, parts)
    wide = (covers.sum(-2) * squares).sum(-1) / covers.sum((-2, -1))
    ratio = (high / wide).log2()
    assert ratio[:, :2].abs().max() < 0.2
    assert ratio[:, 2].min() > 1
    assert ratio[:, 3].max() < -1


def test_eyes_are_alike_turned_by_half_so_that_their_ink_lies_around_the_middle() -> None:
    eyes = draw_parts(3, FACES).covers[:, :2]
    torch.testing.assert_close(eyes, eyes.flip(-1, -2), rtol=0, atol=1e-5)


def test_mouths_stand_one_way_up_as_often_as_the_other() -> None:
    mouths = draw_parts(3, FACES).covers[:, 3].sum(-1)  # (faces, rows)
    balance = (mouths * torch.arange(-HALF, HALF + 1.0)).sum(1)
    assert (balance > 0.5).float().mean() == pytest.approx(float((balance < -0.5).float().mean()), abs=0.05)


def test_ink_and_ground_differ_in_lightness_either_way_as_often() -> None:
    parts = draw_parts(3, FACES)
    weights = torch.tensor([0.299, 0.587, 0.114])
    contrast = ((parts.colours - parts.ground[:, None]) * weights).sum(-1)  # (faces, parts)
    assert contrast.abs().min() > 0.39
    assert (contrast.sign() == contrast[:, :1].sign()).all()
    assert (contrast[:, 0] > 0).float().mean() == pytest.approx(0.5, abs=0.04)
    for colours in (parts.colours, parts.ground):
        assert colours.min() >= 0 and colours.max() <= 1


def test_parts_depend_on_seed_and_sample_alone() -> None:
    whole, some = draw_parts(3, FACES), draw_parts(3, torch.tensor([1999, 7]))
    assert torch.equal(whole.covers[[1999, 7]], some.covers)
    assert torch.equal(whole.colours[[1999, 7]], some.colours)
    assert torch.equal(whole.ground[[1999, 7]], some.ground)
    assert not torch.equal(draw_parts(4, FACES).covers, whole.covers)


def test_the_distance_from_a_line_is_that_of_its_nearest_point() -> None:
    across, down = pixels()
    ends = [torch.tensor([[value]]) for value in (-2.3, 1.1, 3.2, -0.7)]
    found = module._segment(across, down, *ends)
    shares = torch.linspace(0, 1, 20001)[:, None]
    points = -2.3 + shares * 5.5, 1.1 - shares * 1.8
    slow = torch.hypot(across - points[0], down - points[1]).amin(0)  # of every point of the line
    torch.testing.assert_close(found[0], slow, rtol=0, atol=1e-4)


def test_the_distance_from_a_circle_is_exact_and_ink_has_its_area() -> None:
    across, down = pixels()
    radius = torch.tensor([[2.7]])
    found = module._ellipse(across, down, radius, radius)
    away = torch.hypot(across, down)
    torch.testing.assert_close(found[away > 0], (away - 2.7)[away > 0])
    ink = module._ink(torch.zeros(1, 1), (found,))
    assert ink.sum() == pytest.approx(math.pi * 2.7**2, rel=0.01)


def test_a_bow_goes_through_its_ends_and_its_middle() -> None:
    half, sag = torch.tensor([[3.0]]), torch.tensor([[1.0]])
    for point in ((-3.0, -1.0), (0.0, 1.0), (3.0, -1.0), (1.5, 0.5)):
        across, down = (torch.tensor([[value]]) for value in point)
        assert module._bow(across, down, half, sag).item() == pytest.approx(0, abs=1e-6)


def test_colours_get_the_lightness_asked_for() -> None:
    colour = torch.tensor([[0.9, 0.1, 0.2], [0.2, 0.9, 0.4]])
    lightness = torch.tensor([[0.2], [0.8]])
    made = module._with_lightness(colour, lightness)
    assert (made * torch.tensor([0.299, 0.587, 0.114])).sum(1).tolist() == pytest.approx([0.2, 0.8])
