"""The largest flow through a layered graph into one token, and the cut that proves it; see `flow` for what it means.

Nodes are the output tokens of each layer, a source above the last layer and the sink, one token of the input:

    source -> (last layer, i)          read-out weight of token i
    (layer l, i) -> (layer l - 1, j)   capacities[l, i, j]
    (layer 0, i) -> sink               capacities[0, i, sink]

A solver sees only some of the edges: the strongest, and those of the tokens at the two ends. A flow through some edges
is a flow through all, and any cut through all edges bounds it from above. So where both are equal, the flow is the
largest of the whole graph; where they are not, the edges across the cut are added and the flow is sought again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous.errors import ConfigError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

CUTS = ("output", "input", "interior")
"""Names of the cuts, by their code: all that leaves the read-out, all that enters the token, or something between."""
OUTPUT, INPUT, INTERIOR = range(3)

STRONGEST = 8
"""Edges of each row and of each column of a layer that the solver sees from the start."""


@dataclass(frozen=True)
class Network:
    """The edges that a solver sees, sorted by their tails.

    Attributes:
        tails: (edges,) node that an edge leaves.
        heads: (edges,) node that it enters.
        units: (edges,) whole units that it can carry.
        nodes: how many; the last but one is the source, the last is the sink.
    """

    tails: Integers
    heads: Integers
    units: Integers
    nodes: int


@dataclass(frozen=True)
class Solver:
    """A way to find the largest flow in whole units.

    Attributes:
        module: that it needs.
        largest: units of the largest flow and of the largest capacity that it can handle.
        solve: finds the largest flow, and for each node whether it is on the source's side of a smallest cut: (nodes,).
    """

    module: str
    largest: int
    solve: Callable[[Network], tuple[int, NDArray[np.bool_]]]


@dataclass(frozen=True)
class LargestFlow:
    """The largest flow into one token.

    Attributes:
        flow: capacity of a cut: no flow is larger.
        gap: a flow was found that is smaller by no more than this.
        cut: its code, an index into `CUTS`.
        by_layer: (layers,) what part of the capacity each layer has.
    """

    flow: float
    gap: float
    cut: int
    by_layer: Floats


@dataclass(frozen=True, eq=False)
class LayeredGraph:
    """Capacities of all edges of one image.

    Attributes:
        capacities: (layers, tokens, tokens), from an output token to an input token of each layer; rows sum to 1.
        weights: (tokens,) read-out weights, which sum to 1.
    """

    capacities: Floats
    weights: Floats

    def into(self, sink: int, solver: Solver) -> LargestFlow:
        """The largest flow from the read-out into one token of the input, and what proves it.

        An end is named before an interior cut that is narrower by less than the solver's units can tell; which of the
        two ends, where both have 1, is left to rounding.

        Args:
            sink: index of the token.
            solver: sees as many edges as it takes, one call after another.
        """
        layers, tokens, _ = self.capacities.shape
        column = self.capacities[0, :, sink]
        bound = min(1.0, float(column.sum()))
        unit = bound / solver.largest
        if unit == 0:
            return self._at_an_end(bound, 0.0)
        rounding = tokens * unit  # each edge of the column has lost less than a unit
        seen = self._seen_first.copy()
        seen[sink::tokens] = True  # all edges into the token's own place, in every layer
        while True:
            units, on_source_side = solver.solve(self._network(np.flatnonzero(seen), column, bound, unit))
            found = units * unit
            if found >= bound - rounding:
                return self._at_an_end(bound, found)
            side = on_source_side[:-2].reshape(layers, tokens)
            across = np.flatnonzero(side[1:, :, None] & ~side[:-1, None])
            unseen = across[~seen[across]]
            if self._inner[unseen].sum() <= rounding:
                by_layer = self._cut_by_layer(side, across, column)
                capacity = float(by_layer.sum())
                if capacity >= bound - rounding:
                    return self._at_an_end(bound, found)
                return LargestFlow(capacity, max(0.0, capacity - found), INTERIOR, by_layer)
            seen[unseen] = True

    def _at_an_end(self, bound: float, found: float) -> LargestFlow:
        by_layer = np.zeros(len(self.capacities))
        by_layer[-1 if bound == 1 else 0] = bound
        return LargestFlow(bound, max(0.0, bound - found), OUTPUT if bound == 1 else INPUT, by_layer)

    def _cut_by_layer(self, side: NDArray[np.bool_], across: Integers, column: Floats) -> Floats:
        """Capacity that a cut has in each layer, in the whole graph: (layers,); the read-out's counts to the last."""
        layers, tokens = side.shape
        by_layer: Floats = np.zeros(layers)
        np.add.at(by_layer, across // tokens**2 + 1, self._inner[across])
        by_layer[0] += column[side[0]].sum()
        by_layer[-1] += self.weights[~side[-1]].sum()
        return by_layer

    def _network(self, edges: Integers, column: Floats, bound: float, unit: float) -> Network:
        layers, tokens, _ = self.capacities.shape
        source, sink = layers * tokens, layers * tokens + 1
        inputs = edges // tokens**2 * tokens + edges % tokens  # of layer l: output tokens of layer l - 1
        read = np.flatnonzero(self.weights)
        capacities = np.concatenate([column, self._inner[edges], self.weights[read]])
        return Network(
            tails=np.concatenate([np.arange(tokens), edges // tokens + tokens, np.full(len(read), source)]),
            heads=np.concatenate([np.full(tokens, sink), inputs, read + (layers - 1) * tokens]),
            units=(np.minimum(capacities, bound) / unit).astype(np.int64),  # rounded down
            nodes=layers * tokens + 2,
        )

    @cached_property
    def _inner(self) -> Floats:
        """Capacities of all layers but the first, in one row; edges are places in it."""
        return self.capacities[1:].reshape(-1)

    @cached_property
    def _seen_first(self) -> NDArray[np.bool_]:
        """Edges that are seen from the start, whatever the sink: strong ones, and all of a single read-out token."""
        seen = np.zeros_like(self.capacities[1:], dtype=bool)  # (layers - 1, tokens, tokens)
        few = min(STRONGEST, len(self.weights))
        for layer, marks in zip(self.capacities[1:], seen, strict=True):
            np.put_along_axis(marks, np.argpartition(layer, -few, axis=1)[:, -few:], True, axis=1)
            np.put_along_axis(marks, np.argpartition(layer, -few, axis=0)[-few:], True, axis=0)
        if np.count_nonzero(self.weights) == 1:
            seen[:, self.weights.argmax()] = True
        return seen.reshape(-1)


def best_solver() -> Solver:
    """OR-tools where it is installed, else scipy.

    Raises:
        ConfigError: if neither is installed.
    """
    for solver in (OR_TOOLS, SCIPY):
        try:
            import_module(solver.module)
            return solver
        except ImportError:
            continue
    raise ConfigError("attention flow needs scipy, which is not installed: pip install 'vitreous[flow]'")


def _solve_with_scipy(network: Network) -> tuple[int, NDArray[np.bool_]]:
    csgraph, sparse = import_module(SCIPY.module), import_module("scipy.sparse")
    starts = np.searchsorted(network.tails, np.arange(network.nodes + 1))  # of the rows of a compressed matrix
    entries = (part.astype(np.int32) for part in (network.units, network.heads, starts))
    graph = sparse.csr_array(tuple(entries), shape=(network.nodes, network.nodes))
    solved = csgraph.maximum_flow(graph, network.nodes - 2, network.nodes - 1, method="dinic")
    spare = graph - solved.flow
    spare.eliminate_zeros()
    reached = np.zeros(network.nodes, bool)
    reached[csgraph.breadth_first_order(spare, network.nodes - 2, return_predecessors=False)] = True
    return int(solved.flow_value), reached


def _solve_with_or_tools(network: Network) -> tuple[int, NDArray[np.bool_]]:
    solver: Any = import_module(OR_TOOLS.module).SimpleMaxFlow()
    solver.add_arcs_with_capacity(network.tails, network.heads, network.units)
    status = solver.solve(network.nodes - 2, network.nodes - 1)
    assert status == solver.OPTIMAL, status
    reached = np.zeros(network.nodes, bool)
    reached[solver.get_source_side_min_cut()] = True
    return int(solver.optimal_flow()), reached


SCIPY = Solver("scipy.sparse.csgraph", 2**31 - 1, _solve_with_scipy)
"""Dinic's algorithm (1970), in 32-bit integers."""

OR_TOOLS = Solver("ortools.graph.python.max_flow", 2**50, _solve_with_or_tools)
"""Push-relabel (Goldberg & Tarjan 1988), in 64-bit integers; float64 has no more than 53 bits to give."""
