"""Labelled images in parquet files, as Hugging Face `datasets` writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitreous.data.images import shown
from vitreous.data.labelled import LabelledImages, Split
from vitreous.data.parquet import ParquetImages
from vitreous.errors import InputError

IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp")
"""What the images are called; of several the first that is there."""

LABEL_COLUMNS = ("label", "labels", "fine_label", "cls")
"""Likewise the labels."""


def parquet_images(files: Sequence[Path], name: str, split: Split) -> LabelledImages:
    """The rows of some files, one file after the other: a column of images and one of labels.

    Classes have the names that Hugging Face `datasets` leaves in the file. Without these, labels that are numbers
    name themselves, from 0 to the largest, and labels that are words are the classes, sorted.

    Raises:
        InputError: if a file cannot be read, has no such columns, or other ones than the first; or pyarrow is missing.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise InputError(f"{shown(files[0])}: reading parquet needs pyarrow; pip install pyarrow") from None
    labels: list[Any] = []
    parts: list[tuple[Path, list[int]]] = []
    sizes: list[int] = []
    noted: list[tuple[str, ...] | None] = []
    columns = ("", "")
    for file in files:
        try:
            opened = parquet.ParquetFile(file)
            columns = _columns(file, opened.schema_arrow)
            labels.extend(opened.read([columns[1]]).column(columns[1]).to_pylist())
        except (pyarrow.ArrowException, OSError, LookupError, AttributeError, ValueError, OverflowError) as error:
            cause = " ".join(str(error).split())
            raise InputError(f"{shown(file)}: cannot be read as labelled images ({cause})") from error
        groups = [opened.metadata.row_group(group) for group in range(opened.num_row_groups)]
        parts.append((file, [group.num_rows for group in groups]))
        sizes.extend(group.total_byte_size for group in groups)
        noted.append(noted_names(opened.schema_arrow.metadata or {}, columns[1]))
        if noted[0] != noted[-1]:
            raise InputError(f"{shown(file)}: has other class names than {shown(files[0].name)}; use shards of one set")
    if not labels:
        raise InputError(f"{shown(files[0])}: no rows in it")
    class_names, numbers = numbered(labels, noted[0], files[0])
    images = ParquetImages(parts, columns[0])
    return LabelledImages(
        name=name,
        split=split,
        class_names=class_names,
        labels=numbers,
        image_names=tuple(map(images.name, range(len(labels)))),
        read=images,
        content=images.content,
        sizes=tuple(sizes),
    )


def noted_names(metadata: dict[bytes, bytes], column: str) -> tuple[str, ...] | None:
    """The class names in the note that Hugging Face `datasets` leaves in a file; None where there is none."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) else None


def numbered(
    labels: Sequence[Any], names: tuple[str, ...] | None, source: str | Path
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Class names, and labels that are indices into them.

    Args:
        labels: whole numbers, or words.
        names: of the classes, where they are known.
        source: stands in messages.

    Raises:
        InputError: if a label is no class, or two classes have one name.
    """
    if names is not None and len(set(names)) < len(names):
        twice = next(name for n, name in enumerate(names) if name in names[:n])
        raise InputError(f"{shown(source)}: two classes are called {shown(twice[:60])!r}; give each a name of its own")
    if labels and all(isinstance(label, str) for label in labels):
        names = names or tuple(sorted(set(labels)))
        index = {name: n for n, name in enumerate(names)}
        unknown = [label for label in labels if label not in index]
        if unknown:
            raise InputError(
                f"{shown(source)}: label {shown(unknown[0][:60])!r} is not among the {len(names)} class names"
            )
        return names, tuple(index[label] for label in labels)
    if names is None:
        largest = max((label for label in labels if _is_number(label)), default=0)
        if largest >= MOST_CLASSES:
            raise InputError(f"{shown(source)}: a label is {largest}; {MOST_CLASSES:,} classes are allowed")
        names = tuple(map(str, range(1 + largest)))
    wrong = [label for label in labels if not _is_number(label) or not 0 <= label < len(names)]
    if wrong:
        raise InputError(
            f"{shown(source)}: a label is no class; expected whole numbers from 0 to {len(names) - 1}, "
            f"{shown(repr(wrong[0])[:60])} came ({len(wrong):,} of {len(labels):,} labels)"
        )
    return names, tuple(labels)


MOST_CLASSES = 1_000_000
"""A label beyond it is a mistake: names are made for all numbers before it."""


def _columns(file: Path, schema: Any) -> tuple[str, str]:
    """The columns of images and of labels."""
    image = next((name for name in IMAGE_COLUMNS if name in schema.names), None)
    label = next((name for name in LABEL_COLUMNS if name in schema.names), None)
    if image is None or label is None:
        raise InputError(
            f"{shown(file)}: cannot be read as labelled images (columns {shown(', '.join(schema.names)[:100])}); "
            "expected image and label"
        )
    kind = schema.field(image).type
    if hasattr(kind, "fields"):
        kind.field("bytes")  # raises where there is none
    return image, label


def _is_number(label: Any) -> bool:
    return isinstance(label, int) and not isinstance(label, bool)
