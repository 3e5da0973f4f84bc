"""The training loop, top to bottom."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import PIL
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vitreous
from vitreous.checkpoints.saving import save
from vitreous.checkpoints.words import MODEL
from vitreous.data.augment import DRAWS, augment
from vitreous.data.datasets import LabelledImages, open_dataset, pixels_in_memory
from vitreous.data.order import epoch_order, keyed_seed, uniform
from vitreous.data.transforms import normalise
from vitreous.errors import ConfigError, NumericError
from vitreous.model.vit import VisionTransformer
from vitreous.progress import progress_bar
from vitreous.training.config import TrainConfig
from vitreous.training.evaluate import Evaluation, class_logits, score
from vitreous.training.optimizer import learning_rate, make_optimizer
from vitreous.training.reproducible import reproducible
from vitreous.training.runs import append_metrics, check_run, checkpoint_folder, start_run
from vitreous.training.settings_file import plain


@dataclass(frozen=True)
class TrainResult:
    """What a run left.

    Attributes:
        model: the folder that `vitreous.load`, timm and transformers open.
        evaluation: of the last weights on the test part; no other weights were tried on it.
        steps: of the optimizer.
        seconds: in all, from the call to the saved model.
    """

    model: Path
    evaluation: Evaluation
    steps: int
    seconds: float


def train(config: TrainConfig, out: str | Path, *, progress: bool = True) -> TrainResult:
    """Trains a model from first weights and leaves it in `out/model`.

    Also in `out`: `config.yaml`, all that fixes the run, `metrics.jsonl`, a line for each epoch, and, where the config
    has `keep_every`, a model for every so many epochs in `checkpoints/`, `epoch-0000` with the first weights. The same
    config on the same kind of machine with the same library versions gives the same bits. The saved weights
    are those after the last step, never those that did best on the test part.

    Args:
        config: the run.
        out: a folder, made if there is none.
        progress: whether to draw a bar on standard error.

    Raises:
        OutputError: if `out` cannot be written or holds a finished run of another config; before any work.
        InputError: if the data cannot be read.
        ConfigError: if the model's classes are not as many as the data's.
        NumericError: if the loss or a gradient becomes NaN or infinite; no model is saved then.
    """
    began = time.monotonic()
    out = Path(out)
    check_run(out, config)
    learned, tested = open_dataset(config.data, "train"), open_dataset(config.data, "test")
    _check_classes(config, learned, tested)
    start_run(out, config)
    options: dict[str, Any] = {"workers": config.workers, "progress": progress}
    pixels = pixels_in_memory(learned, config.preprocess, **options)  # (images, 3, image_height, image_width)
    test_pixels = pixels_in_memory(tested, config.preprocess, **options)
    labels, test_labels = torch.tensor(learned.labels), torch.tensor(tested.labels)
    described: dict[str, Any] = {"preprocess": config.preprocess, "class_names": learned.class_names}
    origin = _provenance(config, learned, tested)

    with reproducible(config.threads), progress_bar("training", config.epochs, shown=progress) as advance:
        first_weights = torch.Generator().manual_seed(keyed_seed(config.seed))
        model = VisionTransformer(config.model, generator=first_weights)
        optimizer = make_optimizer(model, config.optimizer)
        steps = config.epochs * -(-len(learned) // config.batch_size)
        step = 0
        if config.keeps(0):
            save(model, checkpoint_folder(out, 0), **described, provenance=origin | {"epoch": 0})
        for epoch in range(config.epochs):
            epoch_began = time.monotonic()
            losses = torch.zeros(())
            model.train()
            order = epoch_order(len(learned), seed=config.seed, epoch=epoch)
            for batch in torch.split(order, config.batch_size):
                inputs = _training_inputs(pixels[batch], batch, epoch, config)
                torch.manual_seed(keyed_seed(config.seed, epoch, step))  # dropout and drop path
                loss = F.cross_entropy(model(inputs), labels[batch], label_smoothing=config.label_smoothing)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                length = nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip or float("inf"))
                _check_finite(loss, length, step, epoch, batch, learned)
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(step, steps, config.optimizer)
                optimizer.step()
                losses += loss.detach() * len(batch)
                step += 1
            epoch_seconds = time.monotonic() - epoch_began
            model.eval()
            logits = _all_logits(model, test_pixels, config)
            evaluation = score(logits, test_labels, tested.class_names)
            metrics = {
                "epoch": epoch + 1,
                "step": step,
                "learning_rate": learning_rate(step - 1, steps, config.optimizer),
                "train_loss_nats": losses.item() / len(learned),
                "test_loss_nats": evaluation.loss,
                "test_top1": evaluation.top1,
                "train_images_per_second": len(learned) / epoch_seconds,
                "elapsed_seconds": time.monotonic() - began,
            }
            append_metrics(out, metrics)
            results = {"epoch": epoch + 1, "test_top1": evaluation.top1, "test_loss_nats": evaluation.loss}
            if config.keeps(epoch + 1):
                save(model, checkpoint_folder(out, epoch + 1), **described, provenance=origin | results)
            advance(1, _note(metrics))
        folder = out / MODEL
        save(model, folder, **described, provenance=origin | results)
    return TrainResult(folder, evaluation, step, time.monotonic() - began)


def _check_classes(config: TrainConfig, learned: LabelledImages, tested: LabelledImages) -> None:
    classes = len(learned.class_names)
    if classes != config.model.classes:
        raise ConfigError(
            f"model.classes is {config.model.classes}, but {config.data} has {classes} classes; "
            f"set model.classes to {classes}"
        )
    if learned.class_names != tested.class_names:
        raise ConfigError(
            f"{config.data}: the training part's classes {', '.join(learned.class_names[:5])} ... are not "
            f"the test part's {', '.join(tested.class_names[:5])} ...; give both parts the same folders"
        )


def _training_inputs(pixels: Tensor, batch: Tensor, epoch: int, config: TrainConfig) -> Tensor:
    """One batch, changed by chance and normalised: (batch, 3, image_height, image_width) -> float32."""
    draws = uniform(batch, DRAWS, seed=config.seed, epoch=epoch)
    settings = config.augmentation
    changed = augment(
        pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels,
        draws,
        shift=settings.shift,
        rotation=settings.rotation,
        scale=settings.scale,
        flip=settings.flip,
    )
    return normalise(changed, config.preprocess)


def _all_logits(model: nn.Module, pixels: Tensor, config: TrainConfig) -> Tensor:
    """Logits of images in memory, batch by batch: (images, 3, ...) -> (images, classes)."""
    batches = torch.split(pixels, config.batch_size)
    return torch.cat([class_logits(model, normalise(batch, config.preprocess)) for batch in batches])


def _check_finite(loss: Tensor, length: Tensor, step: int, epoch: int, batch: Tensor, learned: LabelledImages) -> None:
    for name, value in (("loss", loss), ("gradient's length", length)):
        if not value.isfinite():
            names = ", ".join(learned.image_names[n] for n in batch[:3].tolist())
            raise NumericError(
                f"the {name} is {value.item()} at step {step} (epoch {epoch + 1}), in the batch of {names} ...; "
                "no model was saved; lower optimizer.learning_rate or raise optimizer.warmup"
            )


def _note(metrics: dict[str, float]) -> str:
    return (
        f"loss {metrics['train_loss_nats']:.3f}, top-1 {metrics['test_top1']:.1%}, "
        f"{metrics['train_images_per_second']:.0f} images/s"
    )


def _provenance(config: TrainConfig, learned: LabelledImages, tested: LabelledImages) -> dict[str, Any]:
    """Where the weights come from; nothing in it changes from one run of the same config to the next."""
    return {
        "data": {"name": learned.name, "train_images": len(learned), "test_images": len(tested)},
        "config": plain(config),
        "versions": {
            "vitreous": vitreous.__version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": numpy.__version__,
            "pillow": PIL.__version__,
        },
    }
