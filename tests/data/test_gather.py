from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from vitreous.data.gather import Pictures, gather_pictures
from vitreous.data.preprocess import Preprocess
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


def test_pictures_differ_by_name_and_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        draw(tmp_path / name / "a.png", 10)
    prints = []
    for name in ("one", "two", "one"):
        monkeypatch.chdir(tmp_path / name)
        prints.append(gather_pictures("a.png").fingerprint())
    assert prints[0] == prints[2] != prints[1]
    absolute = gather_pictures(tmp_path / "one" / "a.png").fingerprint()
    monkeypatch.chdir(tmp_path)
    assert gather_pictures(tmp_path / "one" / "a.png").fingerprint() == absolute


def test_sizes_are_those_of_the_upright_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by the camera
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg")
    Image.new("RGB", (6, 4)).save(tmp_path / "b.jpg", exif=exif)
    (tmp_path / "c.jpg").write_text("<html>")
    pictures = gather_pictures(tmp_path)
    assert [pictures.size_of(index) for index in range(3)] == [(4, 6), (6, 4), None]
    assert [pictures.read(index).size for index in range(2)] == [(6, 4), (4, 6)]
    assert pictures.chosen([1]).size_of(0) == (6, 4)


def test_nothing_to_gather_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no image was named"):
        gather_pictures([])
    with pytest.raises(InputError, match="no image in this folder"):
        gather_pictures(tmp_path)
    with pytest.raises(ConfigError, match="at least 1"):
        Pictures(("a",), lambda _: Image.new("L", (1, 1))).spread(0)


def test_pixels_of_pictures_are_those_of_what_is_read_chosen_or_not(tmp_path: Path) -> None:
    paths = [draw(tmp_path / f"{grey}.png", grey) for grey in (10, 20, 30)]
    preprocess = Preprocess((3, 3), "squash", 1.0, "bilinear", resampler="torch")
    for pictures in (gather_pictures(paths), replace(gather_pictures(paths), content=None)):
        assert [pictures.pixels(index, preprocess).unique().tolist() for index in range(3)] == [[10], [20], [30]]
        assert pictures.chosen([2, 0]).pixels(0, preprocess).unique().tolist() == [30]
    with pytest.raises(InputError, match=r"10\.png: no such file"):
        paths[0].unlink()
        gather_pictures(paths[1:]).chosen([0]).pixels(0, preprocess)
        pictures.pixels(0, preprocess)


def test_photographs_beside_tables_and_tars_of_something_else_are_photographs(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "train").mkdir()
    (tmp_path / "data" / "backup.tar").touch()
    (tmp_path / "data" / "notes.parquet").touch()
    draw(tmp_path / "train" / "a.png", 10)
    draw(tmp_path / "b.png", 20)
    assert len(gather_pictures(tmp_path)) == 2


def test_a_data_set_of_any_kind_is_looked_at_by_its_name() -> None:
    pictures = gather_pictures("synthetic:8x2x16")
    assert (len(pictures), pictures.size_of(0)) == (2, (16, 16))
    assert gather_pictures("synthetic:8x4x16").fingerprint() != pictures.fingerprint()
