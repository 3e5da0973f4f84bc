from __future__ import annotations

import io
import pickle
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vitreous.data.datasets import open_dataset
from vitreous.data.gather import gather_pictures
from vitreous.data.sources import hugging_face
from vitreous.data.sources.hugging_face import asking_the_hub, part_named
from vitreous.errors import InputError

library = pytest.importorskip("datasets")
huggingface_hub = pytest.importorskip("huggingface_hub")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    library.disable_progress_bars()


def png(grey: int) -> bytes:
    content = io.BytesIO()
    Image.new("L", (3, 2), grey).save(content, "PNG")
    return content.getvalue()


def made(greys: range, names: list[str] | None = None, image: str = "image", label: str = "label") -> Any:
    kind = library.ClassLabel(names=names) if names else library.Value("int64")
    rows = {image: [{"bytes": png(n), "path": None} for n in greys], label: [n % 2 for n in greys]}
    return library.Dataset.from_dict(rows, features=library.Features({image: library.Image(), label: kind}))


def grey(image: Image.Image) -> int:
    return image.getpixel((0, 0))[0]


def parquet(folder: Path) -> Path:
    (folder / "data").mkdir(parents=True)
    for number, greys in enumerate((range(5), range(5, 12))):
        made(greys, ["cat", "dog"]).to_parquet(str(folder / "data" / f"train-{number:05}-of-00002.parquet"))
    made(range(50, 53), ["cat", "dog"]).to_parquet(str(folder / "data" / "validation-00000-of-00001.parquet"))
    return folder


def test_a_folder_that_datasets_opens_gives_what_our_own_reading_gives(tmp_path: Path) -> None:
    folder = parquet(tmp_path / "set")
    for split in ("train", "test"):
        theirs, ours = open_dataset(f"hf:{folder}", split), open_dataset(folder, split)
        assert (theirs.class_names, theirs.labels) == (ours.class_names, ours.labels)
        assert [theirs.content(n).data for n in range(len(ours))] == [ours.content(n).data for n in range(len(ours))]
    assert theirs.image_names == ("validation#0", "validation#1", "validation#2")
    assert theirs.sizes == tuple(len(png(n)) for n in range(50, 53))
    again = pickle.loads(pickle.dumps(theirs))
    assert grey(again.read(2)) == 52 and again.fingerprint == theirs.fingerprint


def test_what_save_to_disk_wrote_is_opened(tmp_path: Path) -> None:
    library.DatasetDict({"train": made(range(4), ["a", "b"]), "test": made(range(9, 11), ["a", "b"])}).save_to_disk(
        str(tmp_path / "both")
    )
    assert [grey(open_dataset(f"hf:{tmp_path}/both", "train").read(n)) for n in range(4)] == [0, 1, 2, 3]
    assert open_dataset(f"hf:{tmp_path}/both").labels == (1, 0)
    made(range(3), ["a", "b"]).save_to_disk(str(tmp_path / "one"))
    assert len(open_dataset(f"hf:{tmp_path}/one")) == 3
    with pytest.raises(InputError, match="no part to train with; it has test"):
        open_dataset(f"hf:{tmp_path}/one", "train")


def test_rows_that_were_chosen_keep_their_order(tmp_path: Path) -> None:
    chosen = made(range(9), ["a", "b"]).select([7, 2, 4])
    chosen.save_to_disk(str(tmp_path / "one"))
    images = open_dataset(f"hf:{tmp_path}/one")
    assert [grey(images.read(n)) for n in range(3)] == [7, 2, 4]
    assert images.labels == (1, 0, 0)


def test_a_folder_of_images_is_opened_with_its_classes(tmp_path: Path) -> None:
    for name, level in (("cat", 1), ("dog", 2)):
        (tmp_path / "set" / "train" / name).mkdir(parents=True)
        (tmp_path / "set" / "train" / name / "a.png").write_bytes(png(level))
    images = open_dataset(f"hf:{tmp_path}/set")
    assert images.class_names == ("cat", "dog")
    assert [grey(images.read(n)) for n in range(2)] == [1, 2]
    (tmp_path / "set" / "train" / "dog" / "a.png").unlink()
    with pytest.raises(InputError):
        images.read(1)


def test_columns_and_classes_without_names(tmp_path: Path) -> None:
    made(range(3), image="photo").save_to_disk(str(tmp_path / "one"))
    images = open_dataset(f"hf:{tmp_path}/one")
    assert (images.class_names, images.labels, grey(images.read(2))) == (("0", "1"), (0, 1, 0), 2)
    made(range(3), ["a", "b"], label="kind").save_to_disk(str(tmp_path / "two"))
    assert open_dataset(f"hf:{tmp_path}/two").class_names == ("a", "b")
    made(range(3), label="kind").save_to_disk(str(tmp_path / "three"))
    with pytest.raises(InputError, match=r"no images with labels; its columns are image \(Image\), kind \(Value\)"):
        open_dataset(f"hf:{tmp_path}/three")


def test_images_that_nobody_noted_as_such_are_read(tmp_path: Path) -> None:
    rows = {"image": [{"bytes": png(n), "path": None} for n in range(3)], "label": [0, 1, 0]}
    library.Dataset.from_dict(rows).to_parquet(str(tmp_path / "test.parquet"))
    images = open_dataset(f"hf:{tmp_path}")
    assert [grey(images.read(n)) for n in range(3)] == [0, 1, 2]


def test_an_image_that_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    rows = {"image": [{"bytes": b"broken", "path": None}, None], "label": [0, 0]}
    features = library.Features({"image": library.Image(), "label": library.ClassLabel(names=["a"])})
    library.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "one"))
    images = open_dataset(f"hf:{tmp_path}/one")
    with pytest.raises(InputError, match="test#0: not a readable"):
        images.read(0)
    with pytest.raises(InputError, match="test#1: the image is empty"):
        images.read(1)


def test_a_name_that_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    for name in ("hf:nobody/nothing", f"hf:{tmp_path}", "hf:", "hf:nobody/nothing:config"):
        with pytest.raises(InputError, match="datasets cannot read it") as caught:
            open_dataset(name)
        assert "\n" not in str(caught.value)


def test_without_the_library_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match="pip install datasets"):
        open_dataset("hf:cifar10")


def test_the_part_is_found_by_its_name() -> None:
    assert part_named(["train", "validation", "test"], "x", "test") == "test"
    assert part_named(["train", "validation"], "x", "test") == "validation"
    assert part_named(["all"], "x", "test") == "all"
    with pytest.raises(InputError, match="no part to train with; it has a, b"):
        part_named(["a", "b"], "x", "train")
    with pytest.raises(InputError, match="no part to test with"):
        part_named(["a", "b"], "x", "test")


def test_pictures_of_a_data_set_can_be_looked_at(tmp_path: Path) -> None:
    pictures = gather_pictures(f"hf:{parquet(tmp_path / 'set')}")
    assert (len(pictures), pictures.size_of(1), grey(pictures.read(1))) == (3, (2, 3), 51)


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nobody had told the libraries that there is no network."""
    for place in (library.config, huggingface_hub.constants):
        monkeypatch.setattr(place, "HF_HUB_OFFLINE", False)


@pytest.mark.usefixtures("online")
def test_where_the_hub_has_no_address_nobody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(hugging_face, "getproxies", dict)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"waits for {seconds} s"))
    for name in ("hf:nobody/nothing", "hf-stream:nobody/nothing"):
        with pytest.raises(InputError, match="datasets cannot read it"):
            open_dataset(name)
    assert not library.config.HF_HUB_OFFLINE and not huggingface_hub.constants.HF_HUB_OFFLINE


@pytest.mark.usefixtures("online")
def test_a_proxy_is_left_to_find_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("asks for an address"))
    monkeypatch.setattr(hugging_face, "getproxies", lambda: {"https": "http://proxy:8080"})
    with asking_the_hub(library, "nobody/nothing"):
        assert not library.config.HF_HUB_OFFLINE
