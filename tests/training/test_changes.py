from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vitreous.data.labelled import LabelledImages
from vitreous.errors import InputError
from vitreous.training.changes import changed_names, changed_parts, check_same_classes, listed, redraws

IMAGES = LabelledImages(
    "photos",
    "train",
    ("blue", "red"),
    (0, 0, 1),
    ("blue/0.png", "blue/1.png", "red/0.png"),
    len,
    sizes=(7, 8, 9),  # type: ignore[arg-type]
)


def changes(**now: Any) -> list[str]:
    return changed_parts({"train": IMAGES.census}, {"train": replace(IMAGES, **now).census})


@pytest.mark.parametrize(
    ("now", "told"),
    [
        ({"name": "elsewhere"}, []),
        (
            {"labels": (0, 1), "image_names": ("blue/0.png", "red/0.png"), "sizes": (7, 9)},
            ["train had 3 images, has 2 (blue 2 -> 1)"],
        ),
        (
            {"class_names": ("blue", "pink\n")},
            [r"train had 3 images, has 3 (only then has red; only now has pink\n)"],
        ),
        ({"labels": (0, 1, 1)}, ["train had 3 images, has 3 (blue 2 -> 1, red 1 -> 2)"]),
        (
            {"image_names": ("blue/0.png", "blue/9.png", "red/0.png")},
            ["train has as many images as then, but others (names or sizes in blue)"],
        ),
        ({"sizes": (7, 8, 1)}, ["train has as many images as then, but others (names or sizes in red)"]),
        ({"sizes": (24,)}, ["train has as many images as then, but others (names or sizes in blue, red)"]),
        (
            {"labels": (1, 0, 0), "image_names": ("red/0.png", "blue/0.png", "blue/1.png"), "sizes": (9, 7, 8)},
            ["train has the images of then in another order, or in files of other sizes"],
        ),
    ],
)
def test_what_changed_in_a_data_set_is_told_by_class(now: dict[str, Any], told: list[str]) -> None:
    assert changes(**now) == told


def test_a_part_that_came_or_went_is_told_and_fingerprints_of_earlier_versions_are_understood() -> None:
    census = {"train": IMAGES.census}
    assert changed_parts(census, {}) == ["the part train is gone"]
    assert changed_parts({}, census) == ["the part train is new"]
    assert changed_parts({"train": IMAGES.fingerprint}, census) == []
    assert changed_parts({"train": "0" * 64}, census) == ["train is another one than then"]
    assert changed_parts({"train": {"fingerprint": "of a stream"}}, census) == ["train is another one than then"]


def test_many_classes_are_counted() -> None:
    names = tuple(f"class {n}" for n in range(9))
    wide = replace(IMAGES, class_names=names, labels=tuple(range(9)), image_names=names, sizes=())
    twice = replace(wide, labels=tuple(range(9)) * 2, image_names=names * 2)
    (told,) = changed_parts({"train": wide.census}, {"train": twice.census})
    assert told == "train had 9 images, has 18 (class 0 1 -> 2, class 1 1 -> 2, class 2 1 -> 2 and 6 more)"
    assert listed([str(n) for n in range(7)]) == "0; 1; 2; 3; 4, and 2 more"
    assert changed_names("abcde", "", ("one", "the other")) == "only one has a, b, c and 2 more"


def test_parts_of_other_classes_are_refused_with_what_only_one_has() -> None:
    check_same_classes(IMAGES, IMAGES)
    with pytest.raises(InputError, match=r"other classes: only the training part has red\n.*--allow-empty"):
        check_same_classes(IMAGES, replace(IMAGES, class_names=("blue",), split="test"))


def test_what_dropout_draws_depends_on_processes_and_parts_and_not_on_threads() -> None:
    assert redraws(["threads 1 -> 2", "world 1 -> 2"]) and redraws(["accumulate 1 -> 2"])
    assert not redraws(["threads 1 -> 2", "torch 2.13.0 -> 2.14.0"])
