"""Where a run is: saved, and found again."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

from vitreous.atomic import write_atomically
from vitreous.data.images import shown
from vitreous.data.sources.streams import BEGINNING, StreamPlace
from vitreous.errors import InputError
from vitreous.training.changes import redraws
from vitreous.training.distributed import Ranks, put_tensors, training_tensors, whole_tensors
from vitreous.training.metrics import Sums, Tally
from vitreous.training.preparing import Run
from vitreous.training.runs import SKIPPED, STATES, check_room, go_on, start_run
from vitreous.training.states import bytes_of_states, check_same_run, newest_state, write_state

MOST_SKIPPED = 0.1
"""Share of a data set: where more cannot be read, something else is wrong than a file."""


@dataclass
class RunPlace:
    """Where a run is.

    Attributes:
        tally: numbers since the last line of metrics, and since the epoch began.
        step: how many steps are done.
        epochs: how many epochs are done and tested.
        best: highest accuracy on the test part so far.
        start: what of the epoch is done: where in it the present stretch begins.
        began: how many steps were done before that stretch.
        seconds: that the run had taken when it was last interrupted.
        unread: images that were left out, as (part, name), and why.
    """

    tally: Tally
    step: int = 0
    epochs: int = 0
    best: float = -1.0
    start: StreamPlace = BEGINNING
    began: int = 0
    seconds: float = 0.0
    unread: dict[tuple[str, str], str] = field(default_factory=dict)


def resume(run: Run) -> RunPlace:
    """Puts back the newest state of the run's folder, if there is one, and says where the run is.

    Raises:
        CheckpointError: if the state is of another run, or all states are damaged.
        OutputError: if the folder cannot be written, or has not enough room.
    """
    tally = Tally(run.out)
    place = RunPlace(tally)
    state = newest_state(run.out / STATES)
    run.ranks.wait()  # nobody changes the folder before all have read it
    if run.ranks.is_main:
        check_room(run.out, _needed(run) - bytes_of_states(run.out / STATES))  # which make room for the next ones
    if state is None:
        if run.ranks.is_main:
            start_run(run.out, run.config)
        return place
    remarks = check_same_run(state.meta["run"], run.identity)
    put_tensors(state.tensors, run.learner, run.optimizers)
    if run.average is not None:
        run.average.put(state.tensors)
    at = state.meta["at"]
    place.step, place.epochs, place.best, place.seconds = state.step, at["epochs"], at["best"], at["seconds"]
    place.start, place.began = StreamPlace(*at["start"]), at["began"]
    place.unread = {(part, name): cause for part, name, cause in at["unread"]}
    own = 1.0 if run.ranks.is_main else 0.0  # one process now has the sums of all processes of then
    tally.line, tally.epoch = ({name: own * value for name, value in at[sums].items()} for sums in ("line", "epoch"))
    if run.ranks.is_main:
        go_on(run.out, run.config, state.step)
    for remark in state.remarks:
        run.say(remark)
    run.say(f"goes on after step {state.step:,} of {run.steps:,}")
    if remarks:
        run.say(f"not to the same bits, because of a change: {', '.join(remarks)}")
        if max(run.config.model.dropout, run.config.model.drop_path) and redraws(remarks):
            run.say("beyond rounding: from here on dropout and drop path draw other numbers than they would have")
    return place


def write_place(run: Run, place: RunPlace, seconds: float) -> None:
    """Saves where the run is, to go on from; all processes must ask.

    Args:
        run: the run.
        place: with nothing in its tally that was not looked at.
        seconds: that the run took, over all of its parts.
    """
    tensors = training_tensors(run.learner, run.optimizers)
    if run.average is not None:
        tensors |= run.average.tensors()
    found = whole_tensors(tensors, run.ranks)
    gather_unread(run, place)
    line, epoch = (_summed(sums, run.ranks) for sums in (place.tally.line, place.tally.epoch))
    if run.ranks.is_main:
        at = {
            "epochs": place.epochs,
            "best": place.best,
            "start": place.start,
            "began": place.began,
            "seconds": seconds,
            "line": line,
            "epoch": epoch,
            "unread": [[part, name, cause] for (part, name), cause in sorted(place.unread.items())],
        }
        meta = {"run": run.identity, "at": at}
        write_state(run.out / STATES, place.step, found, meta, keep=run.config.keep.states)
    run.ranks.wait_for_main()


def gather_unread(run: Run, place: RunPlace) -> None:
    """Lists the images that were left out, those of all processes, in `skipped.tsv`.

    Raises:
        InputError: if they are more than a tenth of the data set.
    """
    lines = [json.dumps([*key, cause]) for key, cause in place.unread.items()]
    rows = [json.loads(line) for line in run.ranks.gather_texts(lines)]
    place.unread = {(part, name): cause for part, name, cause in rows}
    if not place.unread:
        return
    listed = [f"{part}\t{shown(name)}\t{shown(cause)}\n" for (part, name), cause in sorted(place.unread.items())]
    if run.ranks.is_main:
        write_atomically(run.out / SKIPPED, "".join(["part\timage\tcause\n", *listed]))
    learned = place.step * run.config.batch_size if run.train_images is None else run.train_images
    total = learned + (len(run.tested.images) if run.tested else 0)
    if len(listed) > max(1.0, MOST_SKIPPED * total):
        raise InputError(
            f"{len(listed):,} of {total:,} images could not be read, more than one in ten\n"
            f"the reasons are in {run.out / SKIPPED}; look there first"
        )


def _summed(sums: Sums, ranks: Ranks) -> Sums:
    """Over all processes; the length of the gradient, the steps and the seconds are the same in all."""
    names = sorted(sums)
    totals = dict(zip(names, ranks.total(*(sums[name] for name in names)), strict=True))
    return totals | {name: sums[name] for name in ("length", "steps", "seconds") if name in sums}


def _needed(run: Run) -> int:
    """Bytes that the run writes at most at a time: its states, one more while it is written, and the model."""
    weights = sum(math.prod(weight.shape) for weight in run.learner.parameters()) * 4
    copies = 1 + 2 + (run.average is not None)  # weights, what optimizers remember of each, the average
    return weights * (copies * (run.config.keep.states + 1) + 2)
