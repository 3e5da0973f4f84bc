"""A folder of images for each class."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from PIL import Image

from vitreous.data.images import Encoded, images_inside, open_image, read_content, shown
from vitreous.data.labelled import LabelledImages, Split
from vitreous.errors import InputError


def class_folders(folder: Path, name: str, split: Split, *, allow_empty: bool = False) -> LabelledImages:
    """The images of a folder's folders, each of which is a class; hidden ones are left out.

    Raises:
        InputError: if there are no folders in it, no images in these, or, unless allowed, none in one of them.
    """
    try:
        classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"{shown(folder)}: cannot be read ({error.strerror}); check the folder's mode") from None
    if not classes:
        raise InputError(f"{shown(folder)}: no folders in it; a data set has one folder of images for each class")
    files: list[Path] = []
    labels: list[int] = []
    for label, entry in enumerate(classes):
        others = (other for other in classes if other != entry)
        inside = images_inside(entry, left_out=[folder, *folder.resolve().parents, *others])
        if not inside and not allow_empty:
            raise InputError(
                f"{shown(entry)}: no image in this folder, but it names a class; remove it, or pass --allow-empty"
            )
        files.extend(inside)
        labels.extend([label] * len(inside))
    if not files:
        raise InputError(f"{shown(folder)}: no image in any of its {len(classes)} folders")
    paths = tuple(map(str, files))
    return LabelledImages(
        name=name,
        split=split,
        class_names=tuple(entry.name for entry in classes),
        labels=tuple(labels),
        image_names=tuple(str(file.relative_to(folder)) for file in files),
        read=partial(read_file, paths),
        content=partial(_content_of, paths),
        sizes=tuple(map(_bytes_of, files)),
    )


def read_file(files: Sequence[str], index: int) -> Image.Image:
    """The picture in one of some files.

    Raises:
        InputError: if it cannot be decoded.
    """
    return open_image(files[index])


def _content_of(files: Sequence[str], index: int) -> Encoded:
    return read_content(files[index])


def _bytes_of(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # gone since it was listed: reading it says so
        return -1
