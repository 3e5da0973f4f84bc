"""Labelled images that come one after the other, too many to keep: read in windows, in which any order is possible.

A stream of Hugging Face `datasets` has shards. An epoch takes them in an order drawn from (seed, epoch), and cuts each
into windows of the same number of samples, the last one smaller. Nothing else is drawn: which samples are in a window
depends on (seed, epoch) and its place alone, so that a run goes on at any window without what came before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice, takewhile
from typing import Any, NamedTuple

from PIL import Image

from vitreous.data.images import Encoded, decode_image, shown
from vitreous.data.labelled import LabelledImages, Split, hash_list
from vitreous.data.order import epoch_order
from vitreous.data.sources.hugging_face import (
    asking_the_hub,
    columns_of,
    content_of,
    part_named,
    parts_and_config,
    reading,
)
from vitreous.data.sources.parquet_files import numbered
from vitreous.errors import InputError, MemoryLimitError

WINDOW = 4096
"""Samples that are kept encoded at once: 450 MB of photographs of 110 KB."""

MEMORY_LIMIT = 8 * 2**30
"""Bytes that `gathered` takes at most."""


class StreamPlace(NamedTuple):
    """How far an epoch is: whole shards that were taken, and samples of the shard after them."""

    shards: int = 0
    samples: int = 0


BEGINNING = StreamPlace()
"""Where an epoch begins."""


class Window(NamedTuple):
    """Some samples of a stream, in memory.

    Attributes:
        images: as any data set; their order is the stream's.
        place: where the window begins; an epoch that goes on from here gives it again.
        following: where the next one begins.
    """

    images: LabelledImages
    place: StreamPlace
    following: StreamPlace


@dataclass(frozen=True)
class LabelledStream:
    """A data set that is read from its beginning to its end.

    Attributes:
        name: what `open_stream` was called with.
        split: which part of it.
        class_names: one for each class.
        shards: how many it has.
        window: samples of a window.
        read: (image, label) of the samples of one shard, given its index and how many samples to leave out.
    """

    name: str
    split: Split
    class_names: tuple[str, ...]
    shards: int
    window: int
    read: Callable[[int, int], Iterator[tuple[Encoded, Any]]]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what is known before it is read, so that another one tells that the stream changed."""
        known = (self.split, *self.class_names, self.shards, self.window)
        return hash_list(known).hex()

    @property
    def census(self) -> dict[str, Any]:
        """The fingerprint as plain data, like `LabelledImages.census`; how many images there are is not known."""
        return {"fingerprint": self.fingerprint}

    def windows(
        self, *, seed: int, epoch: int, start: StreamPlace = BEGINNING, is_over: Callable[[], bool] = lambda: False
    ) -> Iterator[Window]:
        """All of an epoch's windows from a place on, each read when it is asked for.

        Args:
            seed: of the run.
            epoch: from 0.
            start: where to begin.
            is_over: asked before a shard is opened and after each sample; what was read of a window is then dropped,
                and there are no more.

        Raises:
            InputError: if a sample cannot be fetched, or a label is no class.
        """
        order = epoch_order(self.shards, seed=seed, epoch=epoch).tolist()
        for position in range(start.shards, self.shards):
            place = start if position == start.shards else StreamPlace(position)
            if is_over():
                return
            samples = self.read(order[position], place.samples)
            while True:
                taken = list(islice(takewhile(lambda _: not is_over(), samples), self.window))
                if is_over():
                    return
                if not taken:
                    break
                following = StreamPlace(position, place.samples + len(taken))
                title = f"{self.split}/{order[position]}"
                yield Window(self._images(taken, title, place.samples), place, following)
                place = following

    def gathered(self, most: int | None = None) -> LabelledImages:
        """The first samples, or all, in memory and in the order of the shards: to evaluate on, or to look at.

        Raises:
            InputError: if there are none, or one cannot be fetched.
            MemoryLimitError: if they take more than 8 GiB.
        """
        taken: list[tuple[Encoded, Any]] = []
        kept = 0
        for shard in range(self.shards):
            for sample in islice(self.read(shard, 0), None if most is None else most - len(taken)):
                kept += len(sample[0].data)
                if kept > MEMORY_LIMIT:
                    raise MemoryLimitError(
                        f"{shown(self.name)}: its first {len(taken):,} images take the {MEMORY_LIMIT / 2**30:.1f} GiB "
                        "that are allowed; download it, and read it without -stream"
                    )
                taken.append(sample)
        if not taken:
            raise InputError(f"{shown(self.name)}: no rows in its part {self.split}")
        return self._images(taken, self.split, 0)

    def _images(self, samples: list[tuple[Encoded, Any]], title: str, first: int) -> LabelledImages:
        _, labels = numbered([label for _, label in samples], self.class_names, self.name)
        names = tuple(f"{title}#{first + n}" for n in range(len(samples)))
        encoded = tuple(Encoded(image.data, name) for (image, _), name in zip(samples, names, strict=True))
        return LabelledImages(
            name=self.name,
            split=self.split,
            class_names=self.class_names,
            labels=labels,
            image_names=names,
            read=partial(_read, encoded),
            content=partial(_content, encoded),
            sizes=tuple(len(image.data) for image in encoded),
        )


def open_stream(name: str, split: Split, *, window: int = WINDOW) -> LabelledStream:
    """A data set of `hf-stream:NAME`, `hf-stream:NAME:CONFIG` or `hf-stream:FOLDER`, read as it comes.

    Its labels must have names: what classes there are cannot be seen before all was read.

    Raises:
        InputError: if there is no such data set or part, it has no images with named labels, or `datasets` is missing.
    """
    path, config = parts_and_config(name)
    with reading(name) as datasets, asking_the_hub(datasets, path):
        part = part_named(datasets.get_dataset_split_names(path, config), name, split)
        data = datasets.load_dataset(path, config, split=part, streaming=True)
        image, label, class_names = columns_of(data.features, name)
        if class_names is None:
            raise InputError(
                f"{shown(name)}: column {shown(label)} is no ClassLabel, so its classes are not known before all was "
                "read; download it, and read it without -stream"
            )
        undecoded = data.select_columns([image, label]).cast_column(image, datasets.Image(decode=False))
    return LabelledStream(
        name, split, class_names, undecoded.num_shards, window, partial(_rows, undecoded, name, (image, label))
    )


def _rows(data: Any, name: str, columns: tuple[str, str], shard: int, left_out: int) -> Iterator[tuple[Encoded, Any]]:
    image, label = columns
    with reading(name):
        for row in data.shard(data.num_shards, shard).skip(left_out):
            yield content_of(row[image], ""), row[label]


def _read(samples: tuple[Encoded, ...], index: int) -> Image.Image:
    return decode_image(*samples[index])


def _content(samples: tuple[Encoded, ...], index: int) -> Encoded:
    return samples[index]
