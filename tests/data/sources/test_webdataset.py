from __future__ import annotations

import io
import json
import pickle
import tarfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vitreous.data.datasets import open_dataset
from vitreous.data.gather import gather_pictures
from vitreous.data.sources import webdataset
from vitreous.data.sources.webdataset import braced
from vitreous.errors import InputError


def png(grey: int) -> bytes:
    content = io.BytesIO()
    Image.new("L", (3, 2), grey).save(content, "PNG")
    return content.getvalue()


def written(path: Path, files: dict[str, bytes | str | int] | list[tuple[str, bytes | str | int]]) -> Path:
    """A tar; whole numbers become images of that grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items() if isinstance(files, dict) else files:
            data = png(content) if isinstance(content, int) else content
            data = data.encode() if isinstance(data, str) else data
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def samples_of_webdataset(tars: list[Path]) -> list[dict[str, Any]]:
    """Every sample, as the library itself finds them."""
    library = pytest.importorskip("webdataset")
    with ExitStack() as opened:
        sources = [{"url": str(tar), "stream": opened.enter_context(tar.open("rb"))} for tar in tars]
        return list(library.tariterators.group_by_keys(library.tariterators.tar_file_expander(sources)))


def grey(image: Image.Image) -> int:
    return image.getpixel((0, 0))[0]


def test_a_tar_that_webdataset_wrote_is_read_as_webdataset_reads_it(tmp_path: Path) -> None:
    library = pytest.importorskip("webdataset")
    for shard in range(3):
        with library.TarWriter(str(tmp_path / f"photos-train-{shard:03}.tar")) as writer:
            for n in range(7):
                number = shard * 7 + n
                writer.write({"__key__": f"s/{number:05}", "png": png(number), "cls": number % 4, "json": {"x": 1}})
    images = open_dataset(tmp_path, "train")
    theirs = samples_of_webdataset(sorted(tmp_path.glob("*.tar")))
    assert [f"{Path(row['__url__']).name}/{row['__key__']}.png" for row in theirs] == list(images.image_names)
    assert [row["png"] for row in theirs] == [images.content(n).data for n in range(21)]
    assert [int(row["cls"]) for row in theirs] == list(images.labels)
    assert images.class_names == ("0", "1", "2", "3")
    order = [20, 0, 13, 13, 7]
    assert [grey(images.read(n)) for n in order] == order
    again = pickle.loads(pickle.dumps(images))
    assert again.content(13) == images.content(13)
    assert open_dataset(tmp_path / "photos-train-{000..002}.tar").image_names == images.image_names
    with pytest.raises(InputError, match="has a part train, but none to test with"):
        open_dataset(tmp_path)


def test_odd_names_are_grouped_as_webdataset_groups_them(tmp_path: Path) -> None:
    files = {
        "__meta__/0.png": b"no sample", "__note__": b"none", "readme": b"none",
        "./a.b/c.PNG": 1, "./a.b/c.cls": "1",
        "日本.png": 2, "日本.seg.png": b"x", "日本.cls": "0",
        "long/" * 30 + "d.png": 3, "long/" * 30 + "d.cls": "1",
    }  # fmt: skip
    path = written(tmp_path / "odd.tar", files)
    theirs = [row for row in samples_of_webdataset([path]) if "png" in row]
    images = open_dataset(path)
    assert [row["png"] for row in theirs] == [images.content(n).data for n in range(len(images))]
    assert [int(row["cls"]) for row in theirs] == list(images.labels) == [1, 0, 1]
    assert images.image_names[0] == "odd.tar/./a.b/c.PNG"


def test_labels_stand_in_three_kinds_of_files(tmp_path: Path) -> None:
    words = {"0.png": 0, "0.txt": "dog\n", "1.png": 1, "1.json": json.dumps({"id": 7, "class_name": "cat"})}
    images = open_dataset(written(tmp_path / "words.tar", words))
    assert (images.class_names, images.labels) == (("cat", "dog"), (1, 0))
    numbers = {
        "0.png": 0,
        "0.txt": " 2 ",
        "1.png": 1,
        "1.json": "1",
        "2.png": 2,
        "2.txt": "2",
        "2.json": "1",
        "2.cls": "0",
    }
    numbers |= {"3.png": 3, "3.json": "[1]", "3.txt": "2"}
    images = open_dataset(written(tmp_path / "numbers.tar", numbers))
    assert (images.class_names, images.labels) == (("0", "1", "2"), (2, 1, 0, 2))


def test_class_names_may_stand_beside_the_tars(tmp_path: Path) -> None:
    written(tmp_path / "test" / "0.tar", {"0.png": 5, "0.cls": "1"})
    (tmp_path / "classnames.txt").write_text("cat\ndog\n", "utf-8")
    assert open_dataset(tmp_path).class_names == ("cat", "dog")
    written(tmp_path / "test" / "1.tar", {"1.png": 5, "1.cls": "2"})
    with pytest.raises(InputError, match="a label is no class; expected whole numbers from 0 to 1, 2 came"):
        open_dataset(tmp_path)
    (tmp_path / "classnames.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match=r"classnames\.txt: cannot be read as text"):
        open_dataset(tmp_path)


def test_a_label_without_an_image_is_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    images = open_dataset(written(tmp_path / "a.tar", {"0.cls": "0", "1.png": 9, "1.cls": "1"}))
    assert len(images) == 2 and grey(images.read(1)) == 9
    with pytest.raises(InputError, match=r"a\.tar/0: has a label, but no image"):
        images.read(0)


@pytest.mark.parametrize(
    ("files", "cause"),
    [
        ([("0.png", 1)], r"0\.png has no label"),
        ([("0.png", 1), ("0.jpg", 2), ("0.cls", "0")], "0 has 2 images"),
        ([("0.png", 1), ("0.png", 2), ("0.cls", "0")], r"0\.png comes twice"),
        ([("0.png", 1), ("0.cls", "0"), ("1.png", 1), ("1.cls", "0"), ("0.cls", "1")], "0 comes twice"),
        ([("0.png", 1), ("0.cls", "cat")], r"0\.cls is no label"),
        ([("0.png", 1), ("0.cls", b"\xff")], r"0\.cls is no label"),
        ([("0.png", 1), ("0.json", "{")], r"0\.json is no label"),
        ([("0.png", 1), ("0.json", "[" * 100_000)], r"0\.json is no label"),
        ([("0.png", 1), ("0.json", "{}")], r"0\.png has no label"),
        ([("0.png", 1), ("0.cls", "999999999")], "a label is 999999999; 1,000,000 classes are allowed"),
        ([("0.png", 1), ("0.cls", "0"), ("1.png", 1), ("1.txt", "dog")], "a label is no class; .* 'dog' came"),
        ([("readme.md", "text")], "no images with labels in it"),
        ([("new\nline.png", 1)], r"new\\nline\.png has no label"),
    ],
)
def test_a_tar_of_another_layout_is_refused_in_one_line(
    tmp_path: Path, files: list[tuple[str, bytes | str | int]], cause: str
) -> None:
    with pytest.raises(InputError, match=cause) as caught:
        open_dataset(written(tmp_path / "photos.tar", files))
    assert "photos.tar" in str(caught.value) and "\n" not in str(caught.value)


def test_hostile_sizes_are_refused_before_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.tar", {"0.png": 1, "0.cls": "0" * 100})
    monkeypatch.setattr(webdataset, "LABEL_LIMIT", 99)
    with pytest.raises(InputError, match=r"0\.cls has 100 bytes; 99 are allowed"):
        open_dataset(path)
    monkeypatch.setattr(webdataset, "LABEL_LIMIT", 100)
    with pytest.raises(InputError, match=r"0\.cls is no label"):
        open_dataset(path)
    images = open_dataset(written(tmp_path / "b.tar", {"0.png": 1, "0.cls": "0"}))
    monkeypatch.setattr(webdataset, "CONTENT_LIMIT", 10)
    with pytest.raises(InputError, match=r"b\.tar/0\.png: is larger than"):
        images.read(0)


def test_a_tar_that_changed_or_went_away_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tar", {"0.png": 1, "0.cls": "0"})
    images = open_dataset(path)
    with path.open("ab") as file:
        file.write(bytes(512))
    with pytest.raises(InputError, match=r"a\.tar/0\.png: the tar was changed since it was opened"):
        images.read(0)
    path.unlink()
    with pytest.raises(InputError, match=r"a\.tar/0\.png: cannot be read \(No such file"):
        images.read(0)


def test_tars_of_one_name_in_several_folders_have_images_of_several_names(tmp_path: Path) -> None:
    for folder in ("0", "1"):
        written(tmp_path / folder / "a.tar", {"0.png": int(folder), "0.cls": "0"})
    images = open_dataset(f"{tmp_path}/{{0..1}}/a.tar")
    assert len(set(images.image_names)) == 2
    assert [grey(images.read(n)) for n in range(2)] == [0, 1]


def test_a_range_in_braces(tmp_path: Path) -> None:
    for number in range(8, 12):
        (tmp_path / f"t-{number:03}.tar").touch()
        (tmp_path / f"u-{number}.tar").touch()
    assert [file.name for file in braced(f"{tmp_path}/t-{{008..011}}.tar")] == [f"t-{n:03}.tar" for n in range(8, 12)]
    assert [file.name for file in braced(f"{tmp_path}/u-{{8..11}}.tar")] == [f"u-{n}.tar" for n in range(8, 12)]
    with pytest.raises(InputError, match="is all for testing; name a folder"):
        open_dataset(f"{tmp_path}/t-{{008..011}}.tar", "train")
    with pytest.raises(InputError, match=r"2 of 6 files are not there, the first is t-012\.tar"):
        braced(f"{tmp_path}/t-{{008..013}}.tar")
    for name in ("{3..1}.tar", "{a..b}.tar", "{1..2}{1..2}.tar", "{0..999999999}.tar"):
        with pytest.raises(InputError, match="expected one range of numbers in braces"):
            open_dataset(name)


def test_pictures_of_a_tar_can_be_looked_at(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tar", {"0.png": 7, "0.cls": "0", "1.png": b"broken", "1.cls": "0"})
    pictures = gather_pictures(path)
    assert grey(pictures.read(0)) == 7
    assert (pictures.size_of(0), pictures.size_of(1)) == ((2, 3), None)
