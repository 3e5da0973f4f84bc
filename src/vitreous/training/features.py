"""What a model makes of images, layer by layer: one vector for each image and layer, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitreous.checkpoints.loaded import LoadedModel
from vitreous.data.gather import Pictures
from vitreous.data.labelled import LabelledImages
from vitreous.data.loading import Batch, load_batches, workers_for
from vitreous.data.preprocess import Preprocess
from vitreous.data.transforms import normalise
from vitreous.errors import CheckpointError, ConfigError, InputError, MemoryLimitError, NumericError
from vitreous.model.forward import run_model
from vitreous.model.vit import VisionTransformer
from vitreous.progress import progress_bar

MEMORY_LIMIT = 8 * 2**30
"""Bytes that the features of one data set take at most."""

EMBEDDED = "embedding"
"""The layer before the first block: patches, positions and prefix tokens."""

READ_OUT = "read-out"
"""The last layer: the vector that the classification head reads."""


@dataclass(frozen=True)
class Features:
    """Vectors of some images of a data set.

    Attributes:
        layers: names, first layer first.
        values: of each layer (images, width) float32, on the CPU; stages of a ResNet differ in width.
        labels: (images,) int64.
        samples: (images,) int64, ascending; which image of the data set each is.
    """

    layers: tuple[str, ...]
    values: tuple[Tensor, ...]
    labels: Tensor
    samples: Tensor

    def rows(self, samples: Tensor) -> Tensor:
        """Where images of the data set stand among these: (images,) -> (images,) int64.

        Raises:
            ConfigError: if one is not there.
        """
        rows = torch.searchsorted(self.samples, samples).clamp_max(len(self.samples) - 1)
        if not torch.equal(self.samples[rows], samples):
            missing = int(samples[self.samples[rows] != samples][0])
            raise ConfigError(f"the features of image {missing} are asked for, but were not made; make them, too")
        return rows


def layer_features(
    loaded: LoadedModel,
    images: LabelledImages,
    *,
    samples: Tensor | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    progress: bool = False,
) -> Features:
    """The embedding, every block and the vector that the head reads, of each image, in one pass.

    Of a block's output the class token is taken where the head reads it, else the mean of the patch tokens, before any
    LayerNorm; of the embedding always the mean: the class token has seen nothing there. The last layer is exactly what
    the head reads: pooled and normalised, and behind the hidden tanh layer of a pre-training head. Of a ResNet the
    means of its stages' maps are taken.

    Args:
        loaded: a model of our own; it runs on the device that it is on.
        images: the data set.
        samples: (images,) int64; which of its images, all where it is None.
        batch_size: images in a forward pass.
        workers: processes that decode; None chooses.
        progress: whether to draw a bar.

    Raises:
        ConfigError: if `batch_size` is below 1.
        CheckpointError: if the model is another library's.
        InputError: if an image cannot be decoded, or there is none.
        MemoryLimitError: if the features take more than 8 GiB.
        NumericError: if a feature is NaN or infinite; with the layer.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; it must be at least 1")
    chosen = torch.arange(len(images)) if samples is None else samples.sort().values
    if not len(chosen):
        raise InputError(f"{images.name}: there is no image to look at")
    reader = _Reader(_own_model(loaded))
    values: dict[str, Tensor] = {}
    done = 0
    with (
        progress_bar(f"features of {images.name}, {images.split}", len(chosen), shown=progress) as advance,
        _decoded(images, loaded.preprocess, chosen.tolist(), batch_size, workers, reader.device) as batches,
    ):
        for batch in batches:
            if batch.unread:
                raise InputError(batch.unread[0][1])
            found = reader.read(normalise(batch.images.to(reader.device), loaded.preprocess))
            if not values:
                _check_memory(sum(value.shape[1] for value in found.values()), len(chosen))
                values = {name: torch.empty(len(chosen), value.shape[1]) for name, value in found.items()}
            for name, value in found.items():
                values[name][done : done + len(value)] = value
            done += len(batch.images)
            advance(len(batch.images), "")
    labels = torch.tensor(images.labels)[chosen]
    for name, value in values.items():
        if not value.isfinite().all():
            raise NumericError(f"{loaded.name}: a feature of layer {name} is NaN or infinite; its weights are broken")
    return Features(tuple(values), tuple(values.values()), labels, chosen)


class _Reader:
    """Runs a model and pools what each of its layers returns."""

    def __init__(self, model: VisionTransformer) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self._seen: dict[str, Tensor] = {}

    def read(self, inputs: Tensor) -> dict[str, Tensor]:
        """(batch, 3, image_height, image_width) -> of each layer (batch, width) float32 on the CPU."""
        self._seen = {}
        with self._watched_layers():
            self._seen[READ_OUT] = run_model(_ReadOut(self.model), inputs)
        return {name: value.float().cpu() for name, value in self._seen.items()}

    @contextmanager
    def _watched_layers(self) -> Iterator[None]:
        """Inside, each layer leaves its pooled output; afterwards no hook is left on the model."""
        hooks = []
        try:
            for name, stage in self._stages():
                hooks.append(stage.register_forward_hook(self._keep(name, _mean_of_map)))
            for layer, block in enumerate(self.model.blocks):
                if not layer:
                    hooks.append(block.register_forward_pre_hook(self._keep_input(EMBEDDED, self._mean_of_patches)))
                hooks.append(block.register_forward_hook(self._keep(f"layer {layer}", self._pooled)))
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _stages(self) -> list[tuple[str, nn.Module]]:
        stages = getattr(self.model.patch_embed.backbone, "stages", ())
        return [(f"stage {number}", stage) for number, stage in enumerate(stages)]

    def _pooled(self, sequence: Tensor) -> Tensor:
        """(batch, tokens, width) -> (batch, width)."""
        return sequence[:, 0] if "class" in self.model.config.pooling else self._mean_of_patches(sequence)

    def _mean_of_patches(self, sequence: Tensor) -> Tensor:
        """(batch, tokens, width) -> (batch, width)."""
        return sequence[:, self.model.config.prefix :].mean(dim=1)

    def _keep(self, name: str, pool: Callable[[Tensor], Tensor]) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self._seen[name] = pool(output)

        return hook

    def _keep_input(self, name: str, pool: Callable[[Tensor], Tensor]) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._seen[name] = pool(inputs[0])

        return hook


class _ReadOut(nn.Module):
    """A model without the last layer of its head."""

    def __init__(self, model: VisionTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, image_height, image_width) -> (batch, width)."""
        features = self.model.read_out(self.model.forward_features(images))
        if features.ndim == 3:  # of the class token and of the distillation token
            return features.mean(dim=1)
        hidden = self.model.pre_logits
        return features if hidden is None else torch.tanh(hidden(features))


def _mean_of_map(features: Tensor) -> Tensor:
    """(batch, channels, rows, columns) -> (batch, channels)."""
    return features.mean((-2, -1))


@contextmanager
def _decoded(
    images: LabelledImages,
    preprocess: Preprocess,
    samples: Sequence[int],
    batch_size: int,
    workers: int | None,
    device: torch.device,
) -> Iterator[Iterator[Batch]]:
    """Batches of some images of a data set, resized and cropped."""
    pictures = Pictures(images.image_names, images.read).chosen(samples)
    batches = [range(n, min(n + batch_size, len(samples))) for n in range(0, len(samples), batch_size)]
    count = workers_for(len(samples), device) if workers is None else workers
    with load_batches(pictures, preprocess, batches, count) as decoded:
        yield decoded


def _own_model(loaded: LoadedModel) -> VisionTransformer:
    if not isinstance(loaded.model, VisionTransformer):
        raise CheckpointError(
            f"{loaded.name} is a {type(loaded.model).__name__} of {loaded.kind}; layers are read from models of our "
            "own: make one with `vitreous convert MODEL FOLDER`, and name the folder"
        )
    return loaded.model


def _check_memory(width: int, images: int) -> None:
    needed = 4 * width * images
    if needed > MEMORY_LIMIT:
        raise MemoryLimitError(
            f"the features of {images} images take {needed / 2**30:.1f} GiB, more than the {MEMORY_LIMIT / 2**30:.0f} "
            "GiB allowed; take fewer images with --most"
        )
