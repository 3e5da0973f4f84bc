"""Which modules a call happens in, read from Python's stack: no hook, and nothing to undo."""

from __future__ import annotations

import sys

from torch import nn

CALL = nn.Module._call_impl.__code__
"""Runs whenever a module is called."""

FLEX = "torch.nn.attention.flex_attention"

Kind = tuple[type[nn.Module], tuple[tuple[int, ...], ...]]
"""Class and shapes of all parameters: modules of one kind are built alike."""


def running_modules() -> list[nn.Module]:
    """The modules that are being called in this thread, innermost first."""
    found = []
    frame = sys._getframe(1)
    while frame.f_back is not None:
        if frame.f_code is CALL:
            found.append(frame.f_locals["self"])
        frame = frame.f_back
    return found


def is_in_compiled_function() -> bool:
    """Whether a function that `torch.compile` made is being called, other than by torch's own flex_attention."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        caller = frame.f_back
        if frame.f_code.co_name == "compile_wrapper" and caller.f_globals["__name__"] != FLEX:
            return True
        frame = caller
    return False


def overlooked_modules(model: nn.Module, seen: set[nn.Module]) -> list[str]:
    """Names of modules that were not seen to attend though they are built like one that was, outermost only.

    Args:
        model: that was watched.
        seen: modules in which an attention was seen, with all that are around them.
    """
    classes = {type(module) for module in seen}
    attending: set[Kind] = set()
    found: list[str] = []
    for name, module in model.named_modules():
        if module in seen or type(module) not in classes or any(name.startswith(f"{outer}.") for outer in found):
            continue
        kind = _kind(module)
        attending = attending or {_kind(module) for module in seen if module is not model}  # most models need none
        if kind[1] and kind in attending:
            found.append(name)
    return found


def _kind(module: nn.Module) -> Kind:
    return type(module), tuple(tuple(parameter.shape) for parameter in module.parameters())
