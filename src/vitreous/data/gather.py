"""Pictures to look at, wherever they are: files, folders, a parquet file or a built-in data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vitreous.data.datasets import BUILT_IN, open_dataset
from vitreous.data.images import find_images, open_image, shown
from vitreous.errors import ConfigError


@dataclass(frozen=True)
class Pictures:
    """Pictures without labels: their names are known, they are decoded when asked for.

    Attributes:
        names: one for each picture; of a file its path.
        read: decodes one picture, given its index.
    """

    names: tuple[str, ...]
    read: Callable[[int], Image.Image]

    def __len__(self) -> int:
        return len(self.names)

    def spread(self, most: int) -> Pictures:
        """At most so many, evenly spaced, so that a data set sorted by class shows all of them.

        Raises:
            ConfigError: if `most` is below 1.
        """
        if most < 1:
            raise ConfigError(f"at most {most} images were asked for; it must be at least 1")
        if len(self) <= most:
            return self
        chosen = [index * len(self) // most for index in range(most)]
        return Pictures(tuple(self.names[index] for index in chosen), lambda index: self.read(chosen[index]))


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
        return Pictures(data.image_names, data.read)
    files = find_images(listed)
    return Pictures(tuple(map(shown, files)), lambda index: open_image(files[index]))


def _is_parquet(path: Path) -> bool:
    return path.suffix == ".parquet" or next(path.glob("*.parquet"), None) is not None
