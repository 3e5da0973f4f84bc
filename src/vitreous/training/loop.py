"""The training loop, top to bottom."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitreous.atomic import remove_unfinished, write_atomically
from vitreous.checkpoints.sources import open_model
from vitreous.checkpoints.words import MODEL
from vitreous.data.order import keyed_seed
from vitreous.data.sources.streams import BEGINNING, LabelledStream
from vitreous.data.training_batches import TrainingBatch, steps_of_epoch, training_batches
from vitreous.errors import CheckpointError, NumericError, OutputError
from vitreous.interrupts import Stop, stop_when_ready
from vitreous.memory import shortage_named
from vitreous.progress import progress_bar, say
from vitreous.training.changes import changed_parts, listed
from vitreous.training.config import TrainConfig
from vitreous.training.distributed import Ranks, process_group, whole
from vitreous.training.evaluate import Evaluation, evaluate
from vitreous.training.held_out import look
from vitreous.training.lock import LOCK, locked_run
from vitreous.training.metrics import Step, Sums, Tally, metrics_written, peak_memory, train_metrics
from vitreous.training.optimizer import learning_rate, set_learning_rate
from vitreous.training.places import RunPlace, gather_unread, resume, write_place
from vitreous.training.preparing import Run, census, open_parts, prepare, save_model
from vitreous.training.reproducible import reproducible
from vitreous.training.runs import BEST, EVALUATION, SKIPPED, STATES, check_run, checkpoint_folder, read_metrics
from vitreous.training.stretches import Stretch, stretches

STEPS_PER_LINE = 50
"""Of the optimizer, between two lines of metrics."""

STEPS_AHEAD = 10
"""That a GPU may be ahead of the loop before its numbers are looked at."""


@dataclass(frozen=True)
class TrainResult:
    """What a run left.

    Attributes:
        model: the folder that `vitreous.load`, timm and transformers open.
        evaluation: of the last weights, or of their average, on the test part; no other weights were chosen by it.
            None where the task has no classes.
        steps: of the optimizer.
        seconds: in all, from the call to the saved model; of a run that was interrupted, of all of its parts.
        was_there: whether the run was finished before, and nothing was trained.
    """

    model: Path
    evaluation: Evaluation | None
    steps: int
    seconds: float
    was_there: bool = False


def train(config: TrainConfig, out: str | Path, *, progress: bool = True) -> TrainResult:
    """Trains a model and leaves it in `out/model`.

    Also in `out`: `config.yaml`, all that fixes the run; `metrics.jsonl`, a line for each epoch and for every 50 steps;
    `evaluation.json`; and what `config.keep` asks for: models of single epochs in `checkpoints/`, `epoch-0000` with the
    first weights, and the best one in `best/`. Images that were left out are listed in `skipped.tsv`.

    The same config on the same kind of machine with the same library versions gives the same bits, also where the run
    was interrupted, in the middle of an epoch, and started again: it goes on from `states/`. What is finished is not
    trained again. The saved weights are those after the last step, never those that did best on the test part.

    Under torchrun the processes train one model together.

    Args:
        config: the run.
        out: a folder, made if there is none.
        progress: whether to draw a bar and to say what is done, on standard error.

    Raises:
        OutputError: if `out` cannot be written, or somebody else trains there; before any work.
        InputError: if the data cannot be read, or has a single class.
        ConfigError: if the model's classes are not as many as the data's, or the machine has not what is asked for.
        CheckpointError: if `out` holds a run of another config or other data, with the difference.
        MemoryLimitError: if there is not enough memory; weights that cannot fit are refused before they are drawn.
        NumericError: if the loss or a gradient becomes NaN or infinite, with the step and the files, all of them in
            `out/bad-batch.txt` where they are more than three; what was saved before stays.
        KeyboardInterrupt: if a signal asked to stop; the step was finished, and the run saved.
    """
    began = time.monotonic()
    out = Path(out)
    check_run(out, config)
    if not (out / MODEL).exists():
        with (
            reproducible(config.threads),
            process_group() as ranks,
            locked_run(out) if ranks.is_main else nullcontext(),
        ):
            if not ranks.any(ranks.is_main and (out / MODEL).exists()):  # else another trainer has just finished it
                with shortage_named("raise accumulate, set recompute, or lower batch_size, image_size or model.width"):
                    return _train(prepare(config, out, ranks, progress=progress), began)
        check_run(out, config)  # the other's config may be another one
    return _kept(config, out, progress)


@dataclass
class _Desk:
    """What the loop has beside it: who asks it to stop, where it reports to, when it began, last saved and counted."""

    stop: Stop
    write: Callable[[Mapping[str, Any]], None]
    advance: Callable[[int, str], None]
    began: float
    saved: float
    counted: float
    top1: float | None = None

    def save(self, run: Run, place: RunPlace) -> None:
        """Saves where the run is; what it took is counted from the first of its parts on."""
        write_place(run, place, time.monotonic() - self.began)
        self.saved = self.counted = time.monotonic()

    def settle(self, place: RunPlace, ranks: Ranks) -> None:
        """Counts the steps since the last count, and the time that they took."""
        before, self.counted = self.counted, time.monotonic()
        place.tally.settle(self.counted - before, ranks)


def _train(run: Run, began: float) -> TrainResult:
    """All epochs that are not done yet, and what a finished run leaves."""
    config, ranks, place = run.config, run.ranks, resume(run)
    with (
        stop_when_ready() as stop,
        metrics_written(run.out, shown=ranks.is_main, tensorboard=config.keep.tensorboard, step=place.step) as write,
        progress_bar("training", run.steps, shown=ranks.is_main and not run.quiet, done=place.step) as advance,
    ):
        desk = _Desk(stop, write, advance, began - place.seconds, time.monotonic(), time.monotonic())
        if place.step == 0 and config.keeps(0):
            save_model(run, checkpoint_folder(run.out, 0), {"epoch": 0})
        for epoch in count(place.epochs):
            _learn(run, place, epoch, desk)
            evaluation = _test(run, place, epoch, desk)
            if place.step == run.steps:
                break
    if ranks.is_main:
        _finish(run, place)
    ranks.wait_for_main()
    return TrainResult(run.out / MODEL, evaluation, run.steps, time.monotonic() - desk.began)


def _learn(run: Run, place: RunPlace, epoch: int, desk: _Desk) -> None:
    """The steps of an epoch that are not done yet."""
    run.spread_out.train()
    desk.counted = time.monotonic()
    ahead = stretches(run.images, run.config.seed, epoch, place.start, lambda: desk.stop.asked)
    while True:
        stretch = next(ahead, None)
        if isinstance(run.images, LabelledStream):
            run.ranks.wait()  # each reads its window in its own time, and who is asked to stop reads no further
        if run.ranks.any(desk.stop.asked):
            desk.save(run, place)
            raise _interrupt(run, place, desk)
        if stretch is None:
            return
        _learn_from(stretch, run, place, epoch, desk)
        place.start, place.began = stretch.following, place.step
        if place.step == run.steps:
            return


def _learn_from(stretch: Stretch, run: Run, place: RunPlace, epoch: int, desk: _Desk) -> None:
    """The steps of a data set or of a window that are not done yet."""
    config, tally = run.config, place.tally
    names = tally.image_names = stretch.images.images.image_names
    end = min(place.began + steps_of_epoch(len(names), config.batch_size), run.steps)
    with training_batches(
        stretch.images, run.plan, epoch=stretch.key, first_step=place.step - place.began, steps=end - place.began
    ) as batches:
        for parts in _in_groups(batches, config.accumulate):
            rate = learning_rate(place.step, run.steps, config.optimizer)
            tally.waiting.append(_step(run, place.step, epoch, parts, rate))
            place.unread |= {("train", names[index]): cause for part in parts for index, cause in part.unread}
            place.step += 1
            is_line = place.step % STEPS_PER_LINE == 0
            wants_state = time.monotonic() - desk.saved >= config.keep.state_seconds
            asked, due = run.ranks.total(float(desk.stop.asked), float(run.ranks.is_main and wants_state))
            ahead = STEPS_AHEAD if run.arithmetic.device.type == "cuda" else 1
            if asked or due or is_line or len(tally.waiting) >= ahead:
                desk.settle(place, run.ranks)
            if is_line and place.step < end:
                desk.write({"step": place.step, "learning_rate": rate} | _learned(run, tally.line, desk))
                tally.line = {}
            if asked or due:
                desk.save(run, place)
            if asked:
                raise _interrupt(run, place, desk)
            desk.advance(1, _note(run, epoch, tally, desk.top1))
    desk.settle(place, run.ranks)


def _step(run: Run, step: int, epoch: int, parts: Sequence[TrainingBatch], rate: float) -> Step:
    """One step of the optimizer: the gradient of all parts of a batch, and what follows from it."""
    set_learning_rate(run.optimizers, rate)
    _seed(run, epoch, step)
    for optimizer in run.optimizers:
        optimizer.zero_grad()
    losses, counts = [], []
    for number, part in enumerate(parts, start=1):
        with _exchanging(run.spread_out, number == len(parts)):
            with run.arithmetic.autocast():
                loss, counted = run.objective.loss(run.spread_out, _on(run.arithmetic.device, part))
            share = len(part.samples) * run.ranks.world / part.whole  # processes take the mean of their gradients
            torch.autograd.backward(loss * share)
        losses.append(loss.detach())
        counts.append(counted)
    limit = run.config.optimizer.clip or float("inf")
    length = whole(nn.utils.clip_grad_norm_(run.learner.parameters(), limit))
    for optimizer in run.optimizers:
        optimizer.step()
    if run.average is not None:
        run.average.update(run.learner, step + 1)
    return Step(step, tuple(part.samples for part in parts), tuple(losses), tuple(counts), length)


def _test(run: Run, place: RunPlace, epoch: int, desk: _Desk) -> Evaluation | None:
    """How the model, or the average of its weights, does after an epoch; it is kept where the config asks for it."""
    is_last = place.step == run.steps
    run.spread_out.eval()
    with nullcontext() if run.average is None else run.average.inside(run.learner):
        try:
            found = _look(run, desk, in_float32=is_last)
        except NumericError as error:
            what = "logits of the test part" if run.tested else "weights"
            raise NumericError(
                f"after step {place.step:,} the {what} are NaN or infinite\n"
                "lower optimizer.learning_rate or raise optimizer.warmup; what was saved before stays"
            ) from error
        if found is not None:
            evaluation, unread = found
            names = run.tested.images.image_names if run.tested else ()
            place.unread |= {("test", names[index]): cause for index, cause in unread.items()}
            gather_unread(run, place)
            _report(run, place, epoch, evaluation, desk)
    if found is None:  # asked to stop; now the weights are the model's own again
        desk.save(run, place)
        raise _interrupt(run, place, desk)
    if not is_last:
        desk.save(run, place)
    return evaluation


def _look(run: Run, desk: _Desk, *, in_float32: bool) -> tuple[Evaluation | None, dict[int, str]] | None:
    """What comes out on the test part, None if asked to stop; in float32 it is what `vitreous evaluate` finds, too.

    Raises:
        NumericError: if it is NaN or infinite, or, where there is nothing to test on, a weight is.
    """
    if run.tested is None:
        finite = [bool(whole(weight.isfinite().all())) for weight in run.learner.parameters()]
        if run.ranks.any(not all(finite)):
            raise NumericError("a weight is not finite")
        return None, {}
    with nullcontext() if in_float32 else run.arithmetic.autocast():
        return look(run.model, run.tested, run.arithmetic.device, run.ranks, lambda: desk.stop.asked)


def _report(run: Run, place: RunPlace, epoch: int, evaluation: Evaluation | None, desk: _Desk) -> None:
    """Writes an epoch's line of metrics and the models that are to be kept; the last one is the result."""
    keep, is_last = run.config.keep, place.step == run.steps
    results: dict[str, Any] = {"epoch": epoch + 1}
    if evaluation is not None:
        results |= {"test_top1": evaluation.top1, "test_loss_nats": evaluation.loss}
    rate = learning_rate(place.step - 1, run.steps, run.config.optimizer)
    metrics = {"epoch": epoch + 1, "step": place.step, "learning_rate": rate}
    metrics |= _learned(run, place.tally.epoch, desk) | results
    desk.write(metrics)
    desk.top1 = metrics.get("test_top1")
    desk.advance(0, _note(run, epoch, place.tally, desk.top1))
    place.tally.line, place.tally.epoch, place.tally.here = {}, {}, {}
    place.epochs, place.start = epoch + 1, BEGINNING
    if run.config.keeps(epoch + 1) or (is_last and keep.models_every):
        save_model(run, checkpoint_folder(run.out, epoch + 1), results)
    if keep.best and evaluation is not None and evaluation.top1 > place.best:
        place.best = evaluation.top1
        save_model(run, run.out / BEST, results)
    if is_last:
        took = {"steps": run.steps, "seconds": time.monotonic() - desk.began}
        if run.ranks.is_main:
            kept = took | {"data": run.identity["data"]}
            kept |= {} if evaluation is None else {"evaluation": evaluation.to_dict()}
            write_atomically(run.out / EVALUATION, json.dumps(kept, indent=1) + "\n")
        save_model(run, run.out / MODEL, results)  # whose place says that the run is finished


def _learned(run: Run, sums: Sums, desk: _Desk) -> dict[str, float]:
    metrics = train_metrics(sums, run.ranks, run.operations, run.peak)
    memory = peak_memory(run.arithmetic.device)
    metrics |= {} if memory is None else {"peak_memory_mib": memory}
    return metrics | {"elapsed_seconds": time.monotonic() - desk.began}


def _interrupt(run: Run, place: RunPlace, desk: _Desk) -> KeyboardInterrupt:
    (number,) = run.ranks.largest(float(desk.stop.signal or 0))  # a signal may have come to one process only
    desk.stop.signal = int(number)
    done = f"stopped after step {place.step:,} of {run.steps:,}, saved"
    return desk.stop.interrupt(f"{done}; the same command goes on from there")


def _note(run: Run, epoch: int, tally: Tally, top1: float | None) -> str:
    """Behind the bar, what matters most first: how it does, how fast it is, where it is."""
    told, sums, here = [] if top1 is None else [f"top-1 {top1:.1%}"], tally.epoch, tally.here
    if sums.get("images"):
        told = [f"loss {sums['loss'] / sums['images']:.3f}", *told]
    if here.get("images"):  # those of an epoch that goes on were all processes'
        speed = here["images"] * run.ranks.world / max(here["seconds"], 1e-9)
        told.append(f"{speed:,.0f} images/s")
        told += [] if run.peak is None else [f"MFU {speed * run.operations / run.peak / run.ranks.world:.0%}"]
    return ", ".join([*told, f"epoch {epoch + 1}" + (f"/{run.epochs}" if run.epochs else "")])


def _finish(run: Run, place: RunPlace) -> None:
    shutil.rmtree(run.out / STATES, ignore_errors=True)
    if place.unread:
        run.say(f"{len(place.unread):,} images could not be read and were left out; {run.out / SKIPPED} lists them")


def _kept(config: TrainConfig, out: Path, progress: bool) -> TrainResult:
    """What a finished run left, which is not trained again.

    Raises:
        CheckpointError: if the data is not what it was made of.
        InputError: if the data cannot be read.
    """
    learned, tested = open_parts(config)
    try:
        kept = json.loads((out / EVALUATION).read_text(encoding="utf-8"))
        found, before = kept.get("evaluation"), dict(kept.get("data", {}))  # earlier versions kept no `data`
        evaluation = None if found is None else Evaluation.from_dict(found)
        steps, seconds = int(kept["steps"]), float(kept["seconds"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # a run of an earlier version, or a changed file
        before = {}
        evaluation = None if tested is None else evaluate(open_model(out / MODEL), tested, progress=progress)
        lines = read_metrics(out)
        steps, seconds = (int(lines[-1]["step"]), float(lines[-1]["elapsed_seconds"])) if lines else (0, 0.0)
    if before and (found := changed_parts(before, census(learned, tested))):
        raise CheckpointError(
            f"{out} holds a finished run of this config on other data: {listed(found)}\n"
            "choose another folder, or delete this one to train on the data as it is now"
        )
    if (out / LOCK).exists() or (out / STATES).exists():  # it was killed in its last moment
        with suppress(OutputError), locked_run(out):  # or is in it, or nobody may write there
            remove_unfinished(out)
            shutil.rmtree(out / STATES, ignore_errors=True)
    if progress:
        say(f"{out} has the finished run of this config: nothing was trained again")
    return TrainResult(out / MODEL, evaluation, steps, seconds, was_there=True)


def _seed(run: Run, epoch: int, step: int) -> None:
    """Of dropout and drop path; each process draws for images of its own."""
    rank = (run.ranks.rank,) if run.ranks.rank else ()
    seed = keyed_seed(run.config.seed, epoch, step, *rank)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would do both, and take a millisecond
    if run.arithmetic.device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _in_groups(batches: Iterator[TrainingBatch], size: int) -> Iterator[list[TrainingBatch]]:
    """So many at a time: the parts of each step."""
    while parts := list(islice(batches, size)):
        yield parts


def _on(device: torch.device, batch: TrainingBatch) -> TrainingBatch:
    if device.type == "cpu":
        return batch
    images, targets = (tensor.pin_memory().to(device, non_blocking=True) for tensor in (batch.images, batch.targets))
    return replace(batch, images=images, targets=targets)


def _exchanging(learner: nn.Module, is_last: bool) -> AbstractContextManager[object]:
    """Inside, processes exchange gradients only with the last part of a step."""
    if is_last or not isinstance(learner, nn.parallel.DistributedDataParallel):
        return nullcontext()
    return learner.no_sync()
