"""Images with labels, by name: built-in data sets, folders, parquet files, tars, Hugging Face `datasets`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from vitreous.data.images import shown
from vitreous.data.labelled import LabelledImages, Split
from vitreous.data.preprocess import Preprocess
from vitreous.data.sources.built_in import BUILT_IN, synthetic
from vitreous.data.sources.folders import class_folders, read_file
from vitreous.data.sources.hugging_face import hugging_face_images
from vitreous.data.sources.layout import has_files, part_of
from vitreous.data.sources.parquet_files import parquet_images
from vitreous.data.sources.streams import open_stream
from vitreous.data.sources.webdataset import braced, tar_images
from vitreous.errors import InputError, MemoryLimitError
from vitreous.progress import progress_bar

__all__ = ["BUILT_IN", "LabelledImages", "Split", "names_a_dataset", "open_dataset", "pixels_in_memory", "read_file"]

PREFIXES = ("synthetic:", "hf:", "hf-stream:")
"""Of names that stand for no file or folder."""

MEMORY_LIMIT = 8 * 2**30
"""Bytes that `pixels_in_memory` takes at most."""


def open_dataset(name_or_path: str | Path, split: Split = "test", *, allow_empty: bool = False) -> LabelledImages:
    """A data set, ready to be read image by image, in any order.

    - `digits` is scikit-learn's: 1,797 handwritten digits of 8 x 8 pixels in 17 grey levels, 36 of each held out for
      the test, 1,437 to train with. The same people wrote both parts: an accuracy here is not that on a stranger's
      hand. `synthetic` and `synthetic:IMAGESxCLASSESxHEIGHT` are drawn when asked for.
    - A folder holds one folder of images for each class, or two folders, `train` and `test`, that do.
    - Parquet files have the columns `image` and `label` that Hugging Face `datasets` writes: one file, a folder with
      `train.parquet` and `test.parquet`, or one with shards such as `data/train-00000-of-00002.parquet`.
    - Tars have the samples of WebDataset: one tar, `photos-{000..146}.tar`, or a folder with `train` and `test` in the
      names of its tars or folders.
    - `hf:NAME` and `hf:FOLDER` are what `datasets.load_dataset` opens, or `load_from_disk`. `hf-stream:NAME` gathers
      a stream in memory; `open_stream` reads one that is larger.

    What has no two parts is all `test`: nothing is tested on what it learned. `validation` and `val` stand for a test
    part where there is no `test`.

    Args:
        name_or_path: one of the above.
        split: which part.
        allow_empty: whether a class's folder may be empty.

    Raises:
        InputError: if there is no such data set, if a class or the whole has no image, or if the package that
            reads it is missing.
    """
    name = str(name_or_path)
    if name in BUILT_IN:
        return BUILT_IN[name](split)
    if name.startswith("synthetic:"):
        return synthetic(name, split)
    if name.startswith("hf:"):
        return hugging_face_images(name, split)
    if name.startswith("hf-stream:"):
        return open_stream(name, split).gathered()
    path = Path(name_or_path)
    is_there = _is_there(path)
    if "{" in name and name.endswith(".tar") and not is_there:
        if split == "train":
            raise InputError(
                f"{shown(name)}: is all for testing; name a folder whose tars have train or test in their names"
            )
        return tar_images(braced(name), name, split)
    if not is_there:
        raise InputError(
            f"{shown(name)}: no such data set, file or folder; built-in data sets: {', '.join(sorted(BUILT_IN))}"
        )
    part = part_of(path, split)
    if part[0].is_dir():
        return class_folders(part[0], name, split, allow_empty=allow_empty)
    if part[0].suffix == ".parquet":
        return parquet_images(part, name, split)
    if part[0].suffix == ".tar":
        return tar_images(part, name, split)
    raise InputError(
        f"{shown(name)}: is no data set; expected a folder with one folder for each class, a parquet file or a tar"
    )


def names_a_dataset(source: str | Path) -> bool:
    """Whether a name is one of a data set, and not of image files or a folder of such; classes are not looked for."""
    name, path = str(source), Path(source)
    return (
        name in BUILT_IN
        or name.startswith(PREFIXES)
        or path.suffix in (".parquet", ".tar")
        or (_is_there(path) and has_files(path))
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
        pixels[index] = images.pixels(index, preprocess)

    with (
        progress_bar(f"reading {images.name}", len(images), shown=progress) as advance,
        ThreadPoolExecutor(workers) as pool,
    ):
        for _ in pool.map(decode, range(len(images))):
            advance(1, "")
    return pixels


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no system has
        return False
