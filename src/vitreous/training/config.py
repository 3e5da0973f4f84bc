"""Everything that a training run is told: numbers and names only, so that it is read without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from vitreous.checking import check_choice, check_count, check_number
from vitreous.data.augmentation import Augmentation
from vitreous.data.preprocess import HALF_MEAN, HALF_STD, Preprocess
from vitreous.errors import ConfigError
from vitreous.model.config import ViTConfig

OptimizerName = Literal["adamw", "adam", "sgd", "muon"]
Schedule = Literal["cosine", "linear", "constant"]
Task = Literal["classes", "masked-patches"]
Loss = Literal["cross-entropy", "binary"]
PatchTarget = Literal["mean-colour", "small-patch", "pixels"]
Precision = Literal["auto", "float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda"]
Switch = Literal["auto", "on", "off"]
Parallel = Literal["ddp", "fsdp"]
Unreadable = Literal["stop", "skip"]


@dataclass(frozen=True)
class Optim:
    """How weights follow their gradients.

    Attributes:
        name: adamw takes weight decay off the weights, adam and sgd add it to the gradients. muon turns the momentum
            of each matrix in the blocks, and of each convolution in a ResNet's stages, into the nearest orthogonal
            one, its step as long as adamw's; all other weights follow adamw. Source: Jordan et al. 2024;
            arXiv 2502.16982, section 2.2.
        learning_rate: the highest, reached after the warm-up.
        weight_decay: of matrices and convolutions; biases, norms, tokens and positions have none.
        betas: how long adamw and adam remember the gradient and its square, each in [0, 1).
        momentum: how long sgd and muon remember the gradient, in [0, 1).
        momentum_precision: in which sgd keeps it; the paper's code rounds it to bfloat16.
        layer_decay: factor on the learning rate from each block to the one before it, 1 for none; the head has the
            whole rate, the patch embedding the smallest. Source: arXiv 2106.08254, as in BEiT.
        warmup: steps in which the learning rate grows from 0 in a straight line.
        schedule: how it falls afterwards: cosine and linear end at 0.
        clip: longest gradient, over all weights together; None for no limit.
    """

    name: OptimizerName = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9
    momentum_precision: Literal["float32", "bfloat16"] = "float32"
    layer_decay: float = 1.0
    warmup: int = 100
    schedule: Schedule = "cosine"
    clip: float | None = 1.0

    def __post_init__(self) -> None:
        check_choice("optimizer.name", self.name, get_args(OptimizerName))
        check_choice("optimizer.momentum_precision", self.momentum_precision, ("float32", "bfloat16"))
        check_choice("optimizer.schedule", self.schedule, get_args(Schedule))
        check_number("optimizer.learning_rate", self.learning_rate, above=0)
        check_number("optimizer.weight_decay", self.weight_decay, least=0)
        for name, value in (("betas", self.betas[0]), ("betas", self.betas[1]), ("momentum", self.momentum)):
            check_number(f"optimizer.{name}", value, least=0, below=1)
        if not 0 < self.layer_decay <= 1:
            raise ConfigError(f"optimizer.layer_decay is {self.layer_decay!r}; it is above 0 and at most 1")
        check_count("optimizer.warmup", self.warmup, least=0)
        if self.clip is not None:
            check_number("optimizer.clip", self.clip, above=0)


@dataclass(frozen=True)
class MaskedPatches:
    """What masked patch prediction hides and asks for. Source: appendix B.1.2.

    Attributes:
        share: of patch embeddings that are corrupted: 80 % of these become a learned token, 10 % another patch of the
            same image, 10 % stay.
        target: what is predicted of a corrupted patch: `mean-colour`, its mean in 3 bits a channel (512 classes);
            `small-patch`, its 4 x 4 means in 3 bits, 16 times 512 classes; `pixels`, all of them, by squared error.
    """

    share: float = 0.5
    target: PatchTarget = "mean-colour"

    def __post_init__(self) -> None:
        check_number("masked.share", self.share, above=0, below=1)
        check_choice("masked.target", self.target, get_args(PatchTarget))


@dataclass(frozen=True)
class Keeping:
    """What a run writes besides its result; nothing here changes a bit of it.

    Attributes:
        state_seconds: at most, between two states that an interrupted run goes on from; one is also written at the
            end of each epoch. 0 writes one at every step.
        states: how many of the latest are kept.
        models_every: epochs between models that are kept in `checkpoints/`, with the first weights and the last; 0
            keeps none.
        best: whether the model that did best on the test part is kept, too, in `best/`. Its accuracy is no honest
            estimate: it was chosen by it.
        tensorboard: whether the metrics are written for TensorBoard, too.
    """

    state_seconds: float = 60.0
    states: int = 2
    models_every: int = 0
    best: bool = False
    tensorboard: bool = False

    def __post_init__(self) -> None:
        check_number("keep.state_seconds", self.state_seconds, least=0)
        check_count("keep.states", self.states, least=1)
        check_count("keep.models_every", self.models_every, least=0)


@dataclass(frozen=True)
class TrainConfig:
    """One run; together with the library versions and the kind of processor it fixes every bit of the result.

    Attributes:
        data: what to learn: a built-in data set, a folder or files with a training and a test part, or `hf:NAME`;
            `hf-stream:NAME` is read in windows, never kept as a whole, and needs `steps`.
        start: a model to start from, in any known format; None for first weights. Positions are resampled to the
            model's image size; a head for another number of classes begins anew, at zero (section 3.1).
        model: the architecture.
        task: what is learned: the images' classes, or the colours of patches that were hidden (appendix B.1.2).
        masked: what is hidden, in the second task.
        preprocess: what happens to an image first; its size is the model's.
        optimizer: how weights follow their gradients.
        augmentation: how much an image may be changed in training.
        loss: of classes: cross-entropy over all, or a binary one for each (big_vision's sigmoid).
        label_smoothing: share of the target that is spread evenly over all classes, in [0, 1).
        epochs: how often each image is seen.
        steps: of the optimizer, in place of epochs; None for epochs.
        batch_size: images for each step, over all processes and accumulated parts together.
        accumulate: parts that a step's batch is cut into, to need less memory.
        ema: how much of the averaged weights is kept at each step, such as 0.9999; 0 for no average. The average is
            what is tested and saved.
        precision: bfloat16 computes layers in it and keeps weights in float32; auto takes it where the hardware has it.
        device: auto takes a GPU where there is one.
        compile: whether torch compiles the model; auto does on a GPU.
        recompute: whether activations are made again in the backward pass: less memory, about a third more time.
        parallel: under torchrun, whether each process holds the whole model (ddp) or a shard of it (fsdp).
        unreadable: what an image that cannot be decoded does: stops the run, or is left out and listed.
        allow_empty: whether a class's folder may be empty.
        seed: of the first weights, the order of the images and all that is drawn in training.
        threads: processor threads for the arithmetic; another number rounds differently.
        workers: processes that decode and change images; any number gives the same bits.
        keep: what is written besides the result.
    """

    data: str = "digits"
    start: str | None = None
    model: ViTConfig = field(default_factory=lambda: ViTConfig(classes=10))
    task: Task = "classes"
    masked: MaskedPatches = field(default_factory=MaskedPatches)
    preprocess: Preprocess = field(
        default_factory=lambda: Preprocess(
            resize="squash", crop_fraction=1.0, interpolation="bilinear", mean=HALF_MEAN, std=HALF_STD
        )
    )
    optimizer: Optim = field(default_factory=Optim)
    augmentation: Augmentation = field(default_factory=Augmentation)
    loss: Loss = "cross-entropy"
    label_smoothing: float = 0.0
    epochs: int = 20
    steps: int | None = None
    batch_size: int = 64
    accumulate: int = 1
    ema: float = 0.0
    precision: Precision = "auto"
    device: Device = "auto"
    compile: Switch = "auto"
    recompute: bool = False
    parallel: Parallel = "ddp"
    unreadable: Unreadable = "stop"
    allow_empty: bool = False
    seed: int = 0
    threads: int = 1
    workers: int = 0
    keep: Keeping = field(default_factory=Keeping)

    def __post_init__(self) -> None:
        if not self.data:
            raise ConfigError("data is empty; name a built-in data set, such as digits, or a folder")
        least = {"epochs": 1, "batch_size": 1, "accumulate": 1, "seed": 0, "threads": 1, "workers": 0}
        for name, lowest in least.items():
            check_count(name, getattr(self, name), least=lowest)
        if self.steps is not None:
            check_count("steps", self.steps, least=1)
        check_number("label_smoothing", self.label_smoothing, least=0, below=1)
        check_number("ema", self.ema, least=0, below=1)
        for name, allowed in _CHOICES.items():
            check_choice(name, getattr(self, name), get_args(allowed))
        if self.preprocess.image_size != self.model.image_size:
            raise ConfigError(
                f"preprocess.image_size is {self.preprocess.image_size}, "
                f"but model.image_size is {self.model.image_size}; make them equal"
            )
        if self.batch_size % self.accumulate:
            raise ConfigError(
                f"batch_size {self.batch_size} is not a multiple of accumulate {self.accumulate}; parts are of one size"
            )
        if self.model.channels != 3:
            raise ConfigError(f"model.channels is {self.model.channels}, but images have 3: red, green, blue")
        if self.task == "classes" and self.model.classes < 2:
            raise ConfigError(f"model.classes is {self.model.classes}; there is nothing to learn below 2")

    def keeps(self, epoch: int) -> bool:
        """Whether the model after so many epochs is kept, 0 for the first weights; the last is kept besides."""
        every = self.keep.models_every
        return every > 0 and epoch % every == 0


_CHOICES = {
    "task": Task, "loss": Loss, "precision": Precision, "device": Device, "compile": Switch, "parallel": Parallel,
    "unreadable": Unreadable,
}  # fmt: skip
