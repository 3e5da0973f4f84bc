"""Which modules of a model are its layers, told from the calls of one pass.

Layers are the members of the model's outermost lists of modules that return a map: `nn.ModuleList`, `nn.Sequential`,
or a module that runs several of one class one after another and does nothing else. A member that itself ends with such
a list is a stage, and its members are taken; a residual unit adds something to what its list returns, so it is none.
What has no convolution or linear layer inside (norm, activation, pooling) is no layer. Where there is none at all, as
in VGG's flat list, `find_convolutions` has what comes nearest.

A list that is never called, such as `nn.ModuleList([attention, mlp])`, holds branches that somebody else adds up: then
the layer is what the next module after them is given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitreous.arrangement.seen_calls import Call, SeenCalls, first_tensor
from vitreous.tokens import TokenLayout

EMBEDDED = "embedding"
"""What the first block of a Vision Transformer sees: patches, and positions where these are added to them."""

LISTS = (nn.ModuleList, nn.Sequential)


@dataclass(frozen=True)
class Place:
    """One layer: what a module is given or returns, in one of its calls.

    Attributes:
        name: for figures.
        module: that is called.
        turn: how many times it was called before in the same pass.
        reads_input: whether the layer is what the module is given.
        grid: (rows, columns).
        stride: pixels of the image from one position to the next, (down, right).
        layout: of its tokens; None of a map.
        batch_axis: of its tokens; 1 in modules that want the batch second.
    """

    name: str
    module: nn.Module
    turn: int
    reads_input: bool
    grid: tuple[int, int]
    stride: tuple[float, float]
    layout: TokenLayout | None
    batch_axis: int

    def features(self, value: Any) -> Tensor:
        """(batch, rows, columns, width) float32 of what the module was given or returned, in memory of its own."""
        found = first_tensor(value)
        assert found is not None, "the pass that found the layer saw a tensor here"
        if self.layout is None:
            placed = found.permute(0, 2, 3, 1)  # (batch, rows, columns, width)
        else:
            sequence = found.movedim(self.batch_axis, 0)  # (batch, tokens, width)
            placed = self.layout.patch_tokens(sequence, axis=1).unflatten(1, self.grid)
        return placed.to(torch.float32, copy=True)  # the next module may work in place


def find_places(model: nn.Module, seen: SeenCalls, layout: TokenLayout | None) -> list[Place]:
    """The layers of a model in the order in which they ran; none where none returns a map of several positions.

    Args:
        model: that ran.
        seen: its pass.
        layout: of its tokens; None where it has none, then only maps are found.
    """
    return _Finder(seen, layout).places(model)


def find_convolutions(seen: SeenCalls) -> list[Place]:
    """The convolutions of a model in the order in which they ran: layers of a model that has no units."""
    return _Finder(seen, None).convolutions()


class _Spot(NamedTuple):
    """A call by its number, and which of its ends; sorted as a pass comes by."""

    call: int
    is_output: bool


class _Finder:
    """Looks through the calls of one pass."""

    def __init__(self, seen: SeenCalls, layout: TokenLayout | None) -> None:
        self._seen, self._calls, self._layout = seen, seen.calls, layout
        self._numbers: dict[nn.Module, list[int]] = {}  # of each module's calls
        for number, call in enumerate(seen.calls):
            if call.returned is not None:
                self._numbers.setdefault(call.module, []).append(number)

    def places(self, model: nn.Module) -> list[Place]:
        """Named, in the order in which they ran."""
        spots = {spot for unit in self._units(model) for spot in self._spots(unit)}
        ordered = sorted(spots)
        blocks = [spot for spot in ordered if self._is_tokens(self._tensor(spot))]
        if blocks and self._is_tokens(self._tensor(blocks[0]._replace(is_output=False))):
            ordered = sorted(spots | {blocks[0]._replace(is_output=False)})
        return list(self._named(ordered))

    def convolutions(self) -> list[Place]:
        """All that return a map, in the order in which they ran; none if it is one that only cuts out patches."""
        spots = {spot for module in self._numbers if _is_convolution(module) for spot in self._spots((module,))}
        found = list(self._named(sorted(spots)))
        return [] if len(found) == 1 and _cuts_patches(found[0].module) else found

    def _named(self, spots: list[_Spot]) -> Iterator[Place]:
        maps = blocks = 0
        embedded = False
        for spot in spots:
            found = self._tensor(spot)
            assert found is not None
            if not self._is_tokens(found):
                yield self._place(f"unit {maps}", spot, found)
                maps += 1
            elif not embedded and not spot.is_output:
                yield self._place(EMBEDDED, spot, found)
                embedded = True
            else:
                yield self._place(f"layer {blocks}", spot, found)
                blocks += 1

    def _place(self, name: str, spot: _Spot, found: Tensor) -> Place:
        call, layout = self._calls[spot.call], self._layout
        if layout is None or not self._is_tokens(found):
            grid = _grid(found)
            return Place(name, call.module, call.turn, not spot.is_output, grid, self._seen.strides[grid], None, 0)
        stride = (float(layout.patch_height), float(layout.patch_width))
        batch_axis = 0 if found.shape[1] == layout.tokens else 1
        grid = (layout.rows, layout.columns)
        return Place(name, call.module, call.turn, not spot.is_output, grid, stride, layout, batch_axis)

    def _units(self, holder: nn.Module) -> list[tuple[nn.Module, ...]]:
        """Modules whose outputs are layers; several where they are branches of one."""
        units: list[tuple[nn.Module, ...]] = []
        for member in self._members(holder):
            if self._holds_branches(member):
                units.append(tuple(member.children()))
            elif self._returns_map(member) and _is_composite(member) and not self._is_stage(member):
                units.append((member,))
            else:
                units += self._units(member)
        return units

    def _spots(self, unit: tuple[nn.Module, ...]) -> Iterator[_Spot]:
        numbers = [number for module in unit for number in self._numbers.get(module, ())]
        if len(unit) == 1:
            yield from (_Spot(number, True) for number in numbers if self._is_placed(self._calls[number].returned))
            return
        yield _Spot(min(numbers), False)
        inside = {inner for module in unit for inner in module.modules()}
        for number in range(max(numbers) + 1, len(self._calls)):
            if self._calls[number].module not in inside and self._is_placed(self._calls[number].given):
                yield _Spot(number, False)
                return

    def _members(self, holder: nn.Module) -> list[nn.Module]:
        """Those of a list; of another module those of the outermost lists in it."""
        if self._is_list(holder):
            return list(holder.children())
        return [
            member
            for child in holder.children()
            for member in ([child] if self._runs_in_parallel(child) else self._members(child))
        ]

    def _lists(self, holder: nn.Module) -> list[nn.Module]:
        """The module itself, if it is a list; otherwise the outermost lists in it."""
        if self._is_list(holder):
            return [holder]
        return [found for child in holder.children() for found in self._lists(child)]

    def _is_list(self, module: nn.Module) -> bool:
        """Whether it is one by its class, or by what it does: members of one class run one after another.

        One member alone shows nothing; then another module of the same class must.
        """
        if isinstance(module, LISTS):
            return True
        if not self._is_chain(module):
            return False
        kin = (other for other in self._numbers if type(other) is type(module))
        return any(len(list(other.children())) > 1 and self._is_chain(other) for other in kin)

    def _is_chain(self, module: nn.Module) -> bool:
        """Whether it does nothing but to run all its members, composite and of one class, one after another."""
        members = list(module.children())
        called = [self._calls[self._numbers[member][0]] for member in members if member in self._numbers]
        if not called or len(called) < len(members) or module not in self._numbers or isinstance(members[0], LISTS):
            return False
        whole = self._calls[self._numbers[module][0]]
        ends = whole.returned is called[-1].returned and whole.changes == called[-1].changes
        alike = len(set(map(type, members))) == 1 and all(map(_is_composite, members))
        return ends and alike and _are_linked(called)

    def _is_stage(self, module: nn.Module) -> bool:
        """Whether it returns what a list in it returns; if its class adds something anywhere, it is a unit."""
        kin = (
            [module]
            if isinstance(module, nn.Sequential)
            else [other for other in self._numbers if type(other) is type(module)]
        )
        return all(any(self._ends_with(other, found) for found in self._lists(other)) for other in kin)

    def _ends_with(self, module: nn.Module, members_of: nn.Module) -> bool:
        """Whether a module returns what the last of a list's members returns, all of these composite."""
        members = [member for member in members_of.children() if any(True for _ in member.parameters())]
        if not members or not all(map(_is_composite, members)) or members[-1] not in self._numbers:
            return False
        last, whole = (self._calls[self._numbers[called][-1]] for called in (members[-1], module))
        return whole.returned is last.returned and whole.changes == last.changes

    def _holds_branches(self, module: nn.Module) -> bool:
        """Whether it is a list of modules that are called one by one, none of which is given what another returned."""
        members = list(module.children())
        if not isinstance(module, nn.ModuleList) or len(members) < 2 or not all(map(self._returns_map, members)):
            return False
        called = [self._calls[self._numbers[member][0]] for member in members]
        return not any(_are_linked([one, other]) for one, other in pairwise(called))

    def _runs_in_parallel(self, module: nn.Module) -> bool:
        """Whether lists in it are given the same map, as the branches of GoogLeNet's units are."""
        if self._is_list(module) or not self._returns_map(module):
            return False
        first = [next(found.children(), found) for found in self._lists(module)]
        given = [id(self._calls[self._numbers[member][0]].given) for member in first if member in self._numbers]
        return len(set(given)) < len(given)

    def _returns_map(self, module: nn.Module) -> bool:
        return any(self._is_placed(self._calls[number].returned) for number in self._numbers.get(module, ()))

    def _tensor(self, spot: _Spot) -> Tensor | None:
        call = self._calls[spot.call]
        return call.returned if spot.is_output else call.given

    def _is_placed(self, found: Tensor | None) -> bool:
        return self._is_tokens(found) or self._is_map(found)

    def _is_tokens(self, found: Tensor | None) -> bool:
        """Whether all patches stand one behind the other, (batch, tokens, width) or (tokens, batch, width)."""
        if found is None or self._layout is None or found.ndim != 3 or self._layout.patches < 2:
            return False
        return self._layout.tokens in found.shape[:2]

    def _is_map(self, found: Tensor | None) -> bool:
        """Whether it has several positions, at a size that a convolution or pooling had."""
        if found is None or found.ndim != 4:
            return False
        return _grid(found) in self._seen.strides and math.prod(_grid(found)) > 1


def _grid(features: Tensor) -> tuple[int, int]:
    return features.shape[-2], features.shape[-1]


def _is_composite(module: nn.Module) -> bool:
    """Whether a module inside of it multiplies by weights, as norms do not."""
    return any(weight.ndim > 1 for child in module.children() for weight in child.parameters())


def _is_convolution(module: nn.Module) -> bool:
    return any(weight.ndim == 4 for weight in module.parameters(recurse=False))


def _cuts_patches(module: nn.Module) -> bool:
    return getattr(module, "stride", None) == getattr(module, "kernel_size", ())


def _are_linked(calls: list[Call]) -> bool:
    """Whether each is given what the one before returned."""
    return all(before.returned is after.given for before, after in pairwise(calls))
