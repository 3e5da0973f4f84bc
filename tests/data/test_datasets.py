from __future__ import annotations

import io
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitreous.data.datasets import names_a_dataset, open_dataset
from vitreous.data.preprocess import Preprocess
from vitreous.errors import InputError


def _colour(folder: Path, name: str, colour: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 4), colour).save(folder / name)


def test_digits_are_all_there_once_and_stratified() -> None:
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    train, test = open_dataset("digits", "train"), open_dataset("digits")
    assert (len(train), len(test)) == (1437, 360)
    assert torch.tensor(test.labels).bincount().tolist() == [36] * 10
    names = {*train.image_names, *test.image_names}
    assert len(names) == 1797
    target = sklearn_datasets.load_digits().target
    for part in (train, test):
        assert part.class_names == tuple("0123456789")
        assert list(part.labels) == [target[int(name.removeprefix("digits/"))] for name in part.image_names]


def test_the_split_of_the_digits_never_changes() -> None:
    pytest.importorskip("sklearn")
    held_out = [int(name.removeprefix("digits/")) for name in open_dataset("digits").image_names]
    assert held_out[:5] == [0, 8, 9, 10, 11]
    assert sum(held_out) == 333_403


def test_a_digit_is_scikit_learns_pixels_as_rgb() -> None:
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    test = open_dataset("digits")
    number = int(test.image_names[7].removeprefix("digits/"))
    grey = sklearn_datasets.load_digits().images[number]
    pixels = np.asarray(test.read(7))
    np.testing.assert_array_equal(pixels, np.rint(grey * 255 / 16)[..., None].repeat(3, -1))


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match="pip install scikit-learn"):
        open_dataset("digits")


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    _colour(tmp_path / "blue", "b.png", "blue")
    _colour(tmp_path / "blue" / "inside", "a.png", "navy")
    _colour(tmp_path / "azure", "z.png", "azure")
    _colour(tmp_path / ".hidden", "z.png", "black")
    images = open_dataset(tmp_path)
    assert images.class_names == ("azure", "blue")
    assert images.labels == (0, 1, 1)
    assert images.image_names == ("azure/z.png", "blue/b.png", "blue/inside/a.png")
    assert images.read(1).getpixel((0, 0)) == (0, 0, 255)


def test_a_folder_with_two_parts(tmp_path: Path) -> None:
    for part, colour in (("train", "red"), ("test", "blue")):
        _colour(tmp_path / part / "one", "a.png", colour)
    assert open_dataset(tmp_path, "train").read(0).getpixel((0, 0)) == (255, 0, 0)
    assert open_dataset(tmp_path, "test").read(0).getpixel((0, 0)) == (0, 0, 255)


def test_a_folder_without_parts_is_for_testing_only(tmp_path: Path) -> None:
    _colour(tmp_path / "one", "a.png", "red")
    assert len(open_dataset(tmp_path, "test")) == 1
    with pytest.raises(InputError, match="no part to train with"):
        open_dataset(tmp_path, "train")


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(InputError, match=r"digitz: no such data set, file or folder; did you mean digits\?"):
        open_dataset("digitz")


@pytest.mark.parametrize("name", ["a" * 5000, "zero\0byte", "new\nline"])
def test_a_name_that_no_system_has_is_no_data_set(name: str) -> None:
    with pytest.raises(InputError, match="no such data set, file or folder") as caught:
        open_dataset(name)
    assert "\n" not in str(caught.value)
    assert not names_a_dataset(name)


def test_a_class_without_images_is_named(tmp_path: Path) -> None:
    _colour(tmp_path / "one", "a.png", "red")
    (tmp_path / "two").mkdir()
    with pytest.raises(InputError, match="two: no image in this folder"):
        open_dataset(tmp_path)


def test_a_folder_without_classes_and_a_file_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folders in it"):
        open_dataset(tmp_path)
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(InputError, match="is no data set"):
        open_dataset(tmp_path / "notes.txt")


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    _colour(tmp_path / "one", "a.png", "red")
    (tmp_path / "one" / "b.png").write_bytes(b"no image")
    images = open_dataset(tmp_path)
    assert images.read(0).size
    for read in (images.read, lambda index: images.pixels(index, Preprocess((6, 7), "squash", 1.0))):
        with pytest.raises(InputError, match=r"b\.png: not a readable"):
            read(1)


def _png(colour: str) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (3, 3), colour).save(content, "PNG")
    return content.getvalue()


def _write_parquet(file: Path, labels: list[int], metadata: dict[bytes, bytes]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    images = [{"bytes": _png(colour), "path": f"{colour}.png"} for colour in ("red", "blue")]
    table = pyarrow.table({"image": images, "label": labels}).replace_schema_metadata(metadata)
    parquet.write_table(table, file)


def test_a_parquet_file_as_hugging_face_writes_it(tmp_path: Path) -> None:
    names = {"info": {"features": {"label": {"names": ["cat", "dog"]}}}}
    _write_parquet(tmp_path / "test.parquet", [1, 0], {b"huggingface": json.dumps(names).encode()})
    for source in (tmp_path, tmp_path / "test.parquet"):
        images = open_dataset(source)
        assert (images.class_names, images.labels) == (("cat", "dog"), (1, 0))
        assert images.read(1).getpixel((0, 0)) == (0, 0, 255)
    with pytest.raises(InputError, match="no part to train with"):
        open_dataset(tmp_path, "train")


def test_a_parquet_file_without_names_calls_classes_by_number(tmp_path: Path) -> None:
    _write_parquet(tmp_path / "test.parquet", [2, 0], {})
    assert open_dataset(tmp_path).class_names == ("0", "1", "2")


def test_rows_of_a_parquet_file_can_be_read_in_any_order_and_by_threads(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    images = []
    for level in range(100):
        content = io.BytesIO()
        Image.new("L", (2, 2), level).save(content, "PNG")
        images.append({"bytes": content.getvalue() if level != 50 else None})
    table = pyarrow.table({"image": images, "label": [0] * 100})
    parquet.write_table(table, tmp_path / "test.parquet", row_group_size=40)
    read = open_dataset(tmp_path).read
    order = [0, 1, 99, 98, 0, 39, 40, 41, 17, 79, 80, *range(49, -1, -1)]
    assert [read(row).getpixel((0, 0))[0] for row in order] == order
    with pytest.raises(InputError, match=r"test\.parquet#50: the image is empty"):
        read(50)
    with ThreadPoolExecutor(4) as pool:
        assert [image.getpixel((0, 0))[0] for image in pool.map(read, range(50))] == list(range(50))


def test_a_parquet_file_with_a_damaged_part_loses_only_that(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"image": [{"bytes": _png("red")}] * 30, "label": [0] * 30})
    parquet.write_table(table, tmp_path / "test.parquet", row_group_size=10, use_dictionary=False)
    place = parquet.ParquetFile(tmp_path / "test.parquet").metadata.row_group(1).column(0).data_page_offset
    content = bytearray((tmp_path / "test.parquet").read_bytes())
    content[place : place + 20] = b"\xff" * 20
    (tmp_path / "test.parquet").write_bytes(content)
    read = open_dataset(tmp_path).read
    for row in (3, 12, 13, 25):
        if 10 <= row < 20:
            with pytest.raises(InputError, match=rf"test\.parquet#{row}: cannot be read .*damaged here"):
                read(row)
        else:
            assert read(row).getpixel((0, 0)) == (255, 0, 0)


def test_a_parquet_label_that_is_no_class_is_refused(tmp_path: Path) -> None:
    _write_parquet(tmp_path / "test.parquet", [-1, 0], {})
    with pytest.raises(InputError, match="a label is no class"):
        open_dataset(tmp_path)


def test_a_broken_parquet_file_is_named(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "test.parquet").write_bytes(b"PAR1 but not really PAR1")
    with pytest.raises(InputError, match=r"test\.parquet: cannot be read as labelled images"):
        open_dataset(tmp_path)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match="pip install pyarrow"):
        open_dataset(tmp_path)


def test_cifar10_opens_as_it_is() -> None:
    pytest.importorskip("pyarrow")
    for folder in Path(__file__).resolve().parents:
        if (folder / "shared" / "data" / "cifar10").is_dir():
            images = open_dataset(folder / "shared" / "data" / "cifar10")
            assert len(images) == 10_000
            assert images.class_names[0] == "airplane"
            assert images.read(0).size == (32, 32)
            return
    pytest.skip("needs shared/data/cifar10 beside the checkout")
