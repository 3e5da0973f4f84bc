"""The command line: each command parses, calls one public function, prints.

Results go to standard output, progress to standard error. Exit codes: 0 done, 2 usage or configuration, 3 bad input
file, 4 cannot write, 5 incompatible checkpoint or model, 6 numbers became NaN, 130 interrupted. torch is imported when
a command runs, not before: `vitreous --help` is quick.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union

import tyro
from tyro.conf import Positional, arg, subcommand

from vitreous import __version__
from vitreous.errors import ConfigError, VitreousError
from vitreous.training.config import TrainConfig

if TYPE_CHECKING:
    from vitreous.inspection import Inspection


Model = Annotated[Positional[str], arg(metavar="MODEL")]
Images = Annotated[Positional[tuple[str, ...]], arg(metavar="IMAGES ...")]
File = Annotated[Path | None, arg(metavar="PATH")]


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

        result = train(self.config, self.out)
        evaluation = result.evaluation
        right = round(evaluation.top1 * evaluation.images)
        print(
            f"{right} of {evaluation.images} test images right ({evaluation.top1:.1%}), "
            f"trained in {result.seconds:.0f} s\nmodel: {result.model}"
        )


@dataclass(frozen=True)
class Evaluate:
    """Measure a model's accuracy on a labelled data set."""

    model: Model
    """A folder, timm:NAME, hf:ORG/NAME, torchvision:NAME or package.module:function."""
    data: Annotated[Positional[str], arg(metavar="DATA")]
    """A folder with a folder for each class, a parquet file, or digits."""
    batch_size: int = 64
    """Images in a forward pass."""
    json: bool = False
    """Print one JSON object."""

    def run(self) -> None:
        """Evaluates and prints."""
        from vitreous.checkpoints.sources import open_model
        from vitreous.data.datasets import open_dataset
        from vitreous.data.images import shown
        from vitreous.training.evaluate import evaluate

        data = open_dataset(self.data)
        found = evaluate(open_model(self.model), data, batch_size=self.batch_size, progress=True)
        if self.json:
            _print_json(found.to_dict())
            return
        print(f"top-1  {found.top1:7.2%}\ntop-5  {found.top5:7.2%}\nloss   {found.loss:7.3f} nats")
        print(f"over {found.images} images of {self.data}; by class:")
        for name, share in zip(found.class_names, found.per_class.tolist(), strict=True):
            print(f"  {share:7.2%}  {shown(name)}" if share == share else f"        -  {shown(name)}")


@dataclass(frozen=True)
class Predict:
    """Say what a model takes images for."""

    model: Model
    """A folder, timm:NAME, hf:ORG/NAME, torchvision:NAME or package.module:function."""
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
        for prediction in predict(open_model(self.model), pictures, top=self.top, progress=True):
            classes = [{"class": name, "probability": share} for name, share in prediction.classes]
            if self.json:
                _print_json({"image": prediction.image, "predictions": classes})
            else:
                print(prediction.image)
                for name, share in prediction.classes:
                    print(f"  {share:7.2%}  {shown(name)}")


@dataclass(frozen=True)
class Inspect:
    """Look inside a model: where its attention goes, how far each head looks, what its positions and filters are."""

    model: Model
    """A folder, timm:NAME, hf:ORG/NAME, torchvision:NAME or package.module:function."""
    images: Images
    """Image files and folders, a parquet file, or digits."""
    out: Path = Path("report.html")
    """The report, one HTML file."""
    json: File = None
    """Every number, as one JSON file."""
    save: File = None
    """The inspection itself, one safetensors file that `Inspection.load` reads."""
    figures: File = None
    """A folder for the figures, each as PDF and PNG."""
    most: int = 128
    """Look at so many images at most, evenly spaced; the paper averages over 128."""
    shown: int = 8
    """Images to show in the report."""
    batch_size: int = 16
    """Images in a forward pass."""

    def run(self) -> None:
        """Inspects, writes the report, prints a summary."""
        from vitreous.atomic import check_writable, write_atomically
        from vitreous.checkpoints.sources import open_model
        from vitreous.data.gather import gather_pictures
        from vitreous.inspector import inspect_model

        try:
            from vitreous.report import write_report
        except ImportError as missing:
            raise ConfigError(str(missing)) from missing

        outputs = [path for path in (self.out, self.json, self.save) if path is not None]
        for path in (*outputs, *([self.figures / "figure.pdf"] if self.figures else [])):
            check_writable(path)
        pictures = gather_pictures(self.images)
        _check_different(outputs, pictures.names)
        loaded = open_model(self.model)
        inspection = inspect_model(
            loaded.model, pictures.spread(self.most), batch_size=self.batch_size, shown=self.shown,
            preprocess=loaded.preprocess, class_names=loaded.class_names, name=loaded.name, progress=True,
        )  # fmt: skip
        if self.json is not None:
            write_atomically(self.json, json.dumps(inspection.to_dict()))
        if self.save is not None:
            inspection.save(self.save)
        if self.figures is not None:
            from vitreous.figures.files import write_figures

            write_figures(inspection, self.figures)
        write_report(inspection, self.out)
        print(_summary(inspection, len(pictures)))
        print(f"report: {self.out}")


@dataclass(frozen=True)
class Describe:
    """Say what a model file holds and how it was read: architecture, preprocessing, each decision and its reason."""

    model: Model
    """A folder, timm:NAME, hf:ORG/NAME, torchvision:NAME or package.module:function."""
    json: bool = False
    """Print one JSON object."""

    def run(self) -> None:
        """Describes and prints."""
        from vitreous.checkpoints.sources import describe

        described = describe(self.model)
        if self.json:
            _print_json(described)
        else:
            print(_description(described))


def main(arguments: list[str] | None = None) -> None:
    """Runs one command and exits with its code; a mistake of the user is one to three lines, never a traceback.

    Args:
        arguments: of the command line; None takes the process's own. `--debug` shows tracebacks.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["--version"]:
        print(f"vitreous {__version__}")
        return
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        _parse(given).run()
        sys.stdout.flush()
    except VitreousError as error:
        if debug:
            raise
        print(f"vitreous: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("vitreous: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        _drop_output()
    except OSError as error:
        full = error.errno == errno.ENOSPC
        print(f"vitreous: {'standard output' if full else error.filename}: {error.strerror}", file=sys.stderr)
        if full:
            _drop_output()
        sys.exit(4 if full else 3)


def _drop_output() -> None:
    """Lets what is still to be printed go nowhere, so that the interpreter ends quietly."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check_different(outputs: list[Path], images: tuple[str, ...]) -> None:
    """Raises ConfigError if two results, or a result and an image, are the same file."""
    places = [path.resolve() for path in outputs]
    if len(set(places)) < len(places):
        raise ConfigError("two results are to be written to the same file; give each its own name")
    taken = set(places) & {Path(image).resolve() for image in images}
    if taken:
        raise ConfigError(f"{min(taken)} is one of the images and would be replaced; choose another name")


def _parse(arguments: list[str]) -> Any:
    """The command that the arguments spell, `train` over the preset that they name."""
    if arguments[:1] == ["train"]:
        started = Train(tyro.MISSING, _preset(arguments))
        return tyro.cli(Train, prog="vitreous train", args=arguments[1:], default=started)
    commands = Union[  # noqa: UP007 (the members are values)
        Annotated[Train, subcommand("train")],
        Annotated[Evaluate, subcommand("evaluate")],
        Annotated[Predict, subcommand("predict")],
        Annotated[Inspect, subcommand("inspect")],
        Annotated[Describe, subcommand("describe")],
    ]
    words = "Trains, loads and looks inside Vision Transformers. --version says which; --debug shows tracebacks."
    return tyro.cli(commands, prog="vitreous", description=words, args=arguments)


def _preset(arguments: list[str]) -> TrainConfig:
    """The settings to start from: those of the recipe or file behind `--preset`, else of the first recipe."""
    from vitreous.training.recipes import PRESETS
    from vitreous.training.settings_file import read_config

    name = Train.preset
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument == "--preset":
            name = following
        elif argument.startswith("--preset="):
            name = argument.removeprefix("--preset=")
    if name in PRESETS:
        return PRESETS[name]()
    if Path(name).suffix in (".yaml", ".yml"):
        return read_config(Path(name))
    raise ConfigError(f"{name!r} is no preset; choose {' or '.join(PRESETS)}, or give a .yaml file")


def _print_json(value: Any) -> None:
    print(json.dumps(value, allow_nan=False))


def _summary(inspection: Inspection, available: int) -> str:
    """The inspection in a few lines."""
    from vitreous.data.images import shown

    layout, trend = inspection.layout, inspection.depth_trend
    layers, heads = inspection.attention_distance.shape
    images = inspection.images
    entropy, mass = inspection.attention_entropy.mean(1), inspection.prefix_mass.mean(1)
    lines = [
        f"{shown(inspection.provenance['model'])}: {_count(layers, 'layer')} x {_count(heads, 'head')}, "
        f"{layout.rows} x {layout.columns} patches of {layout.patch_height} x {layout.patch_width} pixels, "
        f"{_count(layout.prefix, 'prefix token')}",
        f"over {_count(images, 'image')}" + (f" of {available}" if available > images else ""),
        f"attention distance  {trend['first_layer_mean']:6.1f} px in the first layer, "
        f"{trend['last_layer_mean']:.1f} px in the last",
        f"  spread over heads {trend['first_layer_spread']:6.1f} px in the first layer, "
        f"{trend['last_layer_spread']:.1f} px in the last",
        f"attention entropy   {entropy[0]:6.2f} bits in the first layer, {entropy[-1]:.2f} bits in the last",
        f"prefix mass         {mass[0]:6.1%} in the first layer, {mass[-1]:.1%} in the last",
        f"proof               {inspection.provenance['largest_proof_error']:.0e} from the model's own output at most",
    ]
    return "\n".join(lines)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _description(described: dict[str, Any]) -> str:
    """What `describe` found, in lines."""
    from vitreous.data.images import shown

    lines = [
        f"{described['name']}: {described['format']}, {described['class']}",
        f"  parameters  {described['parameters']:,}",
        f"  file hash   {described['file_hash']}",
    ]
    for heading, settings in (("architecture", described["architecture"]), ("preprocess", described["preprocess"])):
        if settings:
            lines.append(f"{heading}")
            lines += [f"  {name:20s} {value}" for name, value in settings.items()]
    if described["class_names"]:
        names = described["class_names"]
        lines.append(f"classes: {len(names)} ({', '.join(names[:10])}{', ...' if len(names) > 10 else ''})")
    if described["decisions"]:
        lines.append("decisions (? marks a guess)")
        for decision in described["decisions"]:
            mark = "?" if decision["guessed"] else " "
            lines.append(f"{mark} {decision['setting']:20s} {decision['value']}: {decision['reason']}")
    return "\n".join(map(shown, lines))
