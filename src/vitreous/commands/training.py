"""train, evaluate, predict."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from vitreous.checking import check_choice
from vitreous.commands.words import File, Images, Model, check_figure, print_json
from vitreous.errors import ConfigError, InputError, OutputError
from vitreous.training.config import TrainConfig, Unreadable

_TOLD = 20
"""Images that could not be read and are named."""


@dataclass(frozen=True)
class Train:
    """Train a Vision Transformer; leaves the model, its settings and its metrics in one folder."""

    out: Path
    """Folder of the run: model/, config.yaml, metrics.jsonl."""
    config: Annotated[TrainConfig, arg(name="")] = field(default_factory=TrainConfig)
    preset: str = "digits"
    """Name of a recipe, or a YAML file with settings; the options below change single ones."""

    def run(self) -> None:
        """Trains and says how well the model does."""
        from vitreous.training.loop import train

        _check_preset(self.preset, self.config)
        result = train(self.config, self.out)
        if os.environ.get("RANK", "0") != "0":  # one of the processes that torchrun started speaks for all
            return
        evaluation = result.evaluation
        if evaluation is not None:
            right = round(evaluation.top1 * evaluation.images)
            print(f"{right:,} of {evaluation.images:,} test images right ({evaluation.top1:.1%})")
        print(f"{result.steps:,} step{'s' * (result.steps != 1)} in {result.seconds:.0f} s\nmodel:  {result.model}")
        if (curves := _draw_curves(self.out, again=not result.was_there)) is not None:
            print(f"curves: {curves}")


@dataclass(frozen=True)
class Evaluate:
    """Measure a model's accuracy on a labelled data set."""

    model: Model
    """cifar10-ti4, a file, a folder, timm:NAME, hf:NAME, torchvision:NAME or package.module:function."""
    data: Annotated[Positional[str], arg(metavar="DATA")]
    """A folder with a folder for each class, a parquet file, or digits."""
    batch_size: int = 64
    """Images in a forward pass."""
    unreadable: Unreadable = "stop"
    """What an image does that cannot be read: `skip` leaves it out and says so."""
    confusion: File = None
    """Draw which class was taken for which: a PNG, PDF or SVG file."""
    json: bool = False
    """Print one JSON object."""

    def run(self) -> None:
        """Evaluates and prints."""
        from vitreous.checkpoints.sources import open_model
        from vitreous.data.datasets import open_dataset
        from vitreous.data.images import shown
        from vitreous.training.evaluate import evaluate

        check_figure(self.confusion)
        data = open_dataset(self.data)
        unread: dict[str, str] | None = {} if self.unreadable == "skip" else None
        model = open_model(self.model)
        found = evaluate(model, data, batch_size=self.batch_size, unread=unread, progress=True)
        _tell_unread(unread or {})
        if self.confusion is not None:
            from vitreous.figures.confusion import draw_confusion
            from vitreous.figures.files import write_figure

            write_figure(draw_confusion(found.confusion, found.class_names), self.confusion)
        if self.json:
            print_json(found.to_dict())
            return
        print(f"top-1  {found.top1:7.2%}\ntop-5  {found.top5:7.2%}\nloss   {found.loss:7.3f} nats")
        print(f"over {found.images} images of {self.data}; by class:")
        for name, share in zip(found.class_names, found.per_class.tolist(), strict=True):
            print(f"  {share:7.2%}  {shown(name)}" if share == share else f"        -  {shown(name)}")


@dataclass(frozen=True)
class Predict:
    """Say what a model takes images for."""

    model: Model
    """cifar10-ti4, a file, a folder, timm:NAME, hf:NAME, torchvision:NAME or package.module:function."""
    images: Images
    """Image files and folders, a parquet file, or digits."""
    top: int = 5
    """Classes to list for each image."""
    json: bool = False
    """Print one JSON object for each image."""

    def run(self) -> None:
        """Predicts and prints."""
        from vitreous.checkpoints.sources import open_model
        from vitreous.data.gather import gather_pictures
        from vitreous.data.images import shown
        from vitreous.training.predict import predict

        pictures = gather_pictures(self.images)
        unread: dict[str, str] = {}
        for prediction in predict(open_model(self.model), pictures, top=self.top, unread=unread, progress=True):
            classes = [{"class": name, "probability": share} for name, share in prediction.classes]
            if self.json:
                print_json({"image": prediction.image, "predictions": classes})
            else:
                print(prediction.image)
                for name, share in prediction.classes:
                    print(f"  {share:7.2%}  {shown(name)}")
        if len(unread) == 1:
            raise InputError(next(iter(unread.values())))
        if unread:
            _tell_unread(unread)
            raise InputError(f"{len(unread):,} of {len(pictures):,} images cannot be read")


def _tell_unread(unread: dict[str, str]) -> None:
    """A line on standard error for each of the first images that could not be read."""
    from vitreous.data.images import shown
    from vitreous.progress import say

    for cause in list(unread.values())[:_TOLD]:
        say(f"left out: {shown(cause)}")
    if len(unread) > _TOLD:
        say(f"left out: {len(unread) - _TOLD:,} more")


def started_from(arguments: list[str]) -> TrainConfig:
    """The settings to start from: those of the recipe or file behind `--preset`, else of the first recipe.

    Raises:
        ConfigError: if there is none such, or a word behind another option is none that it takes.
    """
    from vitreous.training.recipes import PRESETS
    from vitreous.training.settings_file import choices, read_config

    allowed = choices()
    name = Train.preset
    for option, value in _options(arguments):
        if option == "preset":
            name = value
        elif option in allowed:
            check_choice(option, value, allowed[option])
    if name in PRESETS:
        return PRESETS[name]()
    if Path(name).suffix in (".yaml", ".yml"):
        return read_config(Path(name))
    close = difflib.get_close_matches(name, PRESETS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(PRESETS)}, or give a .yaml file"
    raise ConfigError(f"{name!r} is no preset; {hint}")


def _check_preset(name: str, config: TrainConfig) -> None:
    """Nothing, if what a recipe cannot know was given with it.

    Raises:
        ConfigError: if not.
    """
    from vitreous.training.recipes import PRESETS

    if name not in PRESETS or name == "digits":
        return
    if config.data == PRESETS[name]().data and not Path(config.data).exists():
        raise ConfigError(f"{name} learns from {config.data}, which is not here; give its folder or file with --data")
    if name == "finetune" and config.start is None:
        raise ConfigError("finetune begins with a trained model; give it with --start, such as --start timm:NAME")


def _options(arguments: list[str]) -> Iterator[tuple[str, str]]:
    """(name, value) of every option that has one word, spelled `--name value` or `--name=value`."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument.startswith("--"):
            name, equals, value = argument.removeprefix("--").partition("=")
            yield name.replace("-", "_"), value if equals else following


def _draw_curves(out: Path, *, again: bool) -> Path | None:
    """Draws a run's metrics beside them, if need be; where matplotlib is missing nothing is drawn."""
    from vitreous.atomic import remove_unfinished
    from vitreous.progress import say
    from vitreous.training.lock import locked_run
    from vitreous.training.runs import read_metrics

    try:
        from vitreous.figures.curves import draw_curves
        from vitreous.figures.files import write_figure
    except ImportError:
        return None
    path = out / "curves.png"
    if again or not path.exists():
        try:
            with locked_run(out):
                remove_unfinished(out)  # of one that was killed while it drew
                write_figure(draw_curves({out.name: read_metrics(out)}), path)
        except OutputError as error:  # the model is there: that was asked for
            say(f"no curves were drawn: {error}")
            return None
    return path
