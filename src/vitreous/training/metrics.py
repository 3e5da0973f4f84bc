"""What a run says of itself while it learns: numbers gathered over steps, checked, and written."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vitreous.atomic import write_atomically
from vitreous.data.images import shown
from vitreous.errors import ConfigError, NumericError, OutputError
from vitreous.training.distributed import Ranks
from vitreous.training.runs import BAD_BATCH, append_metrics, read_metrics

resource: ModuleType | None
try:
    import resource
except ImportError:  # Windows
    resource = None

Sums = dict[str, float]
"""Numbers summed over images or steps: `images`, `steps`, `seconds`, `loss` and `length`, and what a task counts."""

NAMED = 3  # files of a bad batch that a message has room for


@dataclass(frozen=True)
class Step:
    """What came out of one step in this process; tensors are scalars, on whichever device.

    Attributes:
        step: of the optimizer, from 0.
        samples: of each part, (images,) int64; indices into the data set.
        losses: of each part, the mean over its images.
        counts: of each part, what the task counted.
        length: of the gradient of all weights, over all parts and processes, before it was clipped.
    """

    step: int
    samples: tuple[Tensor, ...]
    losses: tuple[Tensor, ...]
    counts: tuple[dict[str, Tensor], ...]
    length: Tensor


@dataclass
class Tally:
    """Steps that were not looked at yet, and the sums of those that were.

    A GPU works ahead of the loop until a number is looked at; so it is looked at a few steps at a time.

    Attributes:
        out: the run's folder, for the names of a bad batch.
        image_names: of what the waiting steps learned from, for messages.
        line: sums since the last line of metrics.
        epoch: sums since the epoch began.
        here: the same without what was done before the run was interrupted: what this process itself learned from, and
            how long that took it.
    """

    out: Path
    image_names: Sequence[str] = ()
    line: Sums = field(default_factory=dict)
    epoch: Sums = field(default_factory=dict)
    here: Sums = field(default_factory=dict)
    waiting: list[Step] = field(default_factory=list)

    def settle(self, seconds: float, ranks: Ranks) -> None:
        """Adds the waiting steps, which took so long, to the sums; all processes must ask.

        Raises:
            NumericError: if a loss or a gradient's length is NaN or infinite; with the first step and its files, which
                `bad-batch.txt` lists where they are many.
        """
        for step in self.waiting:
            self._check(step, ranks)
            images = [len(samples) for samples in step.samples]
            sums = {"images": float(sum(images)), "steps": 1.0, "length": step.length.item()}
            sums["loss"] = sum(loss.item() * count for loss, count in zip(step.losses, images, strict=True))
            for counted in step.counts:
                for name, value in counted.items():
                    sums[name] = sums.get(name, 0.0) + value.item()
            self._add(sums)
        self._add({"seconds": seconds})
        self.waiting = []

    def _add(self, sums: Sums) -> None:
        for total in (self.line, self.epoch, self.here):
            for name, value in sums.items():
                total[name] = total.get(name, 0.0) + value

    def _check(self, step: Step, ranks: Ranks) -> None:
        parts = zip(step.losses, step.samples, strict=True)
        bad = [("loss", loss, samples) for loss, samples in parts if not loss.isfinite()][:1]
        if not step.length.isfinite():  # the same in all processes, which look for a bad loss among them first
            bad = bad if ranks.any(bool(bad)) else [("gradient's length", step.length, torch.cat(step.samples))]
        elif bad:
            ranks = Ranks()  # of a bad loss with a good gradient the others know nothing
        else:
            return
        found = ranks.gather_texts([f"the {what} is {value.item()}" for what, value, _ in bad])[0]
        samples = [sample for *_, of_part in bad for sample in of_part.tolist()]
        names = ranks.gather_texts([shown(self.image_names[sample]) for sample in samples])
        more = f" and {len(names) - NAMED} more, all in {self.out / BAD_BATCH}" if len(names) > NAMED else ""
        if more and ranks.is_main:
            with suppress(OutputError):  # a full disk is not what the run ends of
                write_atomically(self.out / BAD_BATCH, "".join(f"{name}\n" for name in names))
        raise NumericError(
            f"{found} at step {step.step + 1}, in the batch of {', '.join(names[:NAMED])}{more}\n"
            "states and models from before it are kept; lower optimizer.learning_rate, raise optimizer.warmup, or set\n"
            "optimizer.clip, and train into another folder"
        )


def train_metrics(sums: Sums, ranks: Ranks, operations: int, peak: float | None) -> dict[str, float]:
    """What sums say, over all processes, which all must ask.

    Args:
        sums: of steps; of this process.
        ranks: which process this is.
        operations: for one image, as `training_operations` counts them.
        peak: what one processor can do in a second, None if nobody knows.

    Returns:
        The mean loss, and means of what the task counts, over images; the mean length of the gradient over steps;
        images a second; and the share of the processors' best, `mfu`, where that is known. Source: model FLOPs
        utilisation, arXiv 2204.02311, appendix B.
    """
    counted = sorted(set(sums) - {"images", "steps", "seconds", "loss", "length"})
    images, loss, *counts = ranks.total(sums["images"], sums["loss"], *(sums[name] for name in counted))
    speed = images / max(sums["seconds"], 1e-9)
    found = {"train_loss_nats": loss / max(images, 1)}
    found |= {f"train_{name}": count / max(images, 1) for name, count in zip(counted, counts, strict=True)}
    found |= {"gradient_length": sums["length"] / max(sums["steps"], 1), "train_images_per_second": speed}
    return found | ({} if peak is None else {"mfu": speed * operations / (peak * ranks.world)})


def peak_memory(device: torch.device) -> float | None:
    """MiB that the run took at most: of the GPU where it computes on one, else of the process; None if nobody tells."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if resource is None:
        return None
    unit = 1 if sys.platform == "darwin" else 2**10  # bytes there, KiB on Linux
    peak: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * unit / 2**20


@contextmanager
def metrics_written(
    out: Path, *, shown: bool, tensorboard: bool, step: int
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Inside, a function that writes one line of metrics, and the same numbers for TensorBoard where asked for.

    A line that is in the file is not written again: a run may have been killed just behind it.

    Args:
        out: the run's folder.
        shown: False writes nothing, as all processes but one do.
        tensorboard: whether to write into `out/tensorboard`, too.
        step: after which the run goes on; what TensorBoard has of later ones is not shown any more.
    """
    there = {_place(line) for line in read_metrics(out)} if shown else set()
    writer = _tensorboard(out / "tensorboard", step) if tensorboard and shown else None

    def write(metrics: Mapping[str, Any]) -> None:
        if shown and _place(metrics) not in there:
            append_metrics(out, metrics)
        if writer is not None:
            for name, value in metrics.items():
                if name != "step":
                    writer.add_scalar(name, value, metrics["step"])

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()


def check_tensorboard() -> None:
    """Nothing, if TensorBoard can be written.

    Raises:
        ConfigError: if it is not installed.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise ConfigError(
            "keep.tensorboard is set, but tensorboard is not installed; pip install 'vitreous[tensorboard]'"
        ) from None


def _tensorboard(folder: Path, step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)


def _place(metrics: Mapping[str, Any]) -> tuple[Any, Any]:
    return metrics.get("step"), metrics.get("epoch")
