"""Small data sets decoded once and kept, so that later epochs do not decode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from vitreous.data.images import as_rgb
from vitreous.data.labelled import LabelledImages
from vitreous.data.preprocess import Preprocess
from vitreous.errors import InputError
from vitreous.progress import progress_bar

LIMIT = 2 * 2**30
"""Bytes that are kept at most; workers share them with the main process."""

SAMPLED = 16
"""Pictures that are asked for their size, to tell whether all would fit."""

Causes = dict[int, str]
"""Why pictures could not be read, by their index."""

_Read = TypeVar("_Read")


def keep_pixels(
    images: LabelledImages, preprocess: Preprocess, *, limit: int = LIMIT, workers: int = 0, progress: bool = False
) -> tuple[Tensor, Causes] | None:
    """Every picture at the model's size, or None if they take more than `limit` bytes.

    Args:
        images: what to decode.
        preprocess: the resize and the crop; mean and std are not applied.
        limit: in bytes.
        workers: threads that decode; 0 is 1.
        progress: whether to draw a bar.

    Returns:
        pixels: (images, 3, image_height, image_width), uint8 or float32 in [0, 1] as `to_pixels`; black where a
            picture cannot be read.
        causes: of these.
    """
    height, width = preprocess.image_size
    dtype = torch.uint8 if preprocess.has_bytes else torch.float32
    if len(images) * 3 * height * width * dtype.itemsize > limit:
        return None
    pixels = torch.zeros(len(images), 3, height, width, dtype=dtype)

    def read(index: int) -> None:
        pixels[index] = images.pixels(index, preprocess)

    causes = {index: cause for index, _, cause in _each(images, read, workers, progress) if cause}
    return pixels, causes


def keep_pictures(
    images: LabelledImages, *, limit: int = LIMIT, workers: int = 0, progress: bool = False
) -> LabelledImages:
    """The same data set, its pictures read from memory; as it is, if they take more than `limit` bytes.

    While they are gathered they take twice that. A picture that could not be read raises the same when asked for.
    """
    if _bytes_of_all(images) > limit:
        return images
    shapes: list[tuple[int, int]] = []
    parts: list[bytes] = []
    causes: Causes = {}
    starts = [0]
    for index, image, cause in _each(images, lambda index: as_rgb(images.read(index)), workers, progress):
        if image is None:
            causes[index] = cause
        shapes.append((0, 0) if image is None else (image.height, image.width))
        parts.append(b"" if image is None else image.tobytes())
        starts.append(starts[-1] + len(parts[-1]))
        if starts[-1] > limit:
            return images
    flat = torch.frombuffer(bytearray().join([*parts, b"\0"]), dtype=torch.uint8)  # a tensor of nothing is refused
    return replace(images, read=_Kept(flat, tuple(starts), tuple(shapes), causes), content=None)


@dataclass(frozen=True)
class _Kept:
    """Reads pictures from one long tensor, which worker processes share."""

    flat: Tensor
    starts: tuple[int, ...]
    shapes: tuple[tuple[int, int], ...]
    causes: Causes

    def __call__(self, index: int) -> Image.Image:
        if index in self.causes:
            raise InputError(self.causes[index])
        height, width = self.shapes[index]
        return Image.fromarray(self.flat[self.starts[index] : self.starts[index + 1]].view(height, width, 3).numpy())


def _bytes_of_all(images: LabelledImages) -> float:
    """About how much all pictures take, by a few of them; 0 if none of these can be read."""
    sizes = []
    for index in range(0, len(images), max(1, len(images) // SAMPLED)):
        try:
            image = images.read(index)
        except InputError:
            continue
        sizes.append(3 * image.height * image.width)
    return sum(sizes) / max(len(sizes), 1) * len(images)


def _each(
    images: LabelledImages, read: Callable[[int], _Read], workers: int, progress: bool
) -> Iterator[tuple[int, _Read | None, str]]:
    """(index, what was read, why not) of every picture, in order."""

    def one(index: int) -> tuple[int, _Read | None, str]:
        try:
            return index, read(index), ""
        except InputError as error:
            return index, None, str(error)
        except MemoryError:
            return index, None, f"{images.image_names[index]}: does not fit in memory; make it smaller"

    with (
        progress_bar(f"reading {images.name}", len(images), shown=progress) as advance,
        ThreadPoolExecutor(max(workers, 1)) as pool,
    ):
        for found in pool.map(one, range(len(images))):
            advance(1, "")
            yield found
