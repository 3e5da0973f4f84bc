"""What several commands take and print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

Model = Annotated[Positional[str], arg(metavar="MODEL")]
Images = Annotated[Positional[tuple[str, ...]], arg(metavar="IMAGES ...")]
File = Annotated[Path | None, arg(metavar="PATH")]
Settings = Annotated[tuple[str, ...], arg(name="set", metavar="NAME=VALUE ...")]


def print_json(value: Any) -> None:
    """One line on standard output."""
    print(json.dumps(value, allow_nan=False))
