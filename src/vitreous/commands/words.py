"""What several commands take and print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from vitreous.errors import ConfigError

Model = Annotated[Positional[str], arg(metavar="MODEL")]
Images = Annotated[Positional[tuple[str, ...]], arg(metavar="IMAGES ...")]
File = Annotated[Path | None, arg(metavar="PATH")]
Settings = Annotated[tuple[str, ...], arg(name="set", metavar="NAME=VALUE ...")]


def print_json(value: Any) -> None:
    """One line on standard output."""
    print(json.dumps(value, allow_nan=False))


def check_figure(path: Path | None) -> None:
    """Nothing, if a figure can be drawn there; found out before the work.

    Raises:
        ConfigError: if matplotlib is missing, or the name is none of a figure.
        OutputError: if the file cannot be written.
    """
    if path is None:
        return
    from vitreous.atomic import check_writable

    try:
        from vitreous.figures.files import figure_kind
    except ImportError as missing:
        raise ConfigError(str(missing)) from missing
    figure_kind(path)
    check_writable(path)
