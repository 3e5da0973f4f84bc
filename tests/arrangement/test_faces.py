from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vitreous.arrangement.face_parts import HALF, draw_parts
from vitreous.arrangement.face_places import KINDS, SIDE, place_parts
from vitreous.arrangement.faces import draw_faces, standardised
from vitreous.errors import ConfigError

SEED = 11


def drawn_slowly(kind: str, sample: int) -> Tensor:
    """One face, pixel by pixel: ink over ground by the share it covers."""
    parts = draw_parts(SEED, torch.tensor([sample]))
    image = parts.ground[0][:, None, None].repeat(1, SIDE, SIDE)
    for part, (row, column) in enumerate(place_parts(kind, SEED, torch.tensor([sample]))[0].tolist()):
        for down in range(-HALF, HALF + 1):
            for across in range(-HALF, HALF + 1):
                cover = parts.covers[0, part, HALF + down, HALF + across]
                if cover > 0:
                    place = (slice(None), row + down, column + across)
                    image[place] = (1 - cover) * parts.ground[0] + cover * parts.colours[0, part]
    return image


@pytest.mark.parametrize("kind", KINDS)
def test_a_face_is_its_parts_over_the_ground_where_they_belong(kind: str) -> None:
    images, _ = draw_faces(SEED, 0, 8, (kind,))
    for sample in range(8):
        torch.testing.assert_close(images[sample], drawn_slowly(kind, sample), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_middle_of_an_eyes_ink_is_where_the_eye_was_put(kind: str) -> None:
    images, _ = draw_faces(SEED, 0, 50, (kind,))
    places = place_parts(kind, SEED, torch.arange(50))
    ground = draw_parts(SEED, torch.arange(50)).ground
    ink = (images - ground[..., None, None]).abs().sum(1)  # (faces, rows, columns)
    steps = torch.arange(-2, 3)
    for eye in range(2):
        row, column = places[:, eye].unbind(-1)
        around = ink[
            torch.arange(50)[:, None, None], (row[:, None] + steps)[..., None], (column[:, None] + steps)[:, None]
        ]
        whole = around.sum((-2, -1))
        assert whole.min() > 0.5
        assert ((around.sum(-1) * steps).sum(-1) / whole).abs().max() < 1e-4
        assert ((around.sum(-2) * steps).sum(-1) / whole).abs().max() < 1e-4


def test_all_kinds_are_made_of_the_same_pixels() -> None:
    expected = draw_faces(SEED, 0, 20, ("right",))[0].flatten(2).sort().values
    for kind in KINDS[1:]:
        images, _ = draw_faces(SEED, 0, 20, (kind,))
        assert torch.equal(images.flatten(2).sort().values, expected), kind


def test_kinds_come_in_turn_and_each_face_has_its_number() -> None:
    kinds = ("right", "turned", "right", "swapped")
    images, chosen = draw_faces(SEED, 6, 9, kinds)
    assert chosen.tolist() == [2, 3, 0, 1, 2, 3, 0, 1, 2]
    for place, number in enumerate(range(6, 15)):
        alone, _ = draw_faces(SEED, number, 1, (kinds[number % 4],))
        assert torch.equal(images[place], alone[0])
    assert not torch.equal(images, draw_faces(SEED + 1, 6, 9, kinds)[0])


def test_images_are_between_0_and_1() -> None:
    images, _ = draw_faces(SEED, 0, 400, KINDS)
    assert images.dtype == torch.float32
    assert images.shape == (400, 3, SIDE, SIDE)
    assert images.min() >= 0 and images.max() <= 1


def test_models_see_light_ink_on_ground_near_0_whatever_the_colours() -> None:
    images, _ = draw_faces(SEED, 0, 200, ("right",))
    seen = standardised(images)
    torch.testing.assert_close(seen.mean((-2, -1)), torch.zeros(200, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(seen.square().mean((1, 2, 3)), torch.ones(200))
    torch.testing.assert_close(standardised(1 - images), seen)  # dark ink on light ground is turned round
    torch.testing.assert_close(standardised(0.3 * images + 0.2), seen, rtol=1e-4, atol=1e-4)
    lightness = (seen * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1).flatten(1)
    assert (lightness.amax(1) > -5 * lightness.amin(1)).all()


def test_how_an_image_is_standardised_tells_nothing_of_places() -> None:
    images, _ = draw_faces(SEED, 0, 20, ("right",))
    order = torch.randperm(SIDE * SIDE, generator=torch.Generator().manual_seed(0))
    moved = images.flatten(2)[:, :, order].unflatten(2, (SIDE, SIDE))
    expected = standardised(images).flatten(2)[:, :, order].unflatten(2, (SIDE, SIDE))
    torch.testing.assert_close(standardised(moved), expected, rtol=1e-4, atol=1e-4)


def test_a_plain_image_has_nothing_to_standardise() -> None:
    assert torch.equal(standardised(torch.full((1, 3, 4, 4), 0.5)), torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize(
    ("first", "count", "kinds", "what"),
    [(-1, 4, ("right",), "first"), (0, 0, ("right",), "count"), (0, 4, (), "empty"), (0, 4, ("left",), "right, disp")],
)
def test_what_cannot_be_drawn_is_refused(first: int, count: int, kinds: tuple[str, ...], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        draw_faces(SEED, first, count, kinds)
