from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

BAD_CHECKPOINTS = Path(__file__).parents[2] / "bad_checkpoints.py"


@pytest.fixture(scope="session")
def bad() -> dict[str, Any]:
    """What tests/bad_checkpoints.py and bad_pickles.py define: the bad files, and the pieces to make more."""
    defined = runpy.run_path(str(BAD_CHECKPOINTS))
    return {**defined["_PICKLES"], **defined}


@pytest.fixture(scope="session")
def bad_files(bad: dict[str, Any]) -> tuple[Any, ...]:
    """All of them, made once."""
    return bad["bad_files"]()
