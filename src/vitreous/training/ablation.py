"""The paper's ablations, at the size of CIFAR-10: the same small model with one choice changed, over several seeds.

    positions     how tokens learn where they stand, and where they are told so (appendix D.4, table 8)
    pooling       the class token against the mean of the patches, over learning rates (appendix D.3, figure 9)
    patch-size    how many pixels a token stands for (figure 8)

The paper measures models that saw ImageNet or JFT by few-shot accuracy; here it is the test accuracy of a model
trained from first weights on the data given. Every run is an ordinary one in a folder of its own, so that an
interrupted ablation goes on where it was, and each model can be looked into.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from vitreous.atomic import check_writable, write_atomically
from vitreous.data.augmentation import Augmentation
from vitreous.errors import ConfigError
from vitreous.model.config import Positions, PositionsAt, ViTConfig
from vitreous.progress import say
from vitreous.training.confidence import Estimate, estimate
from vitreous.training.config import Optim, TrainConfig

AblationName = Literal["positions", "pooling", "patch-size"]
RATES = (3e-4, 1e-3, 3e-3)
SIDES = (4, 8, 16)
TABLE = "table.md"
RESULTS = "results.json"
ONLY = "top-1"
"""The column of an ablation that has one."""

_POSITIONS: dict[str, Positions] = {"none": "none", "1-D": "learned", "2-D": "learned-2d", "relative": "relative"}
_PLACES: dict[str, PositionsAt] = {
    "at the stem": "stem",
    "at every layer": "layers",
    "at every layer, shared": "layers-shared",
}

Cells = Mapping[tuple[str, str], TrainConfig]
Result = Mapping[tuple[str, str], Estimate]


@dataclass(frozen=True)
class Ablation:
    """Runs as a table: each cell is one config, made with several seeds.

    Attributes:
        name: of the ablation.
        down: what the rows are.
        across: what the columns are; empty if there is only one.
        cells: by (row, column), rows in order; not every pair needs to be there.
    """

    name: AblationName
    down: str
    across: str
    cells: Cells

    @property
    def rows(self) -> tuple[str, ...]:
        """Each once, in order."""
        return tuple(dict.fromkeys(row for row, _ in self.cells))

    @property
    def columns(self) -> tuple[str, ...]:
        """Each once, in order."""
        return tuple(dict.fromkeys(column for _, column in self.cells))


def small_config(data: str, classes: int, *, epochs: int = 5) -> TrainConfig:
    """The run that ablations change: a ViT of 0.14 million parameters that sees 32 x 32 pixels in 64 patches.

    A step of 128 images is 8 * 10**9 operations.
    """
    model = ViTConfig(
        image_size=(32, 32), patch_size=(4, 4), classes=classes, width=64, depth=4, heads=4, mlp_ratio=2.0
    )
    preprocess = replace(TrainConfig().preprocess, image_size=(32, 32))
    return TrainConfig(
        data=data,
        model=model,
        preprocess=preprocess,
        optimizer=Optim(learning_rate=1e-3, weight_decay=0.05, warmup=100),
        augmentation=Augmentation(shift=2.0),
        epochs=epochs,
        batch_size=128,
        threads=1,  # the same bits on machines with more cores, where several ablations can run at once
    )


def ablation(name: AblationName, base: TrainConfig, values: Sequence[float] = ()) -> Ablation:
    """The runs of an ablation of that name.

    Args:
        name: see the head of this file.
        base: what all runs share.
        values: learning rates of `pooling`, or sides of `patch-size` in pixels; those usual here if there are none.

    Raises:
        ConfigError: if there is no such ablation, or the base cannot be changed so.
    """
    if name == "positions":
        if values:
            raise ConfigError("positions are compared as in table 8; they take no values")
        return positions_ablation(base)
    if name == "pooling":
        return pooling_ablation(base, values or RATES)
    if name == "patch-size":
        if odd := [side for side in values if not math.isfinite(side) or side != int(side)]:
            raise ConfigError(f"a patch of {odd[0]:g} pixels cannot be; give whole numbers")
        return patch_size_ablation(base, [int(side) for side in values or SIDES])
    raise ConfigError(f"{name!r} is no ablation; choose {', '.join(get_args(AblationName))}")


def positions_ablation(base: TrainConfig) -> Ablation:
    """Table 8: no positions, 1-D, 2-D, relative; learned ones at the stem, at every layer, or there shared."""
    cells = {}
    for row, positions in _POSITIONS.items():
        for column, place in _PLACES.items():
            if place == "stem" or positions in ("learned", "learned-2d"):
                cells[row, column] = _with_model(base, positions=positions, positions_at=place)
    return Ablation("positions", "positions", "place", cells)


def pooling_ablation(base: TrainConfig, rates: Sequence[float] = RATES) -> Ablation:
    """Figure 9: the class token against the mean of the patches, each with every learning rate.

    The last LayerNorm comes before the pooling in both, so that only what the head reads differs.
    """
    models: dict[str, dict[str, Any]] = {
        "class token": {"class_token": True, "pooling": "class", "norm_after_pooling": False},
        "average pooling": {"class_token": False, "pooling": "mean", "norm_after_pooling": False},
    }
    cells = {}
    for row, changes in models.items():
        for rate in rates:
            config = _with_model(base, **changes)
            cells[row, f"{rate}"] = replace(config, optimizer=replace(base.optimizer, learning_rate=rate))
    return Ablation("pooling", "head", "learning rate", cells)


def patch_size_ablation(base: TrainConfig, sides: Sequence[int] = SIDES) -> Ablation:
    """Figure 8, in part: smaller patches are more tokens; the blocks' parameters stay as many."""
    cells = {}
    for side in sides:
        config = _with_model(base, patch_size=(side, side))
        patches = f"{config.model.rows} x {config.model.columns}"
        cells[f"{side} x {side} pixels, {patches} patches", ONLY] = config
    return Ablation("patch-size", "patch", "", cells)


def run_ablation(
    chosen: Ablation,
    out: str | Path,
    *,
    seeds: int = 3,
    progress: bool = True,
    train: Callable[..., Any] | None = None,
) -> dict[tuple[str, str], Estimate]:
    """Makes all runs that are not made yet, one after the other, and leaves table and numbers in `out`.

    A run stands in `out/ROW_COLUMN_seed-N`. Called again after an interruption, finished runs are not made again, and
    the one that was interrupted goes on, as with `vitreous train`; with more seeds, only new ones are made.

    Args:
        chosen: what to run.
        out: a folder, made if there is none.
        seeds: runs of each cell, with seeds 0, 1, 2 and so on.
        progress: whether to say on standard error which run of how many it is, and to draw its bar.
        train: what makes a run; None for `vitreous.training.loop.train`.

    Returns:
        For each (row, column) the top-1 accuracies on the test part, in [0, 1], with mean and 95 % t-interval.

    Raises:
        ConfigError: if `seeds` is below 1.
        OutputError: if `out` cannot be written.
        CheckpointError: if it holds a run of another config, or of other data, under the same name.
        InputError, NumericError: as `train` does.
    """
    from vitreous.training.runs import check_run  # numpy, which the command line does not wait for

    if seeds < 1:
        raise ConfigError(f"seeds is {seeds}; it must be at least 1")
    out = Path(out)
    check_writable(out / TABLE)
    make = _train if train is None else train
    runs = [(cell, seed) for seed in range(seeds) for cell in chosen.cells]  # a first table after the first seed
    folders = {(cell, seed): out / f"{_as_name(*cell)}_seed-{seed}" for cell, seed in runs}
    for (cell, seed), folder in folders.items():
        check_run(folder, replace(chosen.cells[cell], seed=seed))  # a folder of something else is seen before any work
    found: dict[tuple[str, str], list[float]] = {cell: [] for cell in chosen.cells}
    for number, (cell, seed) in enumerate(runs, start=1):
        if progress:
            what = ", ".join(word for word in cell if word != ONLY)
            say(f"run {number} of {len(runs)}: {what}, seed {seed}")
        made = make(replace(chosen.cells[cell], seed=seed), folders[cell, seed], progress=progress)
        found[cell].append(made.evaluation.top1)
    result = {cell: estimate(values) for cell, values in found.items()}
    write_atomically(out / TABLE, as_markdown(chosen, result))
    write_atomically(out / RESULTS, json.dumps(as_json(chosen, result), indent=2) + "\n")
    return result


def as_markdown(chosen: Ablation, result: Result) -> str:
    """The table for people: top-1 in %, mean and half of the interval; a dash where a cell cannot be."""
    corner = f"{chosen.down}, by {chosen.across}" if chosen.across else chosen.down
    lines = [f"| {' | '.join([corner, *chosen.columns])} |", f"| {' | '.join(['---'] * (1 + len(chosen.columns)))} |"]
    for row in chosen.rows:
        cells = [_words(result.get((row, column))) for column in chosen.columns]
        lines.append(f"| {' | '.join([row, *cells])} |")
    seeds = len(next(iter(result.values())).values)
    config = next(iter(chosen.cells.values()))
    scatter = f"mean and 95 % t-interval over {seeds} seeds" if seeds > 1 else "one seed, and so without an interval"
    many, what = (config.epochs, "epoch") if config.steps is None else (config.steps, "step")
    length = f"{many} {what}{'' if many == 1 else 's'}"
    return "\n".join([*lines, "", f"Top-1 on the test part of {config.data} in %, {scatter}; {length} each.", ""])


def as_json(chosen: Ablation, result: Result) -> dict[str, Any]:
    """Plain data: shares from 0 to 1, one a seed; `half_width` is None for a single seed."""
    return {
        "ablation": chosen.name,
        "data": next(iter(chosen.cells.values())).data,
        "cells": [
            {
                chosen.down: row,
                **({chosen.across: column} if chosen.across else {}),
                "top1": list(one.values),
                "mean": one.mean,
                "half_width": one.half_width,
            }
            for (row, column), one in result.items()
        ],
    }


def _train(config: TrainConfig, folder: Path, *, progress: bool) -> Any:
    from vitreous.training.loop import train  # torch, which the command line does not wait for

    return train(config, folder, progress=progress)


def _with_model(base: TrainConfig, **changes: Any) -> TrainConfig:
    return replace(base, model=replace(base.model, **changes))


def _as_name(*words: str) -> str:
    """A folder's name: letters, numbers and points, one hyphen for all else."""
    named = (re.sub(r"[^a-z0-9.]+", "-", word.lower()).strip("-") for word in words if word != ONLY)
    return "_".join(named)


def _words(one: Estimate | None) -> str:
    if one is None:
        return "-"
    return f"{100 * one.mean:.1f}" + ("" if one.half_width is None else f" ± {100 * one.half_width:.1f}")
