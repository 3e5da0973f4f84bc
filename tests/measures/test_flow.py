from __future__ import annotations

import importlib

import networkx
import numpy as np
import pytest
import torch
from torch import Tensor

from vitreous.capture.operator import AttentionOperator
from vitreous.errors import ConfigError, MemoryLimitError, NumericError, ShapeError
from vitreous.measures import flow_solver
from vitreous.measures.flow import Flow, attention_flow, columns_warning
from vitreous.measures.flow_solver import CUTS, INPUT, INTERIOR, OR_TOOLS, OUTPUT, SCIPY, LayeredGraph, Network, Solver
from vitreous.tokens import TokenLayout

LAYOUT = TokenLayout(1, 2, 3, 16, 16, 0)
SOLVERS = {"scipy": SCIPY, "or-tools": OR_TOOLS}


@pytest.fixture(params=SOLVERS)
def solver(request: pytest.FixtureRequest) -> Solver:
    if request.param == "or-tools":
        pytest.importorskip("ortools", reason="OR-tools is not installed: pip install ortools")
    return SOLVERS[request.param]


def layers(count: int, tokens: int = 7, batch: int = 1, sharpness: float = 2, heads: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [
        (sharpness * torch.randn(batch, heads, tokens, tokens, generator=generator)).softmax(-1) for _ in range(count)
    ]


def operators(attention: list[Tensor]) -> list[AttentionOperator]:
    return [AttentionOperator(weights=one) for one in attention]


def capacities(attention: list[Tensor], fuse, residual: float = 0.5, top_k: int | None = None) -> list[np.ndarray]:
    """Of one image, as the paper has them; written with loops."""
    made = []
    for layer in attention:
        fused = fuse(layer[0].double()).numpy().copy()
        for row in fused:
            if top_k is not None:
                row[np.argsort(row)[:-top_k]] = 0
            row /= row.sum()
        made.append(residual * np.eye(len(fused)) + (1 - residual) * fused)
    return made


def witness(edges: list[np.ndarray], weights: dict[int, float]) -> list[float]:
    """The same by networkx, in floats and with every edge."""
    depth, tokens = len(edges), len(edges[0])
    graph = networkx.DiGraph()
    for token, weight in weights.items():
        graph.add_edge("source", (depth, token), capacity=weight)
    for layer, matrix in enumerate(edges):
        for i in range(tokens):
            for j in range(tokens):
                graph.add_edge((layer + 1, i), (layer, j), capacity=matrix[i, j])
    return [networkx.maximum_flow_value(graph, "source", (0, j)) for j in range(tokens)]


def is_proved(found: Flow) -> bool:
    """Whether a flow and a cut agree for every token."""
    same = (found.cut_by_layer.sum(-1) - found.flow).abs().max() < 1e-12
    return bool(same and found.gap.min() >= 0 and found.gap.max() < 1e-6)


FUSIONS = {"mean": lambda a: a.mean(0), "max": lambda a: a.amax(0), "min": lambda a: a.amin(0), 2: lambda a: a[2]}


@pytest.mark.parametrize("heads", FUSIONS)
@pytest.mark.parametrize(("depth", "residual", "top_k"), [(1, 0.5, None), (2, 0.0, 3), (3, 0.5, 2), (5, 0.5, None)])
def test_flow_is_what_networkx_finds(heads, depth: int, residual: float, top_k: int | None, solver: Solver) -> None:
    attention = layers(depth)
    edges = capacities(attention, FUSIONS[heads], residual, top_k)
    for token, weights in ((0, {0: 1.0}), (4, {4: 1.0}), ("mean", dict.fromkeys(range(1, 7), 1 / 6))):
        found = attention_flow(
            operators(attention), LAYOUT, token=token, heads=heads, residual=residual, top_k=top_k, solver=solver
        )
        assert found.flow[0].tolist() == pytest.approx(witness(edges, weights), abs=1e-8)
        assert is_proved(found)


def test_a_range_of_layers_is_the_flow_through_these() -> None:
    attention = layers(5)
    found = attention_flow(operators(attention), LAYOUT, layers=slice(-3, -1))
    expected = witness(capacities(attention[2:4], FUSIONS["mean"]), {0: 1.0})
    assert found.layers == (2, 3)
    assert found.flow[0].tolist() == pytest.approx(expected, abs=1e-8)


def test_images_of_a_batch_do_not_mix() -> None:
    attention = layers(3, batch=2)
    both = attention_flow(operators(attention), LAYOUT)
    for image in range(2):
        alone = attention_flow([one.image(image) for one in operators(attention)], LAYOUT)
        torch.testing.assert_close(both.flow[image], alone.flow[0])
        assert torch.equal(both.cut[image], alone.cut[0])
    assert not torch.allclose(both.flow[0], both.flow[1])


def test_flow_through_queries_and_keys_is_the_flow_through_their_maps() -> None:
    made = [AttentionOperator(*torch.randn(2, 1, 3, 7, 4, generator=torch.Generator().manual_seed(i))) for i in (1, 2)]
    dense = [AttentionOperator(weights=one.dense()) for one in made]
    torch.testing.assert_close(attention_flow(made, LAYOUT).flow, attention_flow(dense, LAYOUT).flow)


def test_flow_follows_the_tokens_when_they_are_permuted() -> None:
    attention = layers(3)
    order = torch.tensor([0, 3, 1, 6, 2, 5, 4])
    permuted = [one[:, :, order][:, :, :, order] for one in attention]
    found, expected = attention_flow(operators(permuted), LAYOUT), attention_flow(operators(attention), LAYOUT)
    torch.testing.assert_close(found.flow, expected.flow[:, order], atol=1e-7, rtol=0)


@pytest.mark.parametrize(("depth", "other"), [(1, 1 / 14), (2, 1 / 2), (3, 1 - 1 / 14), (4, 1), (6, 1)])
def test_flow_through_uniform_attention_is_the_closed_form(depth: int, other: float) -> None:
    found = attention_flow(operators([torch.full((1, 2, 7, 7), 1 / 7)] * depth), LAYOUT, token=3)
    expected = torch.full((7,), other, dtype=torch.float64)
    expected[3] = 1 if depth > 1 else 1 / 2 + 1 / 14
    torch.testing.assert_close(found.flow[0], expected, atol=1e-7, rtol=0)


def test_tokens_that_look_only_at_themselves_keep_everything() -> None:
    found = attention_flow(operators([torch.eye(7).expand(1, 2, 7, 7)] * 3), LAYOUT, token=5)
    assert found.flow[0].tolist() == [0, 0, 0, 0, 0, 1, 0]


def test_a_token_that_nobody_looks_at_has_no_flow() -> None:
    blind = torch.full((1, 1, 7, 7), 1 / 6)
    blind[..., 2] = 0
    found = attention_flow(operators([blind] * 2), LAYOUT, residual=0)
    assert found.flow[0, 2] == 0 and CUTS[found.cut[0, 2]] == "input"
    assert found.flow[0, 1] == pytest.approx(1) and is_proved(found)


def test_the_cut_that_binds_is_named_with_its_layer() -> None:
    """Token 0 reads 1; token 1 stands between in layer 1 and lets 1/8 pass to token 2, which layer 0 keeps."""
    first = torch.eye(3)
    middle = torch.tensor([[1.0, 0, 0], [7 / 8, 0, 1 / 8], [1, 0, 0]])
    last = torch.tensor([[0.0, 1, 0], [1, 0, 0], [1, 0, 0]])
    layout = TokenLayout(1, 1, 2, 16, 16, 0)
    attention = operators([one.expand(1, 1, 3, 3) for one in (first, middle, last)])
    found = attention_flow(attention, layout, residual=0)
    assert found.flow[0].tolist() == pytest.approx([7 / 8, 0, 1 / 8])
    assert found.cut[0].tolist() == [INTERIOR, INTERIOR, INTERIOR]
    torch.testing.assert_close(found.cut_by_layer[0], torch.tensor([[0, 7 / 8, 0], [0, 0, 0], [0, 1 / 8, 0]]).double())
    assert float(found.at_an_end[0]) == 0


def test_the_ends_are_named_where_they_bind() -> None:
    """All look at token 1 for two thirds, so the column of token 1 carries all and that of token 2 a third of it."""
    attention = torch.tensor([1 / 6, 4 / 6, 1 / 6]).expand(1, 1, 3, 3)
    layout = TokenLayout(1, 1, 2, 16, 16, 0)
    found = attention_flow(operators([attention] * 8), layout, residual=0)
    assert found.flow[0].tolist() == pytest.approx([0.5, 1, 0.5])
    assert found.cut[0].tolist() == [INPUT, OUTPUT, INPUT]
    assert found.cut_by_layer[0, 1].tolist() == [0] * 7 + [1]
    assert found.cut_by_layer[0, 2].tolist() == pytest.approx([0.5] + [0] * 7)
    assert float(found.at_an_end[0]) == 1


@pytest.mark.parametrize("depth", [2, 3, 12])
@pytest.mark.parametrize("token", ["class", "mean"])
def test_a_few_edges_prove_the_flow_through_all(
    depth: int, token, solver: Solver, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = TokenLayout(1, 7, 7, 16, 16, 0)
    attention = operators(layers(depth, tokens=50, sharpness=4, heads=2))
    few = attention_flow(attention, layout, token=token, solver=solver)
    monkeypatch.setattr(flow_solver, "STRONGEST", 50)
    every = attention_flow(attention, layout, token=token, solver=solver)
    assert (few.flow - every.flow).abs().max() < 1e-6
    assert is_proved(few) and is_proved(every)


def test_the_solver_sees_few_edges_of_a_deep_model() -> None:
    seen = []

    def count(network: Network) -> tuple[int, np.ndarray]:
        seen.append(len(network.units))
        return SCIPY.solve(network)

    graph = LayeredGraph(np.stack(capacities(layers(12, tokens=50), FUSIONS["mean"])), np.eye(50)[0])
    graph.into(7, Solver("", SCIPY.largest, count))
    assert sum(seen) < 0.3 * 12 * 50**2


def test_a_solver_that_finds_too_little_is_found_out() -> None:
    def lazy(network: Network) -> tuple[int, np.ndarray]:
        units, side = SCIPY.solve(network)
        return units // 2, side

    graph = LayeredGraph(np.stack(capacities(layers(2), FUSIONS["mean"])), np.eye(7)[0])
    best, found = graph.into(4, SCIPY), graph.into(4, Solver("", SCIPY.largest, lazy))
    assert found.flow == pytest.approx(best.flow)
    assert found.gap == pytest.approx(best.flow / 2, abs=1e-6)


def test_a_coarse_solver_brackets_the_flow() -> None:
    for depth in (2, 3, 6):
        edges = capacities(layers(depth), FUSIONS["mean"])
        graph = LayeredGraph(np.stack(edges), np.eye(7)[0])
        for sink, flow in enumerate(witness(edges, {0: 1.0})):
            found = graph.into(sink, Solver("", 2**7, SCIPY.solve))
            assert 0 < found.gap < 0.2
            assert found.flow - found.gap - 1e-12 <= flow <= found.flow + 1e-12


def test_a_deep_model_is_the_first_layers_column_sums_and_says_so() -> None:
    attention = layers(12, tokens=50, sharpness=1)
    found = attention_flow(operators(attention), TokenLayout(1, 7, 7, 16, 16, 0))
    columns = capacities(attention[:1], FUSIONS["mean"])[0].sum(0).clip(max=1)
    assert found.flow[0].tolist() == pytest.approx(columns.tolist(), abs=1e-7)
    assert float(found.at_an_end[0]) == 1
    assert columns_warning(float(found.at_an_end[0])).startswith("100% of the patches have min(1, column sum")
    assert columns_warning(0.9) == ""


def test_or_tools_comes_first_and_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    absent: set[str] = set()

    def find(name: str) -> object:
        if name.split(".")[0] in absent:
            raise ModuleNotFoundError(name)
        return importlib

    monkeypatch.setattr(flow_solver, "import_module", find)
    assert flow_solver.best_solver() is OR_TOOLS
    absent.add("ortools")
    assert flow_solver.best_solver() is SCIPY
    absent.add("scipy")
    with pytest.raises(ConfigError, match=r"pip install 'vitreous\[flow\]'"):
        attention_flow(operators(layers(1)), LAYOUT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"residual": 1.0}, "residual is 1.0"),
        ({"heads": "median"}, "choose mean, max, min or the index"),
        ({"heads": 3}, "heads 0 to 2"),
        ({"heads": -1}, "heads 0 to 2"),
        ({"token": 7}, "tokens 0 to 6"),
        ({"top_k": 0}, "top_k is 0"),
        ({"layers": slice(2, 2)}, "leaves none of 2"),
    ],
)
def test_settings_that_do_not_exist_are_refused(arguments, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        attention_flow(operators(layers(2)), LAYOUT, **arguments)


def test_layers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="the layout has 7"):
        attention_flow(operators(layers(2, tokens=6)), LAYOUT)
    with pytest.raises(ShapeError, match="at least one layer"):
        attention_flow([], LAYOUT)
    with pytest.raises(NumericError, match="no attention left with heads='min'"):
        attention_flow(operators([torch.eye(7)[torch.stack([torch.arange(7), torch.arange(7).roll(1)])][None]]), LAYOUT,
                       heads="min")  # fmt: skip


def test_maps_that_would_not_fit_are_refused_with_both_numbers() -> None:
    queries = torch.zeros(1, 1, 4097, 1)
    layout = TokenLayout(1, 64, 64, 16, 16, 0)
    with pytest.raises(MemoryLimitError, match="1,537 MiB, the limit is 1,024 MiB"):
        attention_flow([AttentionOperator(queries, queries)] * 12, layout)
    with pytest.raises(MemoryLimitError, match="ask for fewer layers"):
        attention_flow(operators(layers(2)), LAYOUT, limit=2 * 7 * 7 * 8 - 1)
    assert attention_flow(operators(layers(2)), LAYOUT, limit=2 * 7 * 7 * 8).flow.shape == (1, 7)
