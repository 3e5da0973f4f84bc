"""Compiled parts of a model run eagerly while it is watched: a compiled graph makes no calls that could be seen."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

NOTE = "compiled parts ran eagerly while watched: the output may differ from the compiled model's by rounding"

_LOCK = threading.Lock()
_OPEN: list[Any] = []
"""The stance, once for every open watch: torch's is one for all threads, so the last watch to close puts it back."""


@contextmanager
def compiled_parts_run_eagerly() -> Iterator[None]:
    """Ignores `torch.compile` inside: nothing is compiled, and what was compiled before stays as it is.

    Does nothing where nothing can have been compiled: torch's compiler takes more than a second to import.
    """
    if not {"torch._dynamo", "torch.nn.attention.flex_attention"} & set(sys.modules):
        yield
        return
    with _LOCK:
        _OPEN.append(_OPEN[0] if _OPEN else torch.compiler.set_stance("force_eager"))
    try:
        yield
    finally:
        with _LOCK:
            stance = _OPEN.pop()
            if not _OPEN:
                stance.__exit__(None, None, None)


def has_compiled_part(model: nn.Module) -> bool:
    """Whether `torch.compile` or `.compile()` was called on the model or a module in it."""
    return any(is_compiled(module) for module in model.modules())


def is_compiled(module: nn.Module) -> bool:
    """Whether this very module is compiled."""
    return "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None
