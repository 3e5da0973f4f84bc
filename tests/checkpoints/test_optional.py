from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vitreous.checkpoints.optional import first_line, fixed_draws, import_optional
from vitreous.errors import ConfigError


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(ConfigError, match="nopackage is not installed: pip install nopackage"):
        import_optional("nopackage")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import nopackage2", "broken needs nopackage2, which is missing: pip install nopackage2"),
        ("raise RuntimeError('operator does not exist')", "does not import: operator does not exist"),
        ("raise ImportError", "does not import: ImportError"),
    ],
)
def test_a_package_that_does_not_import_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    (tmp_path / "broken.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=message):
        import_optional("broken")


def test_fixed_draws_are_the_same_and_leave_the_callers_alone() -> None:
    before = torch.random.get_rng_state()
    with fixed_draws():
        first = torch.randn(3)
    with fixed_draws():
        second = torch.randn(3)
    assert torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_first_line_of_an_error_without_a_message_is_its_type() -> None:
    assert first_line(ValueError("\na\nb")) == "a"
    assert first_line(ValueError()) == "ValueError"
