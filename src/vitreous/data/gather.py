"""Pictures to look at, wherever they are: files, folders or the test part of a data set."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from PIL import Image
from torch import Tensor

from vitreous.data.datasets import BUILT_IN, names_a_dataset, open_dataset, read_file
from vitreous.data.headers import Size, header_size
from vitreous.data.images import Encoded, find_images, read_content, shown
from vitreous.data.labelled import LabelledImages
from vitreous.data.preprocess import Preprocess
from vitreous.data.transforms import pixels_of
from vitreous.errors import ConfigError, InputError

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Pictures:
    """Pictures without labels: their names are known and held in memory, they are decoded when asked for.

    Attributes:
        names: one for each picture; of a file its path.
        read: decodes one picture, given its index; it can be pickled, for worker processes.
        size: likewise (image_height, image_width) from the header, None where it cannot be read; None decodes.
        place: what tells these pictures from others of the same names.
        content: likewise a picture's file, not decoded; None for pictures that are in no file.
    """

    names: tuple[str, ...]
    read: Callable[[int], Image.Image]
    size: Callable[[int], Size | None] | None = None
    place: str = ""
    content: Callable[[int], Encoded] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def chosen(self, indices: Iterable[int]) -> Pictures:
        """Only some of them, in the order asked for."""
        kept = tuple(indices)
        size = None if self.size is None else partial(_of_chosen, self.size, kept)
        content = None if self.content is None else partial(_of_chosen, self.content, kept)
        names = tuple(self.names[index] for index in kept)
        return Pictures(names, partial(_of_chosen, self.read, kept), size, self.place, content)

    def pixels(self, index: int, preprocess: Preprocess) -> Tensor:
        """One picture resized and cropped, as `to_pixels(read(index), preprocess)` and sooner.

        Raises:
            InputError: if it cannot be decoded.
        """
        return pixels_of(self.read, self.content, index, preprocess)

    def size_of(self, index: int) -> Size | None:
        """(image_height, image_width) of one picture, from its header where it has one; None if it cannot be read."""
        if self.size is not None:
            return self.size(index)
        try:
            picture = self.read(index)
        except InputError:
            return None
        return picture.height, picture.width

    def spread(self, most: int) -> Pictures:
        """At most so many, evenly spaced, so that a data set sorted by class shows all of them.

        Raises:
            ConfigError: if `most` is below 1.
        """
        if most < 1:
            raise ConfigError(f"at most {most} images were asked for; it must be at least 1")
        if len(self) <= most:
            return self
        return self.chosen(index * len(self) // most for index in range(most))

    def fingerprint(self) -> str:
        """Differs where the pictures are others: names and place are asked, not the content."""
        digest = hashlib.sha256(self.place.encode(errors="backslashreplace"))
        for name in self.names:
            digest.update(b"\0" + name.encode(errors="backslashreplace"))
        return digest.hexdigest()


def gather_pictures(sources: str | Path | Sequence[str | Path]) -> Pictures:
    """All pictures of some files and folders, or of the test part of one data set.

    Args:
        sources: image files and folders; or one name of a built-in data set, or one parquet
            file or folder of such.

    Raises:
        ConfigError: if no source is named.
        InputError: if there is no such source, or no picture in it.
    """
    listed = [sources] if isinstance(sources, (str, Path)) else list(sources)
    if not listed:
        raise ConfigError(f"no image was named; give files, folders, a .parquet file or {' or '.join(BUILT_IN)}")
    if len(listed) == 1 and names_a_dataset(listed[0]):
        data = open_dataset(listed[0])
        size = None if data.content is None else partial(_content_size, data.content)
        return Pictures(data.image_names, data.read, size, _place(listed[0], data), data.content)
    paths = tuple(map(str, find_images(listed)))
    names = tuple(path if (name := shown(path)) == path else name for path in paths)  # one string, not two alike
    place = "" if all(map(os.path.isabs, paths)) else str(Path.cwd())
    return Pictures(names, partial(read_file, paths), partial(_file_size, paths), place, partial(_file_content, paths))


def _of_chosen(ask: Callable[[int], _Answer], indices: tuple[int, ...], index: int) -> _Answer:
    return ask(indices[index])


def _file_size(files: tuple[str, ...], index: int) -> Size | None:
    return header_size(files[index])


def _file_content(files: tuple[str, ...], index: int) -> Encoded:
    return read_content(files[index])


def _content_size(content: Callable[[int], Encoded], index: int) -> Size | None:
    try:
        return header_size(io.BytesIO(content(index).data))
    except InputError:
        return None


def _place(source: str | Path, data: LabelledImages) -> str:
    """The path of a data set and, of a single file, what changes when it is written again; else its fingerprint."""
    place = os.path.abspath(source)  # noqa: PTH100 - links stay as they are
    path = Path(source)
    file = path / "test.parquet" if path.is_dir() else path
    if not file.is_file():
        return place if str(source) in BUILT_IN else f"{place} {data.fingerprint}"
    status = file.stat()
    return f"{place} {status.st_size} {status.st_mtime_ns}"
