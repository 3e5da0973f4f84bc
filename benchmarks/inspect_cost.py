"""What it costs to look inside ViT-B/16 on a CPU, beside the plain forward pass and beside the usual ways.

    python benchmarks/inspect_cost.py                     # every case: a table, and results/inspect_cost.json
    python benchmarks/inspect_cost.py --case ours 1025    # one case in this process, as JSON

The work: attention distance and entropy of every head and layer, and the rollout of the class token, for one image.
`python docs/make_cost.py` draws the results.
Each case runs in its own process, so that its peak memory is its own. Time is the ratio to the same model's plain
forward pass, the median of alternating rounds in one run; memory is what the case adds to that pass's peak. The usual
ways make all maps (timm with its fused kernel off and a hook on each dropout; transformers with
attn_implementation="eager") and put the textbook formulas on them.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
from torch import Tensor

from vitreous.checkpoints.optional import let_torchvision_import

RESULTS = Path(__file__).parent / "results" / "inspect_cost.json"
SIZES = {197: 224, 577: 384, 1025: 512, 4097: 1024, 16385: 2048}  # tokens: image size, patch 16
ROUNDS = {197: 21, 577: 11, 1025: 9, 4097: 3, 16385: 1}
PEERS_UP_TO = 4097  # tokens; beyond, maps of all layers would take 155 GB
DEPTH, WIDTH, HEADS = 12, 768, 12

Step = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs=2, metavar=("NAME", "TOKENS"))
    parser.add_argument("--tokens", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--only", nargs="+", default=list(CASES))
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(arguments.case[0], int(arguments.case[1]))))
        return
    rows = []
    print(f"{'tokens':>7}  {'case':26} {'plain ms':>9} {'case ms':>9} {'ratio':>6} {'extra MB':>9}")
    for tokens in arguments.tokens:
        for name in arguments.only:
            if tokens > PEERS_UP_TO and not name.startswith("ours"):
                continue
            command = [sys.executable, __file__, "--case", name, str(tokens)]
            run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode:
                print(f"{tokens:7}  {name:26} failed: {run.stderr.strip().splitlines()[-1][:90]}")
                continue
            row = json.loads(run.stdout.splitlines()[-1])
            rows.append(row)
            numbers = f"{row['plain_ms']:9.0f} {row['case_ms']:9.0f} {row['ratio']:6.2f} {row['extra_mb']:9.0f}"
            print(f"{tokens:7}  {name:26} {numbers}", flush=True)
    write_results(rows)


def write_results(rows: list[dict[str, float | str]]) -> None:
    """Puts rows in place of earlier ones of the same case and tokens; each keeps its own date and machine."""
    machine = f"{torch.get_num_threads()} cores, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    stamp = {"date": str(date.today()), "machine": machine, "torch": torch.__version__}
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    kept = {(row["tokens"], row["case"]): row for row in [*before, *({**row, **stamp} for row in rows)]}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([kept[key] for key in sorted(kept)], indent=1) + "\n")


def measure(name: str, tokens: int) -> dict[str, float | str]:
    """One case: alternating rounds of the plain pass and the case."""
    torch.manual_seed(0)
    images = torch.randn(1, 3, SIZES[tokens], SIZES[tokens])
    with torch.no_grad():
        plain, case = CASES[name](images)
        plain()
        before = _peak_mb()
        case()
        extra = _peak_mb() - before
        times: dict[Step, list[float]] = {plain: [], case: []}
        for _ in range(ROUNDS[tokens]):
            for step, taken in times.items():
                began = time.perf_counter()
                step()
                taken.append(time.perf_counter() - began)
    ratios = [c / p for p, c in zip(times[plain], times[case], strict=True)]
    return {
        "case": name,
        "tokens": tokens,
        "plain_ms": round(1000 * statistics.median(times[plain]), 1),
        "case_ms": round(1000 * statistics.median(times[case]), 1),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_from": round(min(ratios), 3),
        "ratio_to": round(max(ratios), 3),
        "extra_mb": round(extra, 1),
    }


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ours(images: Tensor, with_rollout: bool = True) -> tuple[Step, Step]:
    """This package on its own model, fused attention on."""
    from vitreous.capture.operator import AttentionOperator, RowStatistics
    from vitreous.capture.watch import watch_attention
    from vitreous.measures.heads import HEAD_MEASURES
    from vitreous.measures.moments import HeadMoments
    from vitreous.measures.rollout import attention_rollout
    from vitreous.model.presets import named_config
    from vitreous.model.vit import VisionTransformer
    from vitreous.tokens import TokenLayout

    model = VisionTransformer(named_config("B/16", image_size=tuple(images.shape[-2:]))).eval()

    def inspect() -> object:
        rows: list[RowStatistics] = []

        def take(layer: int, operator: AttentionOperator, layout: TokenLayout) -> None:
            rows.append(operator.statistics(layout.token_distances, layout.prefix))

        with watch_attention(model, on_attention=None if with_rollout else take) as watched:
            model(images)
        layout = watched.layout
        rollout = attention_rollout(watched.layers, layout) if with_rollout else None
        rows += [operator.statistics(layout.token_distances, layout.prefix) for operator in watched.layers]
        stacked = RowStatistics.stack(rows)
        for measure in HEAD_MEASURES.values():
            HeadMoments().update(measure.values(stacked, layout), measure.highest(layout))
        return rollout

    return lambda: model(images), inspect


def timm_unfused(images: Tensor) -> tuple[Step, Step]:
    """Timm with its fused kernel off, a hook on each attention dropout, and the textbook formulas."""
    let_torchvision_import()
    import timm

    model = timm.create_model("vit_base_patch16_224", img_size=tuple(images.shape[-2:])).eval()

    def inspect() -> object:
        maps: list[Tensor] = []
        hooks = [b.attn.attn_drop.register_forward_hook(lambda _m, _i, out: maps.append(out)) for b in model.blocks]
        for block in model.blocks:
            block.attn.fused_attn = False
        model(images)
        for block, hook in zip(model.blocks, hooks, strict=True):
            block.attn.fused_attn = True
            hook.remove()
        return textbook(maps, images)

    return lambda: model(images), inspect


def transformers_eager(images: Tensor) -> tuple[Step, Step]:
    """Transformers with attn_implementation="eager", output_attentions=True, and the textbook formulas."""
    let_torchvision_import()
    from transformers import ViTConfig, ViTForImageClassification

    model = ViTForImageClassification(ViTConfig(image_size=images.shape[-1])).eval()

    def inspect() -> object:
        model.set_attn_implementation("eager")
        maps = list(model(images, output_attentions=True).attentions)
        model.set_attn_implementation("sdpa")
        return textbook(maps, images)

    return lambda: model(images), inspect


def textbook(maps: list[Tensor], images: Tensor) -> object:
    """Distance, entropy and rollout as published snippets write them, on whole maps."""
    side = images.shape[-1] // 16
    places = torch.cartesian_prod(torch.arange(side), torch.arange(side)).float() * 16
    apart = torch.cdist(places, places)
    distance = [(one[:, :, 1:, 1:] * apart).sum(-1).mean((0, 2)) for one in maps]
    entropy = [-(one * (one + 1e-12).log2()).sum(-1).mean((0, 2)) for one in maps]
    rollout = torch.eye(maps[0].shape[-1])
    for one in maps:
        mixed = one.mean(1) + torch.eye(one.shape[-1])
        rollout = (mixed / mixed.sum(-1, keepdim=True)) @ rollout
    return distance, entropy, rollout[:, 0, 1:]


CASES: dict[str, Callable[[Tensor], tuple[Step, Step]]] = {
    "ours": ours,
    "ours without rollout": lambda images: ours(images, with_rollout=False),
    "timm unfused": timm_unfused,
    "transformers eager": transformers_eager,
}


if __name__ == "__main__":
    main()
