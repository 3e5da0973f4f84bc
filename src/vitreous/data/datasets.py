"""Images with labels: built-in data sets by name, folders with a folder for each class, parquet files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from vitreous.data.images import find_images, open_image, shown
from vitreous.data.parquet import ParquetImages
from vitreous.data.preprocess import Preprocess
from vitreous.data.transforms import to_pixels
from vitreous.errors import InputError, MemoryLimitError
from vitreous.progress import progress_bar

Split = Literal["train", "test"]

MEMORY_LIMIT = 8 * 2**30
"""Bytes that `pixels_in_memory` takes at most."""


@dataclass(frozen=True)
class LabelledImages:
    """A data set: what is in it is known, its images are decoded when asked for.

    Attributes:
        name: what `open_dataset` was called with.
        split: which part of it.
        class_names: one for each class.
        labels: one for each image, an index into `class_names`.
        image_names: one for each image, unique.
        read: decodes one image, given its index; it can be pickled, for worker processes.
    """

    name: str
    split: Split
    class_names: tuple[str, ...]
    labels: tuple[int, ...]
    image_names: tuple[str, ...]
    read: Callable[[int], Image.Image]

    def __len__(self) -> int:
        return len(self.labels)


def open_dataset(name_or_path: str | Path, split: Split = "test") -> LabelledImages:
    """A data set, ready to be read image by image.

    `digits` is scikit-learn's: 1,797 handwritten digits of 8 x 8 pixels in 17 grey levels, 36 of each held
    out for the test, 1,437 to train with. The same people wrote both parts: an accuracy here is not that on a
    stranger's hand.

    A folder holds one folder of images for each class, or two folders `train` and `test` that do. A parquet
    file, or a folder with `train.parquet` and `test.parquet`, has the columns `image` and `label` that
    Hugging Face `datasets` writes. What has no two parts is all `test`: nothing is tested on what it learned.

    Raises:
        InputError: if there is no such data set, if a class or the whole has no image, or if the package that
            reads it is missing.
    """
    name = str(name_or_path)
    if name in BUILT_IN:
        return BUILT_IN[name](split)
    path = Path(name_or_path)
    if not path.exists():
        raise InputError(
            f"{shown(name)}: no such data set, file or folder; built-in data sets: {', '.join(sorted(BUILT_IN))}"
        )
    part = _part(path, split)
    if part.is_dir():
        return _class_folders(part, name, split)
    if part.suffix == ".parquet":
        return _parquet(part, name, split)
    raise InputError(
        f"{shown(name)}: is no data set; expected a folder with one folder for each class, or a parquet file"
    )


def pixels_in_memory(
    images: LabelledImages, preprocess: Preprocess, *, workers: int = 1, progress: bool = False
) -> Tensor:
    """Every image at the model's size: (images, 3, image_height, image_width), whatever `workers` is.

    uint8, or float32 in [0, 1] where the preprocessing does not round to bytes.

    Args:
        images: what to decode.
        preprocess: the resize and the crop; mean and std are not applied.
        workers: threads that decode.
        progress: whether to draw a bar.

    Raises:
        InputError: if an image cannot be decoded.
        MemoryLimitError: if this takes more than 8 GiB.
    """
    height, width = preprocess.image_size
    dtype = torch.uint8 if preprocess.has_bytes else torch.float32
    needed, allowed = len(images) * 3 * height * width * dtype.itemsize, MEMORY_LIMIT
    if needed > allowed:
        raise MemoryLimitError(
            f"{images.name}: {len(images):,} images of {height} x {width} pixels need "
            f"{needed / 2**30:.1f} GiB in memory, {allowed / 2**30:.1f} GiB are allowed; "
            "use fewer images or a smaller image_size"
        )
    pixels = torch.empty(len(images), 3, height, width, dtype=dtype)

    def decode(index: int) -> None:
        pixels[index] = to_pixels(images.read(index), preprocess)

    with (
        progress_bar(f"reading {images.name}", len(images), shown=progress) as advance,
        ThreadPoolExecutor(workers) as pool,
    ):
        for _ in pool.map(decode, range(len(images))):
            advance(1, "")
    return pixels


DIGITS_SEED = 0
"""Of the fixed split into digits to train with and digits held out."""

DIGITS_HELD_OUT = 36
"""Of each of the ten digits: a fifth."""


def _digits(split: Split) -> LabelledImages:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise InputError("digits: needs scikit-learn; pip install scikit-learn") from None
    bunch = load_digits()
    labels = bunch.target.tolist()
    # grey levels 0 to 16, ink is bright -> (images, 8, 8) uint8
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    of_digit = [[n for n, label in enumerate(labels) if label == digit] for digit in range(10)]
    chosen = sorted(n for samples in of_digit for n in _digit_split(samples, split))

    return LabelledImages(
        name="digits",
        split=split,
        class_names=tuple("0123456789"),
        labels=tuple(labels[n] for n in chosen),
        image_names=tuple(f"digits/{n:04}" for n in chosen),
        read=partial(_read_grey, grey[chosen]),
    )


def _digit_split(samples: list[int], split: Split) -> list[int]:
    """The part of one digit's samples; by hashes, so that it is the same in any library's version."""

    def rank(sample: int) -> bytes:
        return hashlib.sha256(f"digits {DIGITS_SEED} {sample}".encode()).digest()

    shuffled = sorted(samples, key=rank)
    return shuffled[:DIGITS_HELD_OUT] if split == "test" else shuffled[DIGITS_HELD_OUT:]


BUILT_IN: dict[str, Callable[[Split], LabelledImages]] = {"digits": _digits}


def _part(path: Path, split: Split) -> Path:
    """Where a split lies: a folder or a file inside `path`, or, for the test, `path` itself."""
    for inside in (path / split, path / f"{split}.parquet"):
        if inside.exists():
            return inside
    if split == "train":
        raise InputError(
            f"{shown(path)}: no part to train with; expected folders train and test in it, "
            "or files train.parquet and test.parquet"
        )
    return path


def _class_folders(folder: Path, name: str, split: Split) -> LabelledImages:
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise InputError(f"{shown(folder)}: no folders in it; a data set has one folder of images for each class")
    files: list[Path] = []
    labels: list[int] = []
    for label, entry in enumerate(classes):
        inside = find_images([entry])
        files.extend(inside)
        labels.extend([label] * len(inside))
    return LabelledImages(
        name=name,
        split=split,
        class_names=tuple(entry.name for entry in classes),
        labels=tuple(labels),
        image_names=tuple(str(file.relative_to(folder)) for file in files),
        read=partial(read_file, tuple(map(str, files))),
    )


def _parquet(file: Path, name: str, split: Split) -> LabelledImages:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise InputError(f"{shown(file)}: reading parquet needs pyarrow; pip install pyarrow") from None
    try:
        opened = parquet.ParquetFile(file)
        opened.schema_arrow.field("image").type.field("bytes")
        labels = tuple(opened.read(["label"]).column("label").to_pylist())
    except (pyarrow.ArrowException, OSError, LookupError, AttributeError) as error:
        cause = " ".join(str(error).split())
        raise InputError(f"{shown(file)}: cannot be read as labelled images ({cause})") from error
    if not labels:
        raise InputError(f"{shown(file)}: no rows in it")
    class_names = _class_names(opened.schema_arrow.metadata or {}, labels)
    if not all(isinstance(label, int) and 0 <= label < len(class_names) for label in labels):
        raise InputError(f"{shown(file)}: a label is no class; expected whole numbers from 0 to {len(class_names) - 1}")
    rows_of_groups = [opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)]
    return LabelledImages(
        name=name,
        split=split,
        class_names=class_names,
        labels=labels,
        image_names=tuple(f"{file.name}#{row}" for row in range(len(labels))),
        read=ParquetImages(file, rows_of_groups),
    )


def read_file(files: Sequence[str], index: int) -> Image.Image:
    """The picture in one of some files.

    Raises:
        InputError: if it cannot be decoded.
    """
    return open_image(files[index])


def _read_grey(levels: npt.NDArray[np.uint8], index: int) -> Image.Image:
    return Image.fromarray(levels[index]).convert("RGB")


def _class_names(metadata: dict[bytes, bytes], labels: tuple[Any, ...]) -> tuple[str, ...]:
    """From the note that Hugging Face `datasets` leaves in the file, or just the numbers."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"]["label"]["names"]
        return tuple(str(name) for name in names)
    except (KeyError, TypeError, ValueError):
        return tuple(str(n) for n in range(1 + max((y for y in labels if isinstance(y, int)), default=0)))
