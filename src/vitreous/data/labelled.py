"""What every source of labelled images gives: names and labels at once, pictures when asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import Any, Literal

from PIL import Image
from torch import Tensor

from vitreous.data.images import Encoded
from vitreous.data.preprocess import Preprocess
from vitreous.data.transforms import pixels_of

Split = Literal["train", "test"]


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
        content: likewise its file's content, None for images that are in no file.
        sizes: in bytes, of what the images come from, as far as that is known without reading it: of each image, or
            of larger parts.
    """

    name: str
    split: Split
    class_names: tuple[str, ...]
    labels: tuple[int, ...]
    image_names: tuple[str, ...]
    read: Callable[[int], Image.Image]
    content: Callable[[int], Encoded] | None = None
    sizes: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of split, class names, labels, image names and sizes: another one tells that the data set changed.

        The same for a data set that was copied to another folder. Pixels are not asked.
        """
        digest = hashlib.sha256(self.split.encode())
        for column in (self.class_names, self.labels, self.image_names, self.sizes):
            digest.update(hash_list(column))
        return digest.hexdigest()

    @cached_property
    def census(self) -> dict[str, Any]:
        """The fingerprint, and what tells how a data set changed when it is another one: plain data.

        `images` has how many images each class has, `hashes` a short hash of their names and sizes.
        """
        listed: list[list[str]] = [[] for _ in self.class_names]
        sizes = self.sizes if len(self.sizes) == len(self) else repeat("")
        for label, name, size in zip(self.labels, self.image_names, sizes, strict=False):
            listed[label].append(f"{name}\0{size}")
        texts = ("\0".join(lines).encode(errors="surrogatepass") for lines in listed)
        hashes = [hashlib.sha256(text).hexdigest()[:16] for text in texts]
        return {
            "fingerprint": self.fingerprint,
            "images": dict(zip(self.class_names, map(len, listed), strict=True)),
            "hashes": dict(zip(self.class_names, hashes, strict=True)),
        }

    def pixels(self, index: int, preprocess: Preprocess) -> Tensor:
        """One image resized and cropped, as `to_pixels(read(index), preprocess)` and sooner.

        Raises:
            InputError: if it cannot be decoded.
        """
        return pixels_of(self.read, self.content, index, preprocess)


def hash_list(values: Iterable[object]) -> bytes:
    """SHA-256 of the texts of some values, in order; no text can pass for two."""
    digest = hashlib.sha256()
    for value in values:
        text = str(value).encode(errors="surrogatepass")  # file names may hold bytes that are no letters
        digest.update(len(text).to_bytes(8, "big") + text)
    return digest.digest()
