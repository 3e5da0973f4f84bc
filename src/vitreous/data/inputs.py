"""What a model is given: batches from a tensor in memory or from pictures on disk, and what to call each image."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vitreous.data.fingerprints import hash_tensor
from vitreous.data.gather import Pictures, gather_pictures
from vitreous.data.loading import Batch, load_batches, workers_for
from vitreous.data.preprocess import Preprocess
from vitreous.data.transforms import normalise, undo
from vitreous.errors import ConfigError, InputError, ShapeError

Images = Tensor | Pictures | str | Path | Sequence[str | Path]
"""What can be looked at: a tensor for the model, pictures, or where pictures are."""


@dataclass(frozen=True)
class Inputs:
    """Images by index.

    Attributes:
        names: one for each image.
        images: (images, channels, image_height, image_width) float, or pictures.
        preprocess: what pictures go through; for a tensor it only undoes colours, and may be None.
    """

    names: tuple[str, ...]
    images: Tensor | Pictures
    preprocess: Preprocess | None

    def batches(self, size: int) -> list[range]:
        """Indices of all images, so many in a batch."""
        total = len(self.names)
        return [range(first, min(first + size, total)) for first in range(0, total, size)]

    def loaded(
        self, batches: Sequence[range], workers: int | None, device: torch.device, processes: int
    ) -> AbstractContextManager[Iterator[Batch]]:
        """These batches, in order; see `load_batches`.

        Args:
            batches: indices of images.
            workers: processes that decode pictures; None chooses.
            device: where the model runs.
            processes: of the same run on this machine.
        """
        if isinstance(self.images, Tensor):
            return nullcontext(Batch(tuple(some), self.images[some.start : some.stop]) for some in batches)
        assert self.preprocess is not None
        if workers is None:
            workers = workers_for(sum(map(len, batches)), device, processes)
        return load_batches(self.images, self.preprocess, batches, workers)

    def of_batch(self, batch: Batch, device: torch.device) -> Tensor:
        """What the model is given for a batch: (batch, channels, image_height, image_width) float."""
        images = batch.images.to(device)
        return (
            images if isinstance(self.images, Tensor) or self.preprocess is None else normalise(images, self.preprocess)
        )

    def fingerprint(self) -> str:
        """Differs where the images are others: of a tensor each value counts, of pictures name and place."""
        if isinstance(self.images, Pictures):
            return self.images.fingerprint()
        return hash_tensor(self.images)


def open_inputs(images: Images, preprocess: Preprocess | None, names: tuple[str, ...]) -> Inputs:
    """Images ready to be taken in batches; `names` are those of a tensor.

    Raises:
        ConfigError: if pictures come without a preprocessing, or images and names differ in number.
        InputError: if there is no image.
        ShapeError: if a tensor does not have four axes.
    """
    if not isinstance(images, Tensor):
        if preprocess is None:
            raise ConfigError(
                "images are pictures, but nothing tells what the model wants done to them\n"
                "pass preprocess=Preprocess(...), or a tensor that is already preprocessed"
            )
        pictures = images if isinstance(images, Pictures) else gather_pictures(images)
        return Inputs(pictures.names, pictures, preprocess)
    if images.ndim != 4:
        raise ShapeError(f"images are {tuple(images.shape)}, not (batch, channels, image_height, image_width)")
    if names and len(names) != len(images):
        raise ConfigError(f"{len(names)} names for {len(images)} images; give one each, or none")
    if not len(images):
        raise InputError("there is no image: the batch is empty")
    return Inputs(names or tuple(f"image {index}" for index in range(len(images))), images, preprocess)


def short_names(names: Sequence[str], indices: Sequence[int]) -> tuple[str, ...]:
    """Some of the names, without the folders that all have in common."""
    folders = [Path(folder).parts for folder in {os.path.dirname(name) for name in names}]  # noqa: PTH120 - quicker
    levels = zip(*folders, strict=False)  # as deep as the shallowest
    common = next((depth for depth, level in enumerate(levels) if len(set(level)) > 1), min(map(len, folders)))
    return tuple(str(Path(*Path(names[index]).parts[common:])) for index in indices)


def thumbnails(inputs: Tensor, preprocess: Preprocess | None) -> Tensor:
    """Inputs as colours: (images, image_height, image_width, 3) uint8, stretched where the colours are not known."""
    if inputs.shape[1] == 1:
        inputs = inputs.expand(-1, 3, -1, -1)
    if preprocess is not None:
        return undo(inputs[:, :3], preprocess)
    low, high = inputs[:, :3].aminmax(dim=1, keepdim=True)
    low, high = low.amin((2, 3), keepdim=True), high.amax((2, 3), keepdim=True)
    stretched = (inputs[:, :3] - low) / (high - low).clamp_min(torch.finfo(inputs.dtype).tiny)
    return (stretched * 255).round().to(torch.uint8).movedim(1, -1)
