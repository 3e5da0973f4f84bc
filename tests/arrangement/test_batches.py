from __future__ import annotations

import pytest
import torch
from PIL import Image

from vitreous.arrangement.batches import decoded, first_image, places_of_batches, some_first
from vitreous.arrangement.inputs import ImageSet
from vitreous.data.gather import Pictures
from vitreous.data.preprocess import Preprocess
from vitreous.data.transforms import to_tensor
from vitreous.errors import InputError

SMALL, LARGE = Preprocess((4, 4), "squash", 1.0), Preprocess((6, 6), "squash", 1.0)
CPU = torch.device("cpu")


def grey(index: int) -> Image.Image:
    if index == 9:
        raise InputError("9.png: is spoilt")
    return Image.new("RGB", (8, 8), (20 * index,) * 3)


def images(count: int) -> ImageSet:
    return ImageSet("grey", Pictures(tuple(map(str, range(count))), grey), torch.arange(count) + 100)


def test_some_evenly_spaced_come_first_and_all_come_once() -> None:
    ordered = some_first(images(7), 3)
    assert ordered.samples.tolist() == [100, 102, 104, 101, 103, 105, 106]
    assert ordered.pictures.names == ("0", "2", "4", "1", "3", "5", "6")
    assert some_first(images(7), 0).samples.tolist() == [*range(100, 107)]
    assert some_first(images(3), 3).samples.tolist() == [100, 101, 102]


def test_no_batch_holds_both_parts() -> None:
    assert places_of_batches(7, 3, (2, 3)) == [range(0, 2), range(2, 3), range(3, 6), range(6, 7)]
    assert places_of_batches(2, 2, (5, 5)) == [range(0, 2)] and places_of_batches(2, 0, (1, 5)) == [range(0, 2)]


@pytest.mark.parametrize("workers", [0, None])
def test_each_preprocessing_gets_the_same_images(workers: int | None) -> None:
    with decoded(images(5), [SMALL, LARGE], [range(0, 3), range(3, 5)], workers, CPU) as batches:
        found = list(batches)
    assert [len(batch[SMALL]) for batch in found] == [3, 2]
    assert torch.equal(found[1][SMALL][1], to_tensor(grey(4), SMALL))
    assert torch.equal(found[0][LARGE][2], to_tensor(grey(2), LARGE))
    assert torch.equal(first_image(images(5), LARGE), found[0][LARGE][:1])


def test_an_image_that_cannot_be_read_is_named() -> None:
    with (
        pytest.raises(InputError, match=r"9\.png: is spoilt"),
        decoded(images(10), [SMALL], [range(10)], 0, CPU) as all,
    ):
        next(all)
