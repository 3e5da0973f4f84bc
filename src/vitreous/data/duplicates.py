"""Images of one data set that are in another, too: what is tested on should not have been learned."""

from __future__ import annotations

import hashlib

import numpy as np

from vitreous.data.labelled import LabelledImages
from vitreous.errors import InputError
from vitreous.progress import progress_bar

QUICK = 2**28
"""Bytes of both parts that are read and hashed in about a second."""


def duplicates(
    learned: LabelledImages, tested: LabelledImages, *, progress: bool = False
) -> tuple[tuple[str, str], ...]:
    """Images that come in both, by their names: (of `learned`, of `tested`).

    The same file counts, or where there are no files the same pixels; a file that was saved again does not. Everything
    is read but what has a size of its own. Of several that are alike the first stands for all; what cannot be decoded
    is left out.

    Args:
        learned: what is trained with.
        tested: what is tested on.
        progress: whether to draw a bar.
    """
    has_files = learned.content is not None and tested.content is not None
    has_sizes = has_files and len(learned.sizes) == len(learned) and len(tested.sizes) == len(tested)
    shared = set(learned.sizes) & set(tested.sizes) if has_sizes else None
    wanted, others = _worth_reading(tested, shared), _worth_reading(learned, shared)
    first: dict[bytes, int] = {}
    found: list[tuple[str, str]] = []
    with progress_bar("looking for duplicates", len(wanted) + len(others), shown=progress) as advance:
        for index in others:
            if digest := _digest(learned, index, has_files):
                first.setdefault(digest, index)
            advance(1, "")
        for index in wanted:
            digest = _digest(tested, index, has_files)
            if digest in first and not _is_image(learned, first[digest]):
                del first[digest]
            if digest in first:
                found.append((learned.image_names[first[digest]], tested.image_names[index]))
            advance(1, "")
    return tuple(found)


def duplicates_are_quick(learned: LabelledImages, tested: LabelledImages) -> bool:
    """Whether `duplicates` takes a second or two: small files, which need not be decoded."""
    if learned.content is None or tested.content is None or not (learned.sizes and tested.sizes):
        return False
    return sum(learned.sizes) + sum(tested.sizes) <= QUICK


def _worth_reading(images: LabelledImages, sizes: set[int] | None) -> list[int]:
    return [index for index in range(len(images)) if sizes is None or images.sizes[index] in sizes]


def _is_image(images: LabelledImages, index: int) -> bool:
    try:
        images.read(index)
    except InputError:
        return False
    return True


def _digest(images: LabelledImages, index: int, has_files: bool) -> bytes:
    """SHA-256 of an image's file, or of its pixels; nothing for one that cannot be read."""
    try:
        if has_files and images.content is not None:
            return hashlib.sha256(images.content(index).data).digest()
        picture = images.read(index)
        return hashlib.sha256(f"{picture.size}".encode() + np.asarray(picture).tobytes()).digest()
    except InputError:
        return b""
