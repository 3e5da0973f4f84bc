"""ablate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from vitreous.commands.words import File, print_json
from vitreous.training.ablation import AblationName

if TYPE_CHECKING:
    from vitreous.training.ablation import Ablation, Result


@dataclass(frozen=True)
class Ablate:
    """Train one small model in several ways and compare: the paper's ablations, at the size of CIFAR-10.

    positions: none, 1-D, 2-D or relative, at the stem or at every layer (table 8). pooling: the class token against the
    mean of the patches over learning rates (figure 9). patch-size: 4, 8 and 16 pixels (figure 8). Every run stands in a
    folder of its own; called again, finished runs are not made again, and an interrupted one goes on.
    """

    ablation: Annotated[Positional[AblationName], arg(metavar="{positions,pooling,patch-size}")]
    """What is changed from run to run."""
    data: str
    """A built-in data set, a folder or files with a training and a test part, or hf:NAME."""
    out: Path
    """Folder for all runs, the table, the numbers and the figure."""
    seeds: int = 3
    """Runs of each kind; their scatter makes the interval."""
    epochs: int | None = None
    """How often each run sees each image; 5, or what CONFIG says."""
    values: Annotated[tuple[float, ...], arg(metavar="NUMBER ...")] = ()
    """Learning rates of pooling in place of 3e-4 1e-3 3e-3, or pixels of patch-size in place of 4 8 16."""
    config: File = None
    """A YAML file with the settings that all runs share, in place of a small model's."""
    json: bool = False
    """Print one JSON object."""

    def run(self) -> None:
        """Makes the runs and prints the table."""
        from vitreous.data.datasets import open_dataset
        from vitreous.training.ablation import ablation, as_json, as_markdown, run_ablation, small_config
        from vitreous.training.settings_file import read_config

        classes = len(open_dataset(self.data, "train").class_names)
        base = small_config(self.data, classes)
        if self.config is not None:
            base = read_config(self.config)
            base = replace(base, data=self.data, model=replace(base.model, classes=classes))
        if self.epochs is not None:
            base = replace(base, epochs=self.epochs, steps=None)
        chosen = ablation(self.ablation, base, self.values)
        result = run_ablation(chosen, self.out, seeds=self.seeds)
        _draw(chosen, result, self.out)
        if self.json:
            print_json(as_json(chosen, result))
        else:
            print(as_markdown(chosen, result), end="")


def _draw(chosen: Ablation, result: Result, out: Path) -> None:
    """Writes the figure as PDF and PNG; where matplotlib is missing there is none."""
    try:
        from vitreous.figures.ablation import Mean, draw_ablation_by_name, draw_ablation_by_rate
        from vitreous.figures.files import write_each
    except ImportError:
        return
    marks = {cell: Mean(one.mean, one.half_width, one.values) for cell, one in result.items()}
    if chosen.name == "pooling":
        lines = {row: {at: one for (of, at), one in marks.items() if of == row} for row in chosen.rows}
        figure = draw_ablation_by_rate(lines, chosen.across)
    else:
        series = {column: {of: one for (of, at), one in marks.items() if at == column} for column in chosen.columns}
        figure = draw_ablation_by_name(series, chosen.down)
    write_each([(chosen.name, figure)], out)
