from __future__ import annotations

import pytest

from vitreous.checkpoints.containers.json_object import parse_object


def test_an_object_is_parsed() -> None:
    assert parse_object('{"a": [1, -2.5, null], "ä": {"b": true}}'.encode()) == {"a": [1, -2.5, None], "ä": {"b": True}}


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "begins with b''"),
        (b"[]", "begins with b'\\[\\]'"),
        (b'{"a": "\xff"}', "not UTF-8 at its byte 7"),
        (b'{"a": }', "not JSON at its character 6"),
        (b'{"a": 1} x', "not JSON at its character 9"),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', "has b twice"),
        (b'{"a":' * 50_000, "nested too deep"),
        (b'{"a": ' + b"1" * 21 + b"}", "a number of 21 digits"),
    ],
)
def test_anything_else_is_an_error_with_its_place(content: bytes, cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        parse_object(content)
