"""Labelled images that the library `datasets` of Hugging Face reads: from its Hub, or from a folder."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from PIL import Image

from vitreous.data.images import Encoded, decode_image, read_content, shown
from vitreous.data.labelled import LabelledImages, Split
from vitreous.data.sources.layout import WORDS
from vitreous.data.sources.parquet_files import IMAGE_COLUMNS, LABEL_COLUMNS, numbered
from vitreous.errors import InputError

_SAVED = ("dataset_dict.json", "state.json")
"""Of these, one is in a folder that `save_to_disk` wrote."""


def hugging_face_images(name: str, split: Split) -> LabelledImages:
    """The rows of a data set that `datasets.load_dataset` or `load_from_disk` opens.

    Args:
        name: `hf:ORG/NAME`, `hf:ORG/NAME:CONFIG` or `hf:FOLDER`; the first two may download.
        split: which part. What has one part alone is all `test`.

    Raises:
        InputError: if there is no such data set or part, or it has no images with labels, or `datasets` is missing.
    """
    with reading(name) as datasets:
        data, part = _opened(datasets, name, split)
        image, label, class_names = columns_of(data.features, name)
        undecoded = data.select_columns([image, label]).cast_column(image, datasets.Image(decode=False))
        class_names, labels = numbered(list(undecoded.with_format(None)[label]), class_names, name)
        sizes = _sizes(undecoded, image)
    if not labels:
        raise InputError(f"{shown(name)}: no rows in its part {part}")
    names = tuple(f"{part}#{row}" for row in range(len(labels)))
    content = partial(_content_of_row, undecoded, image, name, part)
    return LabelledImages(name, split, class_names, labels, names, partial(_read_row, content), content, sizes)


def part_named(parts: Sequence[str], name: str, split: Split) -> str:
    """Which part of a data set stands for a split.

    Raises:
        InputError: if none does.
    """
    if found := next((word for word in WORDS[split] if word in parts), None):
        return found
    if split == "test" and len(parts) == 1:
        return parts[0]
    raise InputError(f"{shown(name)}: no part to {split} with; it has {shown(', '.join(parts)) or 'none'}")


def columns_of(features: Any, name: str) -> tuple[str, str, tuple[str, ...] | None]:
    """The column of images, the column of labels, and the classes' names where they are known.

    Raises:
        InputError: if one of the columns is missing.
    """
    kinds = {column: type(feature).__name__ for column, feature in (features or {}).items()}
    images = [column for column, kind in kinds.items() if kind == "Image" or _is_file(features[column])]
    labels = [column for column, kind in kinds.items() if kind == "ClassLabel"]
    image = next((column for column in (*IMAGE_COLUMNS, *images) if column in images), None)
    label = next((column for column in (*LABEL_COLUMNS, *labels) if column in kinds), None)
    if image is None or label is None:
        has = ", ".join(f"{column} ({kind})" for column, kind in kinds.items())
        raise InputError(f"{shown(name)}: has no images with labels; its columns are {shown(has)[:200]}")
    return image, label, tuple(features[label].names) if label in labels else None


def content_of(cell: Any, name: str) -> Encoded:
    """The file of an image that was not decoded: its bytes, or what is in the file that it names."""
    if cell and cell["bytes"] is None and cell["path"] and Path(cell["path"]).is_file():
        return read_content(cell["path"])
    return Encoded((cell or {}).get("bytes") or b"", name)


def parts_and_config(name: str) -> tuple[str, str | None]:
    """The name or folder in `hf:NAME:CONFIG`, and the configuration in it."""
    path = name.partition(":")[2]
    if Path(path).exists():
        return path, None
    path, _, config = path.partition(":")
    return path, config or None


@contextmanager
def reading(name: str) -> Iterator[Any]:
    """The library, for a block that reads with it; what it raises is named.

    Raises:
        InputError: if it is missing, or cannot read what it is asked to.
    """
    try:
        datasets = importlib.import_module("datasets")
    except ImportError:
        raise InputError(f"{shown(name)}: needs the library datasets; pip install datasets") from None
    import pyarrow

    # as image libraries do, it lets anything escape where files or their notes are not as it expects
    wrong = (OSError, ValueError, LookupError, AttributeError, TypeError, RuntimeError)
    try:
        yield datasets
    except (datasets.exceptions.DatasetsError, pyarrow.ArrowException, *wrong) as error:
        cause = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{shown(name)}: datasets cannot read it ({shown(cause)})") from error


@contextmanager
def asking_the_hub(datasets: Any, path: str) -> Iterator[None]:
    """Inside, the libraries look into their cache at once where the Hub's name has no address.

    Else they would ask for it six times, with pauses of 23 seconds in all.

    Args:
        datasets: the library.
        path: of a data set on the Hub, or a folder, for which nobody is asked.
    """
    constants = importlib.import_module("huggingface_hub.constants")
    if Path(path).exists() or _has_address(constants.ENDPOINT):
        yield
        return
    settings: tuple[Any, ...] = (constants, datasets.config)
    before = [place.HF_HUB_OFFLINE for place in settings]
    try:
        for place in settings:
            place.HF_HUB_OFFLINE = True
        yield
    finally:
        for place, value in zip(settings, before, strict=True):
            place.HF_HUB_OFFLINE = value


def _has_address(endpoint: str) -> bool:
    """Whether a machine can be asked for; behind a proxy that is the proxy's to know."""
    if not {"all", "http", "https"}.isdisjoint(getproxies()):
        return True
    try:
        return bool(socket.getaddrinfo(urlsplit(endpoint).hostname, None))
    except OSError:
        return False


def _is_file(feature: Any) -> bool:
    """Whether a column is what `datasets` keeps images as, but nobody noted that they are."""
    return isinstance(feature, dict) and set(feature) == {"bytes", "path"}


def _opened(datasets: Any, name: str, split: Split) -> tuple[Any, str]:
    """The part, mapped from a file on the disk, and what it is called."""
    path, config = parts_and_config(name)
    if any((Path(path) / file).is_file() for file in _SAVED):
        saved = datasets.load_from_disk(path)
        if isinstance(saved, datasets.Dataset):
            saved = {str(saved.split or "test"): saved}
    else:
        with asking_the_hub(datasets, path):
            parts = datasets.get_dataset_split_names(path, config)
            part = part_named(parts, name, split)
            return datasets.load_dataset(path, config, split=part), part
    part = part_named(list(saved), name, split)
    return saved[part], part


def _read_row(content: Any, row: int) -> Image.Image:
    return decode_image(*content(row))


def _content_of_row(data: Any, column: str, source: str, part: str, row: int) -> Encoded:
    with reading(source):
        return content_of(data[row][column], f"{part}#{row}")


def _sizes(data: Any, column: str) -> tuple[int, ...]:
    """Bytes of each image, without reading one; -1 for files beside the table. Opened rows stand in its order."""
    from pyarrow import compute

    lengths = compute.binary_length(compute.struct_field(data.data.column(column), "bytes"))
    return tuple(-1 if length is None else length for length in lengths.to_pylist())
