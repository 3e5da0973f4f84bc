from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from vitreous.data.gather import Pictures, gather_pictures
from vitreous.errors import ConfigError, InputError


def draw(path: Path, grey: int) -> Path:
    Image.new("L", (4, 4), grey).save(path)
    return path


def test_files_and_folders_are_gathered_in_order(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    first = draw(tmp_path / "z.png", 10)
    draw(tmp_path / "folder" / "b.png", 20)
    draw(tmp_path / "folder" / "a.png", 30)
    pictures = gather_pictures([first, tmp_path / "folder"])
    assert [str(Path(name).relative_to(tmp_path)) for name in pictures.names] == [
        "z.png",
        "folder/a.png",
        "folder/b.png",
    ]
    assert [pictures.read(index).getpixel((0, 0)) for index in range(3)] == [(10,) * 3, (30,) * 3, (20,) * 3]


def test_a_built_in_data_set_gives_its_test_part() -> None:
    pytest.importorskip("sklearn")
    pictures = gather_pictures("digits")
    assert len(pictures) == 360 and pictures.read(0).size == (8, 8)


def test_a_spread_is_even_and_reads_the_chosen_ones() -> None:
    pictures = Pictures(tuple(map(str, range(10))), lambda index: Image.new("L", (1, 1), index))
    few = pictures.spread(4)
    assert few.names == ("0", "2", "5", "7")
    assert [few.read(index).getpixel((0, 0)) for index in range(4)] == [0, 2, 5, 7]
    assert pictures.spread(10) is pictures and pictures.spread(99) is pictures


def test_nothing_to_gather_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no image was named"):
        gather_pictures([])
    with pytest.raises(InputError, match="no image in this folder"):
        gather_pictures(tmp_path)
    with pytest.raises(ConfigError, match="at least 1"):
        Pictures(("a",), lambda _: Image.new("L", (1, 1))).spread(0)
