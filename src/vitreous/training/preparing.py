"""What a run works with, made ready before its first step."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import PIL
import torch
from torch import nn

import vitreous
from vitreous.checkpoints.saving import save
from vitreous.data.datasets import LabelledImages, open_dataset
from vitreous.data.duplicates import duplicates, duplicates_are_quick
from vitreous.data.images import shown
from vitreous.data.order import keyed_seed
from vitreous.data.sources.streams import LabelledStream, open_stream
from vitreous.data.training_batches import BatchPlan, TrainingImages, steps_of_epoch, training_images
from vitreous.errors import ConfigError, InputError, MemoryLimitError
from vitreous.memory import memory_of_machine
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer
from vitreous.progress import say
from vitreous.training.averages import RunningAverage
from vitreous.training.changes import check_same_classes
from vitreous.training.config import TrainConfig
from vitreous.training.distributed import Ranks, spread, whole_tensors
from vitreous.training.held_out import HeldOutImages, held_out_images
from vitreous.training.masked import LearnMaskedPatches
from vitreous.training.metrics import check_tensorboard
from vitreous.training.objective import LearnClasses, Objective
from vitreous.training.optimizer import make_optimizers
from vitreous.training.precision import Arithmetic, choose_arithmetic
from vitreous.training.recomputed import recompute_blocks
from vitreous.training.runs import STATES
from vitreous.training.settings_file import plain
from vitreous.training.starting import start_from
from vitreous.training.states import has_states
from vitreous.training.throughput import peak_operations, training_operations


@dataclass(frozen=True)
class Run:
    """What a run works with.

    Attributes:
        config: of the run.
        out: its folder.
        ranks: which process this is, of how many.
        arithmetic: where and in what numbers it computes.
        images: what it learns from.
        plan: how images become batches.
        tested: what it is tested on; None where the task has no classes.
        objective: what it learns.
        model: the Vision Transformer.
        learner: what is trained: the model, or a module around it.
        spread_out: the learner as all processes train it.
        optimizers: over the learner's weights.
        average: of the weights, None for none.
        class_names: of the data.
        train_images: how many there are; None for a stream, which tells only at its end.
        steps: of the whole run.
        operations: for one image, forward and backward.
        peak: what the processor can do in a second, None if nobody knows.
        origin: where the weights come from, for the saved models.
        identity: what must not change between two parts of a run, and what may, for `check_same_run`.
        quiet: whether nothing is said.
    """

    config: TrainConfig
    out: Path
    ranks: Ranks
    arithmetic: Arithmetic
    images: TrainingImages | LabelledStream
    plan: BatchPlan
    tested: HeldOutImages | None
    objective: Objective
    model: VisionTransformer
    learner: nn.Module
    spread_out: nn.Module
    optimizers: list[torch.optim.Optimizer]
    average: RunningAverage | None
    class_names: tuple[str, ...]
    train_images: int | None
    steps: int
    operations: int
    peak: float | None
    origin: dict[str, Any]
    identity: dict[str, Any]
    quiet: bool

    @property
    def epochs(self) -> int | None:
        """How many begin; the last one may be cut short by `config.steps`. None where nobody knows."""
        if self.train_images is None:
            return None
        return -(-self.steps // steps_of_epoch(self.train_images, self.config.batch_size))

    def say(self, note: str) -> None:
        """One line on standard error, from one process, unless the run is quiet."""
        if self.ranks.is_main and not self.quiet:
            say(note)


def prepare(config: TrainConfig, out: Path, ranks: Ranks, *, progress: bool) -> Run:
    """Everything that a run works with; the data is opened before weights are drawn.

    Raises:
        InputError: if the data cannot be read, or has a single class.
        ConfigError: if the model's classes are not as many as the data's, or the machine has not what is asked for.
        CheckpointError: if the model to start from does not fit.
    """
    arithmetic = choose_arithmetic(config, ranks.local)
    if arithmetic.device.type == "cuda":
        torch.cuda.set_device(arithmetic.device)  # where dropout draws, and what is not told otherwise goes
    _check_together(config, ranks)
    learned, tested = open_parts(config)
    if tested is not None:
        _check_classes(config, learned, tested)
    plan = BatchPlan(
        config.preprocess,
        config.augmentation,
        len(learned.class_names),
        config.seed,
        config.batch_size,
        config.label_smoothing,
        config.accumulate,
        ranks.rank,
        ranks.world,
        config.workers,
        config.unreadable == "skip",
    )
    shows = progress and ranks.is_main
    images = learned if isinstance(learned, LabelledStream) else training_images(learned, plan, progress=shows)
    begins = not has_states(out / STATES)
    looked_at = None if tested is None else held_out_images(tested, config, ranks, progress=shows)
    _check_memory(config, arithmetic.device)
    model = VisionTransformer(config.model, generator=torch.Generator().manual_seed(keyed_seed(config.seed)))
    remark = ""
    if config.start is not None and begins:  # a state has all weights
        names = learned.class_names if tested is not None else ()
        remark = start_from(config.start, model, class_names=names, preprocess=config.preprocess)
    model = model.to(arithmetic.device)
    if config.recompute:
        recompute_blocks(model)
    objective = _objective(config)
    learner = objective.learner(model)
    spread_out = spread(learner, ranks, config.parallel, arithmetic.device)
    if arithmetic.compiles:
        learner.compile()
    train_images = None if isinstance(learned, LabelledStream) else len(learned)
    run = Run(
        config=config,
        out=out,
        ranks=ranks,
        arithmetic=arithmetic,
        images=images,
        plan=plan,
        tested=looked_at,
        objective=objective,
        model=model,
        learner=learner,
        spread_out=spread_out,
        optimizers=make_optimizers(learner, config.optimizer),
        average=RunningAverage(learner, config.ema) if config.ema else None,
        class_names=learned.class_names,
        train_images=train_images,
        steps=config.steps or config.epochs * steps_of_epoch(train_images or 0, config.batch_size),
        operations=training_operations(config.model),
        peak=peak_operations(arithmetic.device, arithmetic.dtype, config.threads),
        origin=_origin(config, arithmetic, learned, tested),
        identity=_identity(config, arithmetic, ranks, learned, tested),
        quiet=not progress,
    )
    run.say(str(arithmetic))
    if remark:
        run.say(remark)
    if begins and shows:
        _tell_duplicates(run, learned)
    return run


def save_model(run: Run, folder: Path, results: Mapping[str, Any]) -> None:
    """Writes the model with the weights that it has now; all processes must ask.

    Without its head where the task has no classes: what learned nothing should predict nothing.
    """
    tensors = whole_tensors(run.model.state_dict(), run.ranks)
    if run.ranks.is_main:
        has_head = run.tested is not None
        with torch.device("meta"):
            model = VisionTransformer(run.config.model if has_head else without_head(run.config.model))
        model.load_state_dict({name: tensors[name] for name in model.state_dict()}, assign=True)
        save(
            model,
            folder,
            preprocess=run.config.preprocess,
            class_names=run.class_names if has_head else (),
            provenance=run.origin | dict(results),
        )
    run.ranks.wait_for_main()


def _check_memory(config: TrainConfig, device: torch.device) -> None:
    """Nothing, if the machine has room for the weights, and on the CPU for their gradients and the optimizer's numbers.

    Raises:
        MemoryLimitError: if not, with both numbers.
    """
    with torch.device("meta"):
        count = sum(weight.numel() for weight in VisionTransformer(config.model).parameters())
    needed = count * 4
    if device.type == "cpu" and config.parallel == "ddp":  # all of it is here: the gradient, the average, the moments
        rounded = config.optimizer.momentum_precision == "bfloat16"
        moments = {"sgd": 2 if rounded else 4, "muon": 4}.get(config.optimizer.name, 8)
        needed += count * (4 + 4 * (config.ema > 0) + moments)
    there = memory_of_machine()
    if there is not None and needed > there:
        raise MemoryLimitError(
            f"the model has {count:,} weights; to train them here takes {needed / 2**30:,.1f} GiB, "
            f"this machine has {there / 2**30:,.1f} GiB\nlower model.width or model.depth"
        )


def open_parts(config: TrainConfig) -> tuple[LabelledImages | LabelledStream, LabelledImages | None]:
    """What the config says to learn from, and what to test on: nothing where the task has no classes.

    Raises:
        InputError: if it cannot be read.
        ConfigError: if it is a stream, and the config does not say how many steps to take.
    """
    learned: LabelledImages | LabelledStream
    if not config.data.startswith("hf-stream:"):
        learned = open_dataset(config.data, "train", allow_empty=config.allow_empty)
    elif config.steps is None:
        raise ConfigError(f"{shown(config.data)}: how many images a stream has is not known; set steps, not epochs")
    else:
        learned = open_stream(config.data, "train")
    has_classes = config.task == "classes"
    return learned, open_dataset(config.data, "test", allow_empty=config.allow_empty) if has_classes else None


def census(learned: LabelledImages | LabelledStream, tested: LabelledImages | None) -> dict[str, Any]:
    """What tells the data of a run from other data, by part: plain data, for `changed_parts`."""
    return {part.split: part.census for part in (learned, tested) if part is not None}


def without_head(config: ViTConfig) -> ViTConfig:
    """The same architecture, which returns its pooled features."""
    return replace(config, classes=0, hidden_head=False)


def _objective(config: TrainConfig) -> Objective:
    if config.task == "masked-patches":
        return LearnMaskedPatches(config.masked, config.model.patch_size, config.preprocess, config.seed)
    return LearnClasses(config.loss, config.label_smoothing)


def _check_together(config: TrainConfig, ranks: Ranks) -> None:
    if config.optimizer.name == "muon" and config.parallel == "fsdp" and ranks.world > 1:
        raise ConfigError("optimizer.name is muon, which needs whole matrices, but fsdp has shares; use parallel ddp")
    if config.keep.tensorboard:
        check_tensorboard()


def _check_classes(config: TrainConfig, learned: LabelledImages | LabelledStream, tested: LabelledImages) -> None:
    of_images = range(len(learned.class_names)) if isinstance(learned, LabelledStream) else set(learned.labels)
    if len(of_images) < 2:
        only = shown(learned.class_names[min(of_images)])
        raise InputError(
            f"{shown(config.data)}: all images to train with are of one class, {only}; "
            "there is nothing to tell apart: add another class, or set task to masked-patches"
        )
    check_same_classes(learned, tested)
    classes = len(learned.class_names)
    if classes != config.model.classes:
        raise ConfigError(
            f"model.classes is {config.model.classes}, but {config.data} has {classes} classes; "
            f"set model.classes to {classes}"
        )


def _tell_duplicates(run: Run, learned: LabelledImages | LabelledStream) -> None:
    """A line where images to test with are also learned from, if that can be told in a moment."""
    is_kept = isinstance(run.images, TrainingImages) and run.images.is_in_memory
    if run.tested is None or isinstance(learned, LabelledStream) or not is_kept:
        return
    tested = run.tested.images
    found = duplicates(learned, tested) if duplicates_are_quick(learned, tested) else ()
    if found:
        learned_name, tested_name = map(shown, found[0])
        run.say(
            f"test images that are learned from, too: {len(found):,} of {len(tested):,}, such as {tested_name}, "
            f"which is {learned_name}; take them out of one part"
        )


def _versions() -> dict[str, str]:
    return {
        "vitreous": vitreous.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
    }


def _origin(
    config: TrainConfig, arithmetic: Arithmetic, learned: LabelledImages | LabelledStream, tested: LabelledImages | None
) -> dict[str, Any]:
    """Where the weights come from; nothing in it changes from one run of the same config to the next."""
    counts = {} if isinstance(learned, LabelledStream) else {"train_images": len(learned)}
    counts |= {} if tested is None else {"test_images": len(tested)}
    return {
        "data": {"name": learned.name} | counts,
        "config": plain(config),
        "precision": arithmetic.precision,
        "versions": _versions(),
    }


def _identity(
    config: TrainConfig,
    arithmetic: Arithmetic,
    ranks: Ranks,
    learned: LabelledImages | LabelledStream,
    tested: LabelledImages | None,
) -> dict[str, Any]:
    return {
        "config": plain(config),
        "data": census(learned, tested),
        "class_names": list(learned.class_names),
        "versions": _versions(),
        "processor": arithmetic.processor,
        "precision": arithmetic.precision,
        "world": ranks.world,
    }
