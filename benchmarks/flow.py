"""What exact attention flow costs on a CPU: every patch of one image, ViT-B/16 at 224 pixels, 197 tokens.

    python benchmarks/flow.py                                   # every case: a table, and results/flow.json
    python benchmarks/flow.py --case "ours, scipy" sharp 12     # one case in this process, as JSON

The model is timm's vit_base_patch16_224 with random weights, on noise: no trained weights can be had here. "random" is
the model as it is, which looks at everything alike; "sharp" has queries and keys 10 times as large, so that most
heads look at one or two tokens. Each case runs in its own process with one thread; processor time counts, which is the
clock's on an idle machine, and the shortest of five rounds. The usual way gives the whole graph to a solver, once for
each patch: scipy's Dinic for 16 patches, evenly spread, whose mean time 196 times is the time of all; networkx for one
patch and one round. How far their flows are from ours is written down too.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from vitreous.capture.operator import AttentionOperator
from vitreous.capture.watch import watch_attention
from vitreous.checkpoints.optional import let_torchvision_import
from vitreous.measures.flow import attention_flow
from vitreous.measures.flow_solver import OR_TOOLS, SCIPY, Solver
from vitreous.tokens import TokenLayout

RESULTS = Path(__file__).parent / "results" / "flow.json"
LAYERS = {"12": slice(None), "last 4": slice(-4, None), "last 2": slice(-2, None)}
SHARPNESS = {"random": 1.0, "sharp": 10.0}
SAMPLE, ROUNDS = 16, 5
LIBRARIES = ("torch", "timm", "scipy", "networkx", "ortools", "numpy")

Row = dict[str, float | str | None]
Found = TypeVar("Found")
Case = Callable[[list[AttentionOperator], TokenLayout, slice], Row]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs=3, metavar=("NAME", "WEIGHTS", "LAYERS"))
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(*arguments.case)))
        return
    rows = []
    print(f"{'weights':8} {'layers':7} {'case':20} {'patches':>7} {'seconds':>8} {'all 196':>8} {'at an end':>9}")
    for weights in SHARPNESS:
        for layers in LAYERS:
            for name in CASES:
                command = [sys.executable, __file__, "--case", name, weights, layers]
                run = subprocess.run(command, capture_output=True, text=True)
                if run.returncode:
                    print(f"{weights:8} {layers:7} {name:20} failed: {run.stderr.strip().splitlines()[-1][:80]}")
                    continue
                row = json.loads(run.stdout.splitlines()[-1])
                rows.append(row)
                every, ends = (f"{row[key]:.2f}" if row.get(key) is not None else "" for key in ("all_s", "at_an_end"))
                print(f"{weights:8} {layers:7} {name:20} {row['patches']:7} {row['case_s']:8.2f} {every:>8} {ends:>9}")
    write_results(rows)


def write_results(rows: list[Row]) -> None:
    """Every row with the date, the machine and the versions."""
    machine = f"1 thread, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES if _has(name)}
    stamp = {"date": str(date.today()), "machine": machine, "versions": versions}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([{**row, **stamp} for row in rows], indent=1) + "\n")


def measure(name: str, weights: str, layers: str) -> Row:
    """One case on one image."""
    torch.set_num_threads(1)
    operators, layout = random_attention(SHARPNESS[weights])
    return {"case": name, "weights": weights, "layers": layers, **CASES[name](operators, layout, LAYERS[layers])}


def random_attention(sharpness: float) -> tuple[list[AttentionOperator], TokenLayout]:
    """One image's attention in timm's ViT-B/16 with random weights, queries and keys so many times as large."""
    let_torchvision_import()
    import timm

    torch.manual_seed(0)
    model = timm.create_model("vit_base_patch16_224").eval()
    with torch.no_grad(), watch_attention(model) as watched:
        for block in model.blocks:
            block.attn.qkv.weight[: 2 * model.embed_dim] *= sharpness
        model(torch.randn(1, 3, 224, 224))
    return watched.layers, watched.layout


def ours(solver: Solver) -> Case:
    """This package: maps, graph and every token."""

    def run(operators: list[AttentionOperator], layout: TokenLayout, layers: slice) -> Row:
        seconds, found = shortest(lambda: attention_flow(operators, layout, layers=layers, solver=solver))
        proof = {"at_an_end": float(found.at_an_end[0]), "largest_gap": float(found.gap.max())}
        return {"patches": layout.patches, "case_s": round(seconds, 3), "all_s": round(seconds, 3), **proof}

    return run


def scipy_whole_graph(operators: list[AttentionOperator], layout: TokenLayout, layers: slice) -> Row:
    """The usual way: the whole graph in 32-bit integers, given to Dinic once for each patch."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_flow

    capacities = textbook(operators[layers])
    depth, tokens, _ = capacities.shape
    rows = np.concatenate([np.zeros(tokens, int), np.arange(depth * tokens + 1) * tokens])  # layer 0 has no edges
    heads = np.tile(np.arange(tokens), (depth, tokens, 1)) + tokens * np.arange(depth)[:, None, None]
    units = (capacities.reshape(-1) * 2**30).astype(np.int32)
    nodes = (depth + 1) * tokens
    graph = csr_array((units, heads.reshape(-1).astype(np.int32), rows.astype(np.int32)), shape=(nodes, nodes))
    source = depth * tokens + class_token(layout)
    sinks = np.linspace(layout.prefix, tokens - 1, SAMPLE).astype(int)
    seconds, flows = shortest(
        lambda: [maximum_flow(graph, source, int(sink), method="dinic").flow_value / 2**30 for sink in sinks]
    )
    apart = np.abs(np.array(flows) - attention_flow(operators, layout, layers=layers).flow[0].numpy()[sinks]).max()
    every = seconds / SAMPLE * layout.patches
    return {"patches": SAMPLE, "case_s": round(seconds, 3), "all_s": round(every, 3), "from_ours": float(apart)}


def networkx_whole_graph(operators: list[AttentionOperator], layout: TokenLayout, layers: slice) -> Row:
    """One patch by networkx, with the algorithm that is its default."""
    import networkx

    capacities = textbook(operators[layers])
    graph = networkx.DiGraph()
    for (layer, i, j), capacity in np.ndenumerate(capacities):
        graph.add_edge((layer + 1, i), (layer, j), capacity=capacity)
    source, sink = (len(capacities), class_token(layout)), (0, layout.prefix)
    began = time.process_time()
    flow = networkx.maximum_flow_value(graph, source, sink)
    seconds = time.process_time() - began
    apart = abs(flow - float(attention_flow(operators, layout, layers=layers).flow[0, layout.prefix]))
    return {"patches": 1, "case_s": round(seconds, 3), "all_s": None, "from_ours": apart}


def shortest(step: Callable[[], Found]) -> tuple[float, Found]:
    """Processor seconds of the shortest round, and what it found."""
    times = []
    for _ in range(ROUNDS):
        began = time.process_time()
        found = step()
        times.append(time.process_time() - began)
    return min(times), found


def class_token(layout: TokenLayout) -> int:
    assert layout.class_token is not None
    return layout.class_token


def textbook(operators: list[AttentionOperator]) -> NDArray[np.float64]:
    """Capacities as the paper has them: (layers, tokens, tokens)."""
    maps = torch.stack([operator.dense().double().mean(1)[0] for operator in operators])
    mixed = maps + torch.eye(maps.shape[-1], dtype=torch.float64)
    return (mixed / mixed.sum(-1, keepdim=True)).numpy()


def _has(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


CASES: dict[str, Case] = {
    "ours, scipy": ours(SCIPY),
    "ours, OR-tools": ours(OR_TOOLS),
    "scipy, whole graph": scipy_whole_graph,
    "networkx, one patch": networkx_whole_graph,
}


if __name__ == "__main__":
    main()
