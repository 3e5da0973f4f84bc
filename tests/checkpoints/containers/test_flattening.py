from __future__ import annotations

from typing import Any

import pytest

from vitreous.checkpoints.containers import flattening
from vitreous.checkpoints.containers.flattening import flatten
from vitreous.checkpoints.containers.pickle_globals import Record, Refused, Storage, View

TENSOR = View(Storage("0", "float32", 4), "float32", 0, (4,), (1,))


def test_names_are_joined_with_dots() -> None:
    found = flatten(
        {"model": {"cls_token": TENSOR}, "epoch": 3, 0: [TENSOR, {"x": TENSOR}], "args": Record({"lr": 0.1})}
    )
    assert list(found.tensors) == ["model.cls_token", "0.0", "0.1.x"]
    assert found.extras == {"epoch": 3, "args.lr": 0.1}


def test_short_plain_values_are_kept_and_all_else_is_dropped() -> None:
    content: dict[str, Any] = {"w": TENSOR, "text": "x" * 1024, "list": [1, None, "a"], "flag": True, "big": 2**63 - 1}
    dropped: dict[str, Any] = {"long": "x" * 1025, "huge": 2**63, "bytes": b"x", "storage": TENSOR.storage}
    extras = {name: value for name, value in content.items() if name != "w"}
    assert flatten(content | dropped).extras == extras


def test_a_long_list_has_a_name_for_each_item() -> None:
    assert flatten({"w": TENSOR, "losses": [0.5] * 65}).extras["losses.64"] == 0.5


def test_extras_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flattening, "MOST_EXTRAS", 2)
    assert flatten({"a": 1, "b": 2, "c": 3, "w": TENSOR}).extras == {"a": 1, "b": 2}


def test_two_tensors_of_one_name_are_refused() -> None:
    with pytest.raises(Refused, match=r"two tensors with the name a\.b"):
        flatten({"a": {"b": TENSOR}, "a.b": TENSOR})
    with pytest.raises(Refused, match="two tensors with the name 0"):
        flatten({0: TENSOR, "0": TENSOR})


def test_sharing_without_end_is_refused() -> None:
    part: Any = [TENSOR, TENSOR]
    for _ in range(40):
        part = [part, part]
    with pytest.raises(Refused, match="more than"):
        flatten({"a": part})
    many: Any = [[]]
    for _ in range(40):
        many = [many, many]
    with pytest.raises(Refused, match="500,000 values"):
        flatten({"a": many})


def test_nesting_without_end_is_refused() -> None:
    circle: dict[str, Any] = {"w": [1]}
    circle["c"] = circle
    held: list[Any] = []
    held.append(held)
    for endless in (circle, held):
        with pytest.raises(Refused, match="nested more than 100 deep"):
            flatten({"a": endless})


def test_a_file_without_named_tensors_is_refused() -> None:
    with pytest.raises(Refused, match="holds no tensor"):
        flatten({"a": 1})
    with pytest.raises(Refused, match="one tensor without a name"):
        flatten(TENSOR)
