from __future__ import annotations

import pytest
import scipy.stats
import torch
from torch import Tensor

from vitreous.arrangement.face_parts import REACH
from vitreous.arrangement.face_places import GAP, KINDS, PHASES, SIDE, STEP, place_parts

FACES = torch.arange(4096)
LEFT, RIGHT, NOSE, MOUTH = range(4)


def placed(kind: str, faces: int = 300) -> Tensor:
    return place_parts(kind, 5, torch.arange(faces))


def is_a_face(places: Tensor) -> bool:
    """What a person would say, in numbers."""
    left, right, nose, mouth = places.tolist()
    eyes_level = abs(left[0] - right[0]) <= 3 and 18 <= right[1] - left[1] <= 21
    nose_below = 12 <= nose[0] - max(left[0], right[0]) <= 15 and left[1] < nose[1] < right[1]
    mouth_below = 12 <= mouth[0] - nose[0] <= 15 and left[1] < mouth[1] < right[1]
    return eyes_level and nose_below and mouth_below


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_is_inside_the_image_and_ground_all_around(kind: str) -> None:
    reach = torch.tensor(REACH)
    places = place_parts(kind, 5, FACES)
    assert (places - reach).amin() >= 1
    assert (places + reach).amax() <= SIDE - 2


@pytest.mark.parametrize("kind", KINDS)
def test_no_window_of_seven_pixels_sees_two_parts(kind: str) -> None:
    for places in placed(kind, 100):
        seen = torch.zeros(4, SIDE, SIDE, dtype=torch.bool)
        for part, (row, column) in enumerate(places.tolist()):
            down, across = REACH[part]
            seen[part, row - down : row + down + 1, column - across : column + across + 1] = True
        in_window = torch.nn.functional.max_pool2d(seen[None].float(), GAP + 1, stride=1)  # every window
        assert in_window.sum(1).max() == 1


def test_right_faces_are_faces_and_no_other_kind_is() -> None:
    assert all(is_a_face(places) for places in placed("right"))
    for kind in KINDS[1:]:
        assert not any(is_a_face(places) for places in placed(kind)), kind


def test_put_back_every_orderly_kind_is_a_face() -> None:
    assert all(is_a_face(places * torch.tensor([-1, 1])) for places in placed("upside down"))
    assert all(is_a_face(places[[LEFT, RIGHT, MOUTH, NOSE]]) for places in placed("mouth above nose"))
    left, right = torch.tensor([[0, -1], [1, 0]]), torch.tensor([[0, 1], [-1, 0]])  # quarter turns
    turns = [(is_a_face(places @ left), is_a_face(places @ right)) for places in placed("turned")]
    assert all(one != other for one, other in turns)
    assert 100 < sum(one for one, _ in turns) < 200  # either way as often


def test_a_swap_is_of_one_eye_with_nose_or_mouth() -> None:
    swaps = [(eye, part) for eye in (LEFT, RIGHT) for part in (NOSE, MOUTH)]
    found = []
    for places in placed("swapped"):
        orders = []
        for eye, part in swaps:
            order = [0, 1, 2, 3]
            order[eye], order[part] = part, eye
            orders.append(is_a_face(places[order]))
        assert sum(orders) == 1
        found.append(orders.index(True))
    assert min(found.count(swap) for swap in range(4)) > 50


def test_displaced_parts_are_far_from_every_other_kind() -> None:
    others = torch.cat([placed(kind, 400) for kind in KINDS if kind != "displaced"])
    others = torch.cat([others, others[:, [RIGHT, LEFT, NOSE, MOUTH]]])
    for places in placed("displaced", 100):
        offsets = (places - others).float()
        best = (offsets.amax(1) - offsets.amin(1)).amax(1) / 2  # moved as a whole to where it fits best
        assert best.min() >= 10 - 3  # of the mean face 10; a face's parts are 3 from there, about


@pytest.mark.parametrize("kind", KINDS)
def test_patches_cut_parts_in_the_same_ways_whatever_the_kind(kind: str) -> None:
    """All 2**8 combinations of phases are equally likely, and so the kind cannot be told from a bag of patches."""
    places = place_parts(kind, 5, FACES)
    assert (places % STEP == 0).all()
    phases = (places // STEP % PHASES).flatten(1)  # (faces, 8)
    counts = torch.bincount((phases * 2 ** torch.arange(8)).sum(1), minlength=256)
    assert scipy.stats.chisquare(counts.numpy()).pvalue > 0.001


@pytest.mark.parametrize("kind", KINDS)
def test_places_depend_on_seed_and_sample_alone(kind: str) -> None:
    assert torch.equal(placed(kind)[[200, 3]], place_parts(kind, 5, torch.tensor([200, 3])))
    assert not torch.equal(placed(kind), place_parts(kind, 6, torch.arange(300)))


def test_faces_stand_at_many_places() -> None:
    middles = place_parts("right", 5, FACES).float().mean(1)
    assert (middles.amax(0) - middles.amin(0) > torch.tensor([8.0, 20.0])).all()
