"""What a model loses for a while: the zeros around its maps, or its position embeddings. Afterwards it has them again.

Zero padding tells a CNN where the edge is (Islam et al. 2020, arXiv 2001.08248); a table of position embeddings tells a
ViT where each patch lies. Both are taken away without a new training, and given back also after an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._ops import OpOverload, OpOverloadPacket
from torch.overrides import TorchFunctionMode

from vitreous.capture import kernels
from vitreous.capture.compiled import compiled_parts_run_eagerly
from vitreous.capture.watch import watch_attention
from vitreous.data.images import shown
from vitreous.errors import CaptureError, ConfigError, ShapeError
from vitreous.model.added_positions import COLUMNS, ONE_TABLE, ROWS
from vitreous.model.forward import run_model
from vitreous.model.positions import resample_positions
from vitreous.model.vit import VisionTransformer


@contextmanager
def circular_padding() -> Iterator[None]:
    """Inside, maps are continued by their other side where a model pads them with zeros.

    A CNN of stride 1 without fully connected layers in between is then exactly equivariant to cyclic shifts: no place
    differs from another. Changed are the zeros of `conv1d`, `conv2d`, `avg_pool2d` and `unfold`, the places that
    `max_pool2d` leaves out beyond the edge, and `pad` of the last two axes of maps with a constant of 0, or of minus
    infinity, which is nothing before a maximum. A `pad` of other axes stays as it is: it adds channels. Calls of this
    thread only; compiled parts run eagerly; TorchScript is not seen.

    Raises:
        ShapeError: inside, where a map is smaller than its padding.
        CaptureError: inside, where `max_pool2d` with padding is asked for indices, which would point outside.

    Source: circular padding as in `torch.nn.Conv2d(padding_mode="circular")`.
    """
    with compiled_parts_run_eagerly(), _Circular():
        yield


@dataclass(frozen=True, eq=False)
class PositionTable:
    """The position embeddings of a model's patches; prefix tokens keep theirs, and are left out.

    Attributes:
        name: of the parameter, buffer or attribute.
        values: (rows, columns, width), a copy. Where a model adds a table of its own before each layer they lie side
            by side, and width is that of all.
    """

    name: str
    values: Tensor
    _written: Callable[[Tensor], AbstractContextManager[None]] = field(repr=False)


def find_position_table(model: nn.Module, images: Tensor) -> PositionTable | None:
    """The table that a ViT adds to its patches, learned or fixed; None for a model without one.

    Models with rotary or relative positions have none, nor have CNNs, nor models whose attention cannot be seen. Tables
    of our own models for rows and for columns count as one for patches.

    Args:
        model: any module, in eval mode.
        images: (batch, channels, image_height, image_width); the first is run through models of other libraries.

    Raises:
        CaptureError: if there is a table, but in a form that cannot be changed.
        ShapeError: if the model refuses the image.
    """
    for module in model.modules():
        if isinstance(module, VisionTransformer):
            return _own_table(module)
    try:
        with watch_attention(model, on_attention=lambda *_: None) as watched:
            run_model(model, images[:1])
    except CaptureError:
        return None
    positions = watched.positions()
    if positions is None:
        return None
    stored = reduce(getattr, positions.name.lstrip(".").split("."), model)
    if not isinstance(stored, Tensor) or hasattr(stored, "full_tensor") or not _share(stored, positions.table):
        raise CaptureError(
            f"{shown(positions.name)}: these position embeddings are not stored as one plain tensor, so they cannot be "
            "changed for a while\nload the model on one device, unsharded"
        )
    return _table(positions.name, [positions.table])


def zeroed(table: PositionTable) -> Tensor:
    """Values of a table that tells nothing: (rows, columns, width)."""
    return torch.zeros_like(table.values)


def shuffled(table: PositionTable, generator: torch.Generator) -> Tensor:
    """The table's own values, each at another patch: place i gets that of place `order[i]`.

    The order is `torch.randperm(rows * columns)` of the generator: every one is equally likely.

    Args:
        table: of a model.
        generator: on the CPU.

    Returns:
        (rows, columns, width).
    """
    rows, columns, _ = table.values.shape
    order = torch.randperm(rows * columns, generator=generator)
    return table.values.flatten(0, 1)[order.to(table.values.device)].unflatten(0, (rows, columns))


def transplanted(table: PositionTable, other: PositionTable) -> Tensor:
    """The values of another model's table, moved to this table's grid: (rows, columns, width).

    Bilinear where the grids differ, the image's edges kept; not one bit changes where they do not.

    Args:
        table: whose values are to be replaced.
        other: whose values are taken.

    Raises:
        ConfigError: if the tables differ in width.
    """
    (rows, columns, width), (old_rows, old_columns, other_width) = table.values.shape, other.values.shape
    if width != other_width:
        raise ConfigError(
            f"{shown(other.name)} has {other_width} numbers a patch, {shown(table.name)} {width}\n"
            f"transplant position embeddings from a model of width {width}"
        )
    row_by_row = other.values.flatten(0, 1)[None]  # (1, patches, width)
    moved = resample_positions(row_by_row, (old_rows, old_columns), (rows, columns), 0, "timm-npz")
    return moved[0].unflatten(0, (rows, columns)).to(table.values)


@contextmanager
def changed_positions(table: PositionTable, values: Tensor) -> Iterator[None]:
    """Inside, the model of this table computes with other position embeddings; afterwards with its own, bit for bit.

    Args:
        table: of the model.
        values: (rows, columns, width), as the table's.

    Raises:
        ShapeError: if they are not of the table's shape.
    """
    if values.shape != table.values.shape:
        raise ShapeError(f"values are {tuple(values.shape)}; {shown(table.name)} has {tuple(table.values.shape)}")
    with table._written(values):
        yield


_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_MAXIMUM = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_MEAN = ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
_ARGUMENTS: dict[Any, tuple[str, ...]] = {
    torch.conv1d: _CONVOLUTION,
    torch.conv2d: _CONVOLUTION,
    torch.max_pool2d: _MAXIMUM,
    F.max_pool2d: _MAXIMUM,
    F.max_pool2d_with_indices: _MAXIMUM,
    F.avg_pool2d: _MEAN,
    F.unfold: ("input", "kernel_size", "dilation", "padding", "stride"),
    F.pad: ("input", "pad", "mode", "value"),
    torch.constant_pad_nd: ("input", "pad", "value"),
}
"""By call, the names of its arguments in order."""
_BY_NAME = {
    f"aten::{call.__name__}": call
    for call in (torch.conv1d, torch.conv2d, torch.max_pool2d, F.avg_pool2d, F.pad, torch.constant_pad_nd)
}
"""The same calls in programs that `torch.export` made."""
_PADS = frozenset({F.pad, torch.constant_pad_nd})


class _Circular(TorchFunctionMode):
    """Lets every call through, those that pad with zeros on maps that were padded before."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        call = _BY_NAME.get(kernels.name_of(func)) if isinstance(func, (OpOverload, OpOverloadPacket)) else func
        if call not in _ARGUMENTS:
            return func(*args, **kwargs)
        given = dict(zip(_ARGUMENTS[call], args, strict=False)) | kwargs
        if call in _PADS:
            return _padded(given) if _pads_with_nothing(given) else func(*args, **kwargs)
        pads = _pads(call, given)
        return _without_padding(call, given, pads) if any(map(any, pads)) else func(*args, **kwargs)


def _without_padding(call: Any, given: dict[str, Any], pads: list[tuple[int, int]]) -> Tensor:
    """What a call returns for a map that was continued by its other side, the call itself adding nothing."""
    maps: Tensor = given["input"]
    if call is F.max_pool2d_with_indices or given.get("return_indices"):
        raise CaptureError("indices of max_pool2d with padding would point outside the map with circular padding")
    returned: Tensor = call(**given | {"input": _continued(maps, pads), "padding": 0})
    if not given.get("ceil_mode"):
        return returned
    # a window may now start where padding was, and torch leaves such ones out
    shape = call(**given | {"input": torch.empty_like(maps, device="meta")}).shape
    return returned[..., : shape[-2], : shape[-1]]


def _pads(call: Any, given: dict[str, Any]) -> list[tuple[int, int]]:
    """Places before and after each of the map's last axes that a call fills up."""
    axes = 1 if call is torch.conv1d else 2
    padding = given.get("padding", 0)
    if padding == "valid":
        return [(0, 0)] * axes
    if padding == "same":
        spans = [
            step * (size - 1)
            for step, size in zip(_each_axis(given.get("dilation", 1), axes), given["weight"].shape[2:], strict=True)
        ]
        return [(span // 2, span - span // 2) for span in spans]  # one more after, as torch has it
    return [(one, one) for one in _each_axis(padding, axes)]


def _each_axis(setting: int | Sequence[int], axes: int) -> tuple[int, ...]:
    if isinstance(setting, int):
        return (setting,) * axes
    return tuple(setting) * (axes if len(setting) == 1 else 1)


def _pads_with_nothing(given: dict[str, Any]) -> bool:
    """Whether `pad` fills up the sides of maps as if there was nothing beyond."""
    is_map, is_constant = given["input"].ndim == 4, given.get("mode", "constant") == "constant"
    sides = len(given["pad"]) == 4 or not any(given["pad"][4:])
    return is_map and is_constant and sides and (given.get("value") or 0) in (0, -math.inf)


def _padded(given: dict[str, Any]) -> Tensor:
    left, right, top, bottom = (*given["pad"], 0, 0, 0, 0)[:4]
    cropped = F.pad(given["input"], [min(0, side) for side in (left, right, top, bottom)])  # negative ones cut off
    return _continued(cropped, [(max(0, top), max(0, bottom)), (max(0, left), max(0, right))])


def _continued(maps: Tensor, pads: list[tuple[int, int]]) -> Tensor:
    """Maps with some places of the other side before and after each of their last axes."""
    sizes = maps.shape[-len(pads) :]
    if any(max(pad) > size for pad, size in zip(pads, sizes, strict=True)):
        raise ShapeError(
            f"a map of {' x '.join(map(str, sizes))} is smaller than its padding {max(map(max, pads))}, so its other "
            "side cannot continue it\ntake larger images"
        )
    flat = [side for pad in reversed(pads) for side in pad]  # the last axis first
    batched = maps if maps.ndim == len(pads) + 2 else maps[None]
    return F.pad(batched, flat, mode="circular").view(*maps.shape[: -len(pads)], *_grown(sizes, pads))


def _grown(sizes: Sequence[int], pads: list[tuple[int, int]]) -> list[int]:
    return [size + before + after for size, (before, after) in zip(sizes, pads, strict=True)]


def _own_table(model: VisionTransformer) -> PositionTable | None:
    """The table of a model of our own; its layers' tables side by side."""
    config = model.config
    holders: list[nn.Module] = [model] if config.positions_at == "stem" else list(model.layer_positions)
    if config.positions in ("learned", "sincos-2d"):
        wholes = [getattr(holder, ONE_TABLE) for holder in holders]  # each (1, tokens, width)
        views = [whole.detach()[0, config.prefix :].unflatten(0, (config.rows, config.columns)) for whole in wholes]
        return _table(ONE_TABLE, views)
    if config.positions != "learned-2d" or not holders:
        return None
    values = torch.cat([_of_patches(getattr(holder, ROWS), getattr(holder, COLUMNS)) for holder in holders], dim=-1)

    @contextmanager
    def written(changed: Tensor) -> Iterator[None]:
        with ExitStack() as stack:
            for holder, part in zip(holders, changed.chunk(len(holders), dim=-1), strict=True):
                stack.enter_context(_as_one_table(holder, part, config.prefix))
            yield

    return PositionTable(f"{ROWS}, {COLUMNS}", values, written)


def _of_patches(rows: Tensor, columns: Tensor) -> Tensor:
    """(1, rows, width / 2), (1, columns, width / 2) -> (rows, columns, width)."""
    down = rows.detach()[0, :, None].expand(-1, columns.shape[1], -1)
    return torch.cat([down, columns.detach().expand(rows.shape[1], -1, -1)], dim=-1)


@contextmanager
def _as_one_table(holder: nn.Module, values: Tensor, prefix: int) -> Iterator[None]:
    """Inside, a module that adds rows beside columns adds a table: most have no rows and columns of their own."""
    own = dict(holder._parameters)
    whole = F.pad(values.flatten(0, 1), (0, 0, prefix, 0))[None].to(getattr(holder, ROWS))  # (1, tokens, width)
    try:
        holder._parameters.update({ROWS: None, COLUMNS: None, ONE_TABLE: nn.Parameter(whole, requires_grad=False)})
        yield
    finally:
        holder._parameters.clear()
        holder._parameters.update(own)


def _table(name: str, views: list[Tensor]) -> PositionTable | None:
    """A table that is changed where it lies; views are (rows, columns, width) each."""
    if not views:
        return None

    @contextmanager
    def written(changed: Tensor) -> Iterator[None]:
        own = [view.clone() for view in views]
        try:
            _copy(views, changed.chunk(len(views), dim=-1))
            yield
        finally:
            _copy(views, own)

    return PositionTable(name, torch.cat(views, dim=-1), written)


def _copy(views: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    with torch.inference_mode():  # weights that were loaded in it can be changed nowhere else
        for view, value in zip(views, values, strict=True):
            view.copy_(value)


def _share(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
