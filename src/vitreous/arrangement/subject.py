"""One of the models whose answers to changed images are measured, with all that is found in it once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from vitreous.arrangement.answers import Reader, Reading
from vitreous.arrangement.layers import SpatialLayers
from vitreous.arrangement.without import find_position_table
from vitreous.capture.watch import watch_attention
from vitreous.checkpoints.loaded import LoadedModel
from vitreous.errors import ConfigError, ShapeError
from vitreous.measures.rollout import attention_rollout

_Found = TypeVar("_Found")


class Subject:
    """A model, ready to be measured.

    Attributes:
        loaded: the model as it was opened.
        name: unique among the models of a run.
        device: where it runs.
        layers: whose features are read.
        table: its position embeddings; None where it has no table.
        notes: what is special about it, each a sentence.
        passes: how many images went through it so far.

    Args:
        loaded: the model; it stays on its device.
        name: for titles.
        image: (1, channels, image_height, image_width), preprocessed: an example.

    Raises:
        ConfigError: if the model is in training mode.
        CheckpointError: if it has no classification head.
        CaptureError: if it has no layer whose features have a place in the image.
        NumericError: if its answer is NaN or infinite.
        ShapeError: if it refuses the image.
    """

    def __init__(self, loaded: LoadedModel, name: str, image: Tensor) -> None:
        if loaded.model.training:
            raise ConfigError(
                f"{name} is in training mode, where dropout and batch statistics vary\ncall model.eval() first"
            )
        self.loaded, self.name, self.passes = loaded, name, 0
        weight = next(loaded.model.parameters(), torch.zeros(()))
        self.device = weight.device
        self._format = torch.contiguous_format
        self._reader = Reader(loaded.model, image, name)
        self.layers = SpatialLayers(loaded.model, self.given(image))
        self.table = find_position_table(loaded.model, self.given(image)) if self.attends else None
        self._format = self._quicker_format(image)
        self.notes: list[str] = []
        if not self._reader.reads_head:
            self.notes.append(
                f"{name}: no linear layer gives its answers, so the cosine is of logits, not of what a head reads."
            )

    @property
    def attends(self) -> bool:
        """Whether it has attention, and so a rollout."""
        return self.layers.kind != "CNN"

    @property
    def classes(self) -> int:
        """How many logits it gives."""
        return self._reader.classes

    @property
    def image_size(self) -> tuple[int, int]:
        """(image_height, image_width) in pixels that it sees."""
        return self.loaded.preprocess.image_size

    @property
    def parameters(self) -> int:
        """How many numbers it has learned."""
        return sum(parameter.numel() for parameter in self.loaded.model.parameters())

    def given(self, images: Tensor) -> Tensor:
        """Images where the model is, in the order of memory that it is quickest in."""
        return images.to(self.device, memory_format=self._format)

    def read(self, images: Tensor) -> Reading:
        """One pass: (batch, channels, image_height, image_width) -> logits and features."""
        self.passes += len(images)
        return self._reader.read(self.given(images))

    def read_layers(self, images: Tensor) -> tuple[Reading, dict[str, Tensor]]:
        """The same, and by layer (batch, rows, columns, width)."""
        self.passes += len(images)
        return self._reader.read_layers(self.layers, self.given(images))

    def attended(self, look: Callable[[Tensor], _Found], images: Tensor) -> tuple[_Found, Tensor, tuple[int, int]]:
        """What `look`, `read` or `read_layers` of this model, finds, and how much its answer rests on each patch.

        Returns:
            What was found; the patches of each image, the one first that attention rollout gives most to,
            (batch, patches) int64 on the CPU; and (rows, columns).
        """
        with watch_attention(self.loaded.model) as watched:
            found = look(images)
        layout = watched.layout
        reached = layout.patch_tokens(attention_rollout(watched.layers, layout))
        order = reached.argsort(dim=1, descending=True, stable=True).cpu()
        return found, order, (layout.rows, layout.columns)

    def _quicker_format(self, image: Tensor) -> torch.memory_format:
        """Channels last, with which convolutions on a CPU take half the time; where a model takes such images."""
        if self.device.type != "cpu" or self.layers.kind == "ViT":
            return torch.contiguous_format
        try:
            self._reader.read(image.to(memory_format=torch.channels_last))
        except ShapeError:  # a view that its maps do not have in this order
            return torch.contiguous_format
        return torch.channels_last
