"""Images with labels, by name: built-in data sets, folders, parquet files, tars, Hugging Face `datasets`."""

from __future__ import annotations

import difflib
from pathlib import Path

from vitreous.data.images import shown
from vitreous.data.labelled import LabelledImages, Split
from vitreous.data.sources.built_in import BUILT_IN, synthetic
from vitreous.data.sources.folders import class_folders, read_file
from vitreous.data.sources.hugging_face import hugging_face_images
from vitreous.data.sources.layout import has_files, part_of
from vitreous.data.sources.parquet_files import parquet_images
from vitreous.data.sources.streams import open_stream
from vitreous.data.sources.webdataset import braced, tar_images
from vitreous.errors import InputError

__all__ = ["BUILT_IN", "LabelledImages", "Split", "names_a_dataset", "open_dataset", "read_file"]

PREFIXES = ("synthetic:", "hf:", "hf-stream:")
"""Of names that stand for no file or folder."""


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
        close = difflib.get_close_matches(name, BUILT_IN, n=1)
        hint = f"did you mean {close[0]}?" if close else f"built-in data sets: {', '.join(sorted(BUILT_IN))}"
        raise InputError(f"{shown(name)}: no such data set, file or folder; {hint}")
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


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no system has
        return False
