"""Labelled images in tars, as WebDataset lays them out: files of one sample stand together and share a name.

`000017.jpg` and `000017.cls` are a sample. The label stands in `.cls` (a number), `.txt` (a number or a word) or
`.json` (a number, a word, or an object with `label`, `cls`, `class` or `class_name`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from PIL import Image

from vitreous.data.images import CONTENT_LIMIT, SUFFIXES, Encoded, decode_image, shown
from vitreous.data.labelled import LabelledImages, Split
from vitreous.data.sources.parquet_files import numbered
from vitreous.data.tars import Member, tar_members
from vitreous.errors import InputError

LABELS = ("cls", "json", "txt")
"""Which files have a label; of several the first."""

KEYS = ("label", "cls", "class", "class_name")
"""Where it stands in a JSON object; of several the first that is there."""

LABEL_LIMIT = 2**20
"""Bytes that such a file may have."""

NAMES = "classnames.txt"
"""Beside the tars: the classes' names, one a line."""

_LARGEST_RANGE = 1_000_000
"""Tars that one name in braces may stand for."""


class _Sample(NamedTuple):
    """A label and where its image is; `size` is -1 where the tar has none for it."""

    name: str
    label: Any
    tar: int
    start: int
    size: int


def tar_images(tars: Sequence[Path], name: str, split: Split) -> LabelledImages:
    """The samples of some tars, one tar after the other; where each begins is looked up once.

    A label without an image counts as an image that cannot be read.

    Raises:
        InputError: if a tar is damaged, has a name twice, an image without a label or a sample with two images, or if
            there is no sample.
    """
    samples: list[_Sample] = []
    for number, tar in enumerate(tars):
        samples.extend(_samples(tar, number))
    if not samples:
        raise InputError(f"{shown(tars[0])}: no images with labels in it; expected files such as 0.jpg and 0.cls")
    titles = [tar.name for tar in tars]
    if len(set(titles)) < len(titles):
        titles = [str(tar) for tar in tars]
    class_names, labels = numbered([sample.label for sample in samples], _names_beside(tars[0]), tars[0])
    images = TarImages(
        tuple(map(str, tars)),
        tuple(titles),
        tuple(tar.stat().st_size for tar in tars),
        tuple((sample.name, sample.tar, sample.start, sample.size) for sample in samples),
    )
    return LabelledImages(
        name=name,
        split=split,
        class_names=class_names,
        labels=labels,
        image_names=tuple(map(images.name, range(len(samples)))),
        read=images,
        content=images.content,
        sizes=tuple(sample.size for sample in samples),
    )


class TarImages:
    """Images in tars, by number. Nothing stays open, so that processes and threads may share it."""

    def __init__(
        self,
        tars: tuple[str, ...],
        titles: tuple[str, ...],
        sizes: tuple[int, ...],
        images: tuple[tuple[str, int, int, int], ...],
    ) -> None:
        """Nothing is read yet.

        Args:
            tars: paths.
            titles: what to call the tars.
            sizes: of the tars, in bytes.
            images: of each: the name inside the tar, which tar, where it begins and how many bytes it has.
        """
        self._tars, self._titles, self._sizes, self._images = tars, titles, sizes, images

    def __call__(self, index: int) -> Image.Image:
        """One image, decoded.

        Raises:
            InputError: if it cannot be decoded, or is no more where it was.
        """
        return decode_image(*self.content(index))

    def content(self, index: int) -> Encoded:
        """One image's file.

        Raises:
            InputError: if there is none, or the tar is another one by now.
        """
        name = self.name(index)
        _, number, start, size = self._images[index]
        if not 0 <= size <= CONTENT_LIMIT:
            cause = "has a label, but no image" if size < 0 else f"is larger than {CONTENT_LIMIT >> 20:,} MiB"
            raise InputError(f"{shown(name)}: {cause}; mend the tar")
        try:
            with Path(self._tars[number]).open("rb") as file:
                has_changed = file.seek(0, 2) != self._sizes[number]
                file.seek(start)
                data = file.read(size)
        except OSError as error:
            raise InputError(f"{shown(name)}: cannot be read ({error.strerror}); check the path") from error
        if has_changed or len(data) < size:
            raise InputError(f"{shown(name)}: the tar was changed since it was opened; start again")
        return Encoded(data, name)

    def name(self, index: int) -> str:
        """The tar of an image, and which one of it."""
        inside, number, _, _ = self._images[index]
        return f"{self._titles[number]}/{inside}"


def braced(name: str) -> tuple[Path, ...]:
    """The files that a range in braces stands for: `train-{000..146}.tar` are 147.

    Raises:
        InputError: if the range is no range, or a file is missing.
    """
    form = re.fullmatch(r"([^{}]*)\{(\d{1,9})\.\.(\d{1,9})\}([^{}]*)", name)
    if not form or not int(form[2]) <= int(form[3]) < int(form[2]) + _LARGEST_RANGE:
        raise InputError(f"{shown(name)}: expected one range of numbers in braces, such as train-{{000..146}}.tar")
    width = len(form[2]) if form[2].startswith("0") else 0
    files = [Path(f"{form[1]}{n:0{width}}{form[4]}") for n in range(int(form[2]), int(form[3]) + 1)]
    if missing := [file for file in files if not file.is_file()]:
        raise InputError(
            f"{shown(name)}: {len(missing)} of {len(files)} files are not there, the first is {shown(missing[0].name)}"
        )
    return tuple(files)


def _samples(tar: Path, number: int) -> Iterator[_Sample]:
    """Files are grouped as webdataset groups them: by the path up to the first dot of the name, one after the other."""
    seen: set[str] = set()
    try:
        with tar.open("rb") as file:
            key, group = "", dict[str, tuple[Member, Any]]()
            for member in tar_members(file, tar):
                form = re.fullmatch(r"((?:.*/|)[^./]+)\.([^/]*)", member.name, re.DOTALL)
                if form is None or re.match(r"__[^/]*__($|/)", member.name):  # of the tar as a whole
                    continue
                if form[1] != key:
                    yield from _sample(tar, number, key, group)
                    key, group = form[1], {}
                    if key in seen:
                        raise InputError(f"{shown(tar)}: {shown(key)} comes twice; give samples names of their own")
                    seen.add(key)
                kind = form[2].lower()
                if kind in group:
                    raise InputError(f"{shown(tar)}: {shown(member.name)} comes twice; give files names of their own")
                group[kind] = member, _label(file, member, kind, tar) if kind in LABELS else None
            yield from _sample(tar, number, key, group)
    except OSError as error:
        raise InputError(f"{shown(tar)}: cannot be read ({error.strerror}); check the path") from error


def _sample(tar: Path, number: int, key: str, group: dict[str, tuple[Member, Any]]) -> Iterator[_Sample]:
    """The sample of some files that share a name, or nothing if it is neither image nor label."""
    images = [member for kind, (member, _) in group.items() if f".{kind}" in SUFFIXES]
    label = next((group[kind][1] for kind in LABELS if kind in group and group[kind][1] is not None), None)
    if len(images) > 1:
        raise InputError(f"{shown(tar)}: {shown(key)} has {len(images)} images; expected one in each sample")
    if label is None and images:
        raise InputError(f"{shown(tar)}: {shown(images[0].name)} has no label; expected one in .cls, .txt or .json")
    if images:
        yield _Sample(images[0].name, label, number, images[0].start, images[0].size)
    elif label is not None:
        yield _Sample(key, label, number, 0, -1)


def _label(file: IO[bytes], member: Member, kind: str, tar: Path) -> int | str | None:
    """A label as it stands in a file; None for JSON that has none, but other notes."""
    if member.size > LABEL_LIMIT:
        raise InputError(f"{shown(tar)}: {shown(member.name)} has {member.size:,} bytes; {LABEL_LIMIT:,} are allowed")
    file.seek(member.start)
    try:
        text = file.read(member.size).decode().strip()
        found = json.loads(text) if kind == "json" else None
    except (ValueError, RecursionError):
        raise InputError(f"{shown(tar)}: {shown(member.name)} is no label; expected text or JSON in UTF-8") from None
    if isinstance(found, dict):
        found = next((found[key] for key in KEYS if key in found), None)
    if kind == "json":
        return found if isinstance(found, (int, str)) and not isinstance(found, bool) else None
    if re.fullmatch(r"[0-9]{1,9}", text):
        return int(text)
    if kind == "cls":
        raise InputError(f"{shown(tar)}: {shown(member.name)} is no label; expected a number, or a word in .txt")
    return text


def _names_beside(tar: Path) -> tuple[str, ...] | None:
    for folder in (tar.parent, tar.parent.parent):
        file = folder / NAMES
        if file.is_file():
            try:
                return tuple(file.read_text("utf-8").splitlines())
            except (OSError, ValueError) as error:
                raise InputError(f"{shown(file)}: cannot be read as text in UTF-8; mend or remove it") from error
    return None
