"""Everything that a training run is told: numbers and names only, so that it is read without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from vitreous.data.preprocess import HALF_MEAN, HALF_STD, Preprocess
from vitreous.errors import ConfigError
from vitreous.model.config import ViTConfig

OptimizerName = Literal["adamw", "adam", "sgd"]
Schedule = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True)
class Optim:
    """How weights follow their gradients.

    Attributes:
        name: adamw takes weight decay off the weights, adam and sgd add it to the gradients.
        learning_rate: the highest, reached after the warm-up.
        weight_decay: of matrices and convolutions; biases, norms, tokens and positions have none.
        betas: how long adamw and adam remember the gradient and its square, each in [0, 1).
        momentum: how long sgd remembers the gradient, in [0, 1).
        warmup: steps in which the learning rate grows from 0 in a straight line.
        schedule: how it falls afterwards: cosine and linear end at 0.
        clip: longest gradient, over all weights together; None for no limit.
    """

    name: OptimizerName = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9
    warmup: int = 100
    schedule: Schedule = "cosine"
    clip: float | None = 1.0

    def __post_init__(self) -> None:
        _check_choice("optimizer.name", self.name, get_args(OptimizerName))
        _check_choice("optimizer.schedule", self.schedule, get_args(Schedule))
        _check_number("optimizer.learning_rate", self.learning_rate, above=0)
        _check_number("optimizer.weight_decay", self.weight_decay, least=0)
        for name, value in (("betas", self.betas[0]), ("betas", self.betas[1]), ("momentum", self.momentum)):
            _check_number(f"optimizer.{name}", value, least=0, below=1)
        _check_count("optimizer.warmup", self.warmup, least=0)
        if self.clip is not None:
            _check_number("optimizer.clip", self.clip, above=0)


@dataclass(frozen=True)
class Augmentation:
    """How much an image may be changed in training; 0 and False change nothing.

    Attributes:
        shift: pixels, at most, in each direction.
        rotation: degrees, at most, either way.
        scale: share, at most, by which an image grows or shrinks, in [0, 1).
        flip: whether half of the images are mirrored left to right.
    """

    shift: float = 0.0
    rotation: float = 0.0
    scale: float = 0.0
    flip: bool = False

    def __post_init__(self) -> None:
        _check_number("augmentation.shift", self.shift, least=0)
        _check_number("augmentation.rotation", self.rotation, least=0)
        _check_number("augmentation.scale", self.scale, least=0, below=1)


@dataclass(frozen=True)
class TrainConfig:
    """One run; together with the library versions and the kind of processor it fixes every bit of the result.

    Attributes:
        data: what to learn: a built-in data set, or a folder with a training and a test part.
        model: the architecture.
        preprocess: what happens to an image first; its size is the model's.
        optimizer: how weights follow their gradients.
        augmentation: how much an image may be changed in training.
        epochs: how often each image is seen.
        batch_size: images for each step.
        label_smoothing: share of the target that is spread evenly over all classes, in [0, 1).
        seed: of the first weights, the order of the images and all that is drawn in training.
        threads: processor threads for the arithmetic; another number rounds differently.
        workers: threads that decode images; any number gives the same bits.
        keep_every: epochs between models that are kept in `checkpoints/`, with the first weights and the last; 0 keeps
            none. It changes no bit of the result.
    """

    data: str = "digits"
    model: ViTConfig = field(default_factory=lambda: ViTConfig(classes=10))
    preprocess: Preprocess = field(
        default_factory=lambda: Preprocess(
            resize="squash", crop_fraction=1.0, interpolation="bilinear", mean=HALF_MEAN, std=HALF_STD
        )
    )
    optimizer: Optim = field(default_factory=Optim)
    augmentation: Augmentation = field(default_factory=Augmentation)
    epochs: int = 20
    batch_size: int = 64
    label_smoothing: float = 0.0
    seed: int = 0
    threads: int = 1
    workers: int = 2
    keep_every: int = 0

    def __post_init__(self) -> None:
        if not self.data:
            raise ConfigError("data is empty; name a built-in data set, such as digits, or a folder")
        least = {"epochs": 1, "batch_size": 1, "seed": 0, "threads": 1, "workers": 1, "keep_every": 0}
        for name, lowest in least.items():
            _check_count(name, getattr(self, name), least=lowest)
        _check_number("label_smoothing", self.label_smoothing, least=0, below=1)
        if self.preprocess.image_size != self.model.image_size:
            raise ConfigError(
                f"preprocess.image_size is {self.preprocess.image_size}, "
                f"but model.image_size is {self.model.image_size}; make them equal"
            )
        if self.model.channels != 3:
            raise ConfigError(f"model.channels is {self.model.channels}, but images have 3: red, green, blue")
        if self.model.classes < 2:
            raise ConfigError(f"model.classes is {self.model.classes}; there is nothing to learn below 2")

    def keeps(self, epoch: int) -> bool:
        """Whether the weights after so many epochs are kept; 0 are the first weights."""
        return self.keep_every > 0 and (epoch % self.keep_every == 0 or epoch == self.epochs)


def _check_number(
    name: str, value: float, *, least: float = -math.inf, above: float = -math.inf, below: float = math.inf
) -> None:
    if least <= value < below and value > above:  # false for NaN
        return
    lower = f"above {above:g}" if above > -math.inf else f"at least {least:g}"
    upper = f" and below {below:g}" if below < math.inf else " and finite"
    raise ConfigError(f"{name} is {value!r}; it must be {lower}{upper}")


def _check_count(name: str, value: int, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number, at least {least}")


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}; choose one of {', '.join(allowed)}")
