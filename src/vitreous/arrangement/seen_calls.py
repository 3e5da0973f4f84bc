"""One pass of a model, written down: which modules were called with what, and how far apart positions of maps lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

STEPPING = ("conv2d", "max_pool2d", "avg_pool2d")
"""Calls that walk over a map in steps; fourth argument of the first, third of the others."""

RESIZING = ("adaptive_avg_pool2d", "adaptive_max_pool2d", "lp_pool2d", "interpolate", "pixel_unshuffle")
"""Calls that give a map of another size, spread over the same image."""


@dataclass(eq=False)
class Call:
    """A call of a module.

    Attributes:
        module: that was called.
        turn: how many times it was called before.
        given: the first tensor among its arguments.
        returned: the first tensor that it returned; None until then.
        changes: made in place to what it returned, until it returned it: `x += y` returns the same tensor.
    """

    module: nn.Module
    turn: int
    given: Tensor | None
    returned: Tensor | None = None
    changes: int = 0


@dataclass(eq=False)
class SeenCalls:
    """What a pass did.

    Attributes:
        calls: of modules, in the order in which they began.
        strides: by (rows, columns) of a map, image pixels from one position to the next, (down, right). Only sizes that
            a convolution or a pooling had as (..., rows, columns) are here, so that it tells which axes are which.
    """

    calls: list[Call] = field(default_factory=list)
    strides: dict[tuple[int, int], tuple[float, float]] = field(default_factory=dict)

    def of(self, module: nn.Module) -> list[Call]:
        """The calls of a module that returned a tensor, first call first."""
        return [call for call in self.calls if call.module is module and call.returned is not None]


@contextmanager
def seeing_calls(model: nn.Module, images: Tensor) -> Iterator[SeenCalls]:
    """Inside, one pass of a model is written down; afterwards no hook is left on it, also when the pass fails.

    All tensors that modules pass on are kept: give it few images.

    Args:
        model: any module.
        images: (batch, channels, image_height, image_width) that it will be given.
    """
    seen = SeenCalls()
    open_calls: list[Call] = []
    hooks = []

    def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        turn = sum(call.module is module for call in seen.calls)
        call = Call(module, turn, first_tensor((args, kwargs)))
        seen.calls.append(call)
        open_calls.append(call)

    def end(module: nn.Module, args: tuple[Any, ...], returned: Any) -> None:
        call = open_calls.pop()
        call.returned = first_tensor(returned)
        if call.returned is not None and not call.returned.is_inference():
            call.changes = call.returned._version

    try:
        for module in model.modules():
            hooks.append(module.register_forward_pre_hook(begin, with_kwargs=True))
            hooks.append(module.register_forward_hook(end))
        with _Strides(seen.strides, (images.shape[-2], images.shape[-1])):
            yield seen
    finally:
        for hook in hooks:
            hook.remove()


def first_tensor(value: Any) -> Tensor | None:
    """A tensor itself; of tuples, lists and mappings the first tensor in them, None where there is none."""
    if isinstance(value, Tensor):
        return value
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else ()
    return next((found for found in map(first_tensor, inner) if found is not None), None)


class _Strides(TorchFunctionMode):
    """Follows the steps of convolutions and poolings from the image on; changes nothing."""

    def __init__(self, strides: dict[tuple[int, int], tuple[float, float]], image: tuple[int, int]) -> None:
        super().__init__()
        self._strides, self._image = strides, image
        strides[image] = (1.0, 1.0)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        returned = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in STEPPING or name in RESIZING or name == "pad":
            self._follow(name, first_tensor((args, kwargs)), returned, partial(_argument, args, kwargs))
        return returned

    def _follow(self, name: str, given: Tensor | None, returned: Any, argument: Any) -> None:
        made = first_tensor(returned)
        if given is None or made is None or given.ndim != 4 or made.ndim != 4:
            return
        before, after = _size(given), _size(made)
        if name in RESIZING:
            self._strides[after] = self._spread(after)
        elif name == "pad":
            if before in self._strides:
                self._strides[after] = self._strides[before]
        else:
            step = argument(3, "stride", 1) if name == "conv2d" else argument(2, "stride", None)
            down, right = _both(step if step or name == "conv2d" else argument(1, "kernel_size", 1))
            known = self._strides.setdefault(before, self._spread(before))
            self._strides[after] = (known[0] * down, known[1] * right)

    def _spread(self, size: tuple[int, int]) -> tuple[float, float]:
        return self._image[0] / size[0], self._image[1] / size[1]


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], position: int, name: str, missing: Any) -> Any:
    return args[position] if len(args) > position else kwargs.get(name, missing)


def _size(features: Tensor) -> tuple[int, int]:
    return features.shape[-2], features.shape[-1]


def _both(step: Any) -> tuple[int, int]:
    return (step, step) if isinstance(step, int) else (step[0], step[-1])
