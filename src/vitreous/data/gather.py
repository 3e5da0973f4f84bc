"""Pictures to look at, wherever they are: files, folders, a parquet file or a built-in data set."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from PIL import Image

from vitreous.data.datasets import BUILT_IN, open_dataset, read_file
from vitreous.data.headers import Size, header_size
from vitreous.data.images import find_images, shown
from vitreous.data.parquet import ParquetImages
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
    """

    names: tuple[str, ...]
    read: Callable[[int], Image.Image]
    size: Callable[[int], Size | None] | None = None
    place: str = ""

    def __len__(self) -> int:
        return len(self.names)

    def chosen(self, indices: Iterable[int]) -> Pictures:
        """Only some of them, in the order asked for."""
        kept = tuple(indices)
        size = None if self.size is None else partial(_of_chosen, self.size, kept)
        names = tuple(self.names[index] for index in kept)
        return Pictures(names, partial(_of_chosen, self.read, kept), size, self.place)

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
    if len(listed) == 1 and (str(listed[0]) in BUILT_IN or _is_parquet(Path(listed[0]))):
        data = open_dataset(listed[0])
        size = data.read.size if isinstance(data.read, ParquetImages) else None
        return Pictures(data.image_names, data.read, size, _place(Path(listed[0])))
    paths = tuple(map(str, find_images(listed)))
    names = tuple(path if (name := shown(path)) == path else name for path in paths)  # one string, not two alike
    place = "" if all(map(os.path.isabs, paths)) else str(Path.cwd())
    return Pictures(names, partial(read_file, paths), partial(_file_size, paths), place)


def _of_chosen(ask: Callable[[int], _Answer], indices: tuple[int, ...], index: int) -> _Answer:
    return ask(indices[index])


def _file_size(files: tuple[str, ...], index: int) -> Size | None:
    return header_size(files[index])


def _place(source: Path) -> str:
    """The path of a data set and, of a single file, what changes when it is written again."""
    place = os.path.abspath(source)  # noqa: PTH100 - links stay as they are
    file = source / "test.parquet" if source.is_dir() else source
    if not file.is_file():
        return place
    status = file.stat()
    return f"{place} {status.st_size} {status.st_mtime_ns}"


def _is_parquet(path: Path) -> bool:
    return path.suffix == ".parquet" or next(path.glob("*.parquet"), None) is not None
