from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from vitreous.data.datasets import open_dataset
from vitreous.data.sources.folders import class_folders
from vitreous.errors import InputError


def photo(path: Path, grey: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (2, 2), grey).save(path, "PNG")
    return path


def test_an_empty_class_is_kept_where_it_is_allowed(tmp_path: Path) -> None:
    photo(tmp_path / "cat" / "a.png")
    photo(tmp_path / "emu" / "b.png")
    (tmp_path / "dog" / ".hidden").mkdir(parents=True)
    with pytest.raises(
        InputError, match=r"dog: no image in this folder, but it names a class; remove it, or pass --allow-empty"
    ):
        open_dataset(tmp_path)
    images = open_dataset(tmp_path, allow_empty=True)
    assert (images.class_names, images.labels) == (("cat", "dog", "emu"), (0, 2))


def test_only_empty_classes_are_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    with pytest.raises(InputError, match="no image in any of its 1 folders"):
        open_dataset(tmp_path, allow_empty=True)


def test_a_single_class_can_be_opened(tmp_path: Path) -> None:
    photo(tmp_path / "cat" / "deep" / "deeper" / "a.png")
    assert open_dataset(tmp_path).image_names == ("cat/deep/deeper/a.png",)


def test_traps_among_the_images_are_left_out_and_circles_end(tmp_path: Path) -> None:
    real = photo(tmp_path / "set" / "cat" / "real.png")
    folder = real.parent
    (folder / "circle").symlink_to(tmp_path / "set")
    photo(tmp_path / "other" / "test" / "dog" / "dog.png")  # beside the set, and reached through a link to above it
    (folder / "above").symlink_to(tmp_path)
    (folder / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "folder.png").mkdir()
    (folder / "linked.png").symlink_to(photo(tmp_path / "outside.png", 7))
    images = open_dataset(tmp_path / "set")
    assert images.image_names == ("cat/linked.png", "cat/real.png")
    assert images.read(0).getpixel((0, 0)) == (7, 7, 7)


def test_a_folder_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(tmp_path / "cat" / "a.png")

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)  # root may read everything, so the mode cannot be used
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\); check the folder's mode"):
        class_folders(tmp_path, "photos", "test")


NAUGHTY = [
    "naïve", unicodedata.normalize("NFD", "naïve"), "日本語", "شخص", "🦈", "a b'c\"", "-rf", "new\nline", "\x1b[31mred",
    "%s%n", "$(date)", "A", "a", "x" * 255, "\u202egpj", "nul\u200b", os.fsdecode(b"stray\xff"),
]  # fmt: skip


def test_any_name_is_a_class_of_its_own(tmp_path: Path) -> None:
    for number, name in enumerate(NAUGHTY):
        photo(tmp_path / name / f"{name[:60]}.png", number)
    images = open_dataset(tmp_path)
    assert images.class_names == tuple(sorted(NAUGHTY))
    for index, label in enumerate(images.labels):
        assert images.read(index).getpixel((0, 0))[0] == NAUGHTY.index(images.class_names[label])
    assert len(images.fingerprint) == 64
    (tmp_path / "new\nline" / "new\nline.png").write_bytes(b"no image")
    broken = images.class_names.index("new\nline")
    with pytest.raises(InputError, match=r"new\\nline\.png: not a readable") as caught:
        images.read(images.labels.index(broken))
    assert "\n" not in str(caught.value)


def test_a_link_to_another_class_gives_none_of_its_images(tmp_path: Path) -> None:
    photo(tmp_path / "cat" / "a.png")
    photo(tmp_path / "dog" / "b.png")
    (tmp_path / "cat" / "up").symlink_to(tmp_path)
    (tmp_path / "cat" / "other").symlink_to(tmp_path / "dog")
    found = open_dataset(tmp_path)
    assert (found.image_names, found.labels) == (("cat/a.png", "dog/b.png"), (0, 1))
