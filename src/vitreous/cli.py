"""The command line: reads it, runs one of `commands`, and says in one to three lines what went wrong.

Results go to standard output, progress to standard error. Exit codes: 0 done, 2 usage or configuration, 3 bad input
file, 4 cannot write, 5 incompatible checkpoint or model, 6 numbers became NaN, 7 a worker process was lost, 130 and 143
interrupted, after saving what can be saved. torch is imported when a command runs, not before: `vitreous --help` is
quick.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Union

import tyro
from tyro.conf import subcommand

from vitreous import __version__
from vitreous.commands.ablating import Ablate
from vitreous.commands.arranging import Arrange
from vitreous.commands.inspecting import Inspect
from vitreous.commands.models import Convert, Describe
from vitreous.commands.probing import Probe
from vitreous.commands.training import Evaluate, Predict, Train, started_from
from vitreous.errors import ConfigError, VitreousError
from vitreous.interrupts import Terminated, stopped_by_signals
from vitreous.memory import shortage_named

_MOST_LINES = 3
_LONGEST_LINE = 1000


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
        _check_current_folder()
        with stopped_by_signals(), shortage_named("give it fewer images at a time, smaller ones, or a smaller model"):
            _parse(given).run()
        if sys.stdout is not None:  # it may have been closed before we started
            sys.stdout.flush()
    except VitreousError as error:
        if debug:
            raise
        _complain(_on_few_lines(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt as stop:
        if os.environ.get("RANK", "0") == "0":  # one of the processes that torchrun started speaks for all
            _complain(str(stop) or "interrupted")
        sys.exit(143 if isinstance(stop, Terminated) else 130)
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        _drop_output()
    except OSError as error:
        full = error.errno == errno.ENOSPC
        place = "standard output" if full else error.filename
        _complain(_on_few_lines(f"{place}: {error.strerror}"))
        if full:
            _drop_output()
        sys.exit(4 if full else 3)


def _check_current_folder() -> None:
    try:
        Path.cwd()
    except FileNotFoundError:  # torch's kernels abort without one
        raise ConfigError("the folder you are in was deleted; change to another one") from None


def _on_few_lines(message: object) -> str:
    """What a terminal may show of a message: what a file or a user put into it is escaped, and cut in the middle."""
    from vitreous.data.images import shown

    lines = (shown(line) for line in str(message).split("\n")[:_MOST_LINES])
    half = _LONGEST_LINE // 2
    return "\n".join(line if len(line) <= _LONGEST_LINE else f"{line[:half]} ... {line[-half:]}" for line in lines)


def _settings_together(arguments: list[str]) -> list[str]:
    """One `--set` with all settings, however often it is given; it takes no word without a "="."""
    settings: list[str] = []
    others: list[str] = []
    before = ""
    for argument in arguments:
        follows = before == "--set" or (bool(settings) and before is settings[-1] and "=" in argument)
        is_setting = follows and not argument.startswith("--")
        (settings if is_setting else others).append(argument)
        before = argument
    if "--set" not in others:
        return arguments
    return [*(argument for argument in others if argument != "--set"), "--set", *settings]


def _complain(message: str) -> None:
    with suppress(OSError):  # where nobody can hear it the exit code says enough
        print(f"vitreous: {message}", file=sys.stderr)


def _drop_output() -> None:
    """Lets what is still to be printed go nowhere, so that the interpreter ends quietly."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parse(arguments: list[str]) -> Any:
    """The command that the arguments spell, `train` over the preset that they name."""
    if arguments[:1] == ["train"]:
        started = Train(tyro.MISSING, started_from(arguments))
        return tyro.cli(Train, prog="vitreous train", args=arguments[1:], default=started)
    is_overview = not arguments or arguments[0].startswith("-")

    def words(command: type) -> str | None:
        """What `vitreous --help` says of a command is its first line; None takes all of its docstring."""
        return (command.__doc__ or "").partition("\n")[0] if is_overview else None

    commands = Union[  # noqa: UP007 (the members are values)
        Annotated[Train, subcommand("train", description=words(Train))],
        Annotated[Evaluate, subcommand("evaluate", description=words(Evaluate))],
        Annotated[Predict, subcommand("predict", description=words(Predict))],
        Annotated[Probe, subcommand("probe", description=words(Probe))],
        Annotated[Ablate, subcommand("ablate", description=words(Ablate))],
        Annotated[Inspect, subcommand("inspect", description=words(Inspect))],
        Annotated[Arrange, subcommand("arrangement", description=words(Arrange))],
        Annotated[Describe, subcommand("describe", description=words(Describe))],
        Annotated[Convert, subcommand("convert", description=words(Convert))],
    ]
    all_of_it = "Trains, loads and looks inside Vision Transformers. --version says which; --debug shows tracebacks."
    return tyro.cli(commands, prog="vitreous", description=all_of_it, args=_settings_together(arguments))
