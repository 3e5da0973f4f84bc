"""What it costs to look inside a ViT on an NVIDIA GPU, beside the plain forward pass and beside the usual way.

    python benchmarks/gpu_cost.py     # about five minutes: three tables, and results/gpu_cost.json

Errors: every sum that the kernels make, beside float64, as a part of its largest value; more than 1e-5 ends in
exit code 1. Kernels: one layer of ViT-B/16, beside the fused attention of the forward pass and beside the same sums
made by torch. Cost: distance, entropy and prefix mass of every head and layer, and the rollout of the class token, as
the ratio to the same model's plain forward pass (median of alternating rounds in one run), and the memory that the
case adds to that pass's peak. The usual way is transformers with attn_implementation="eager", output_attentions=True
and the textbook formulas on all maps. Weights and images are random: time does not depend on them.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.capture import blocked
from vitreous.capture.operator import AttentionOperator, RowStatistics
from vitreous.capture.watch import watch_attention
from vitreous.checkpoints.optional import let_torchvision_import
from vitreous.measures.heads import HEAD_MEASURES
from vitreous.measures.moments import HeadMoments
from vitreous.measures.rollout import attention_rollout
from vitreous.model.config import ViTConfig
from vitreous.model.presets import named_config
from vitreous.model.vit import VisionTransformer
from vitreous.tokens import TokenLayout

RESULTS = Path(__file__).parent / "results" / "gpu_cost.json"
SUMS = ("entropy", "cost", "prefix_mass", "rest_mass", "log_sum_exp", "pulled")
TOLERANCE = 1e-5
SECONDS = 540.0  # after this nothing new is begun

Step = Callable[[], object]
Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is measured, and where."""

    device: str = "cuda"
    dtype: torch.dtype = torch.bfloat16
    models: tuple[str, ...] = ("B/16", "L/16")
    batches: dict[int, int] = field(default_factory=lambda: {224: 64, 384: 32, 512: 16, 1024: 4})  # by image size
    heads: int = 12
    rounds: int = 11
    operators: tuple[tuple[TokenLayout, int, bool], ...] = (  # to compare with float64: layout, head_dim, biased
        (TokenLayout(1, 14, 14, 16, 16, 0), 64, False),
        (TokenLayout(5, 37, 29, 16, 8, 0), 80, True),
        (TokenLayout(0, 64, 64, 16, 16), 64, False),
        (TokenLayout(1, 3, 5, 16, 16, 0), 128, False),
    )


SMOKE = Plan(
    "cpu", models=("Ti/16",), batches={32: 2}, heads=2, rounds=1, operators=((TokenLayout(1, 3, 5, 16, 8, 0), 8, True),)
)
"""The same code on any machine, in seconds: for the tests."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="file for the results")
    parser.add_argument("--smoke", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.smoke and not torch.cuda.is_available():
        sys.exit("gpu_cost: there is no NVIDIA GPU here, so nothing was measured")
    plan = SMOKE if arguments.smoke else Plan()
    results: dict[str, Any] = {"date": str(date.today()), "machine": machine(plan), "versions": versions()}
    began = time.monotonic()
    with torch.no_grad():
        for part, row in rows(plan):
            results.setdefault(part, []).append(row)
            print("  ".join((part, *(f"{key} {value}" for key, value in row.items()))), flush=True)
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(results, indent=1) + "\n")
            if time.monotonic() - began > SECONDS:
                print("out of time: the rest is left out")
                break
    if any(row["error"] > TOLERANCE for row in results["errors"]):
        sys.exit(f"gpu_cost: a sum is further than {TOLERANCE} of its largest value from float64")


def rows(plan: Plan) -> Iterator[tuple[str, Row]]:
    """Every measurement, as (part, row)."""
    for part in (errors, kernel_times, costs):
        for row in part(plan):
            yield part.__name__, row


def machine(plan: Plan) -> str:
    return platform.processor() if plan.device == "cpu" else torch.cuda.get_device_name()


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "cuda": str(torch.version.cuda)}
    for name in ("vitreous", "torch", "triton", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def backend(plan: Plan) -> Any:
    """The kernels, or torch where there is no GPU to run them."""
    if plan.device == "cpu":
        return blocked
    from vitreous.capture import triton

    return triton


def drawn(plan: Plan, layout: TokenLayout, head_dim: int, dtype: torch.dtype, batch: int = 2) -> AttentionOperator:
    shape = (batch, layout.tokens, plan.heads, head_dim)
    q, k = (torch.randn(shape, device=plan.device).to(dtype).transpose(1, 2) for _ in range(2))
    return AttentionOperator(q, k, head_dim**-0.5)


def errors(plan: Plan) -> Iterator[Row]:
    """Largest error of each sum beside float64, as a part of the largest value."""
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for layout, head_dim, biased in plan.operators:
            operator = drawn(plan, layout, head_dim, dtype)
            if biased:
                bias = torch.randn(operator.shape[1:], device=plan.device)
                bias[..., layout.tokens // 2 :] = -torch.inf
                operator = AttentionOperator(operator.queries, operator.keys, operator.scale, bias)
            by_sum = compare(plan, operator, layout)
            worst = max(by_sum, key=lambda name: by_sum[name])
            yield {
                "dtype": str(dtype).removeprefix("torch."),
                "tokens": layout.tokens,
                "head_dim": head_dim,
                "biased": biased,
                "worst": worst,
                "error": float(f"{by_sum[worst]:.1e}"),
            }


def compare(plan: Plan, operator: AttentionOperator, layout: TokenLayout) -> dict[str, float]:
    assert operator.queries is not None and operator.keys is not None
    bias = None if operator.bias is None else operator.bias.double()
    exact = AttentionOperator(operator.queries.double(), operator.keys.double(), operator.scale, bias)
    weights = torch.rand(operator.shape[:3], device=plan.device)
    asked = (layout.token_distances, layout.prefix, weights)
    ours, theirs = backend(plan).statistics(operator, *asked), blocked.statistics(exact, *asked)
    found = {}
    for name in SUMS:
        expected = getattr(theirs, name)
        error = (getattr(ours, name).double() - expected).abs().max()
        found[name] = float(error / expected.abs().max().clamp_min(1e-300)) if bool(error.isfinite()) else float("inf")
    return found


def kernel_times(plan: Plan) -> Iterator[Row]:
    """Milliseconds for one layer: fused attention, and the sums by the kernels and by torch."""
    for dtype in (plan.dtype, torch.float32):
        for size, batch in plan.batches.items():
            layout = TokenLayout(1, size // 16, size // 16, 16, 16, 0)
            operator = drawn(plan, layout, 64, dtype, batch)
            assert operator.queries is not None and operator.keys is not None
            q, k, own = operator.queries, operator.keys, backend(plan)
            weights = torch.rand(batch, 1, layout.tokens, device=plan.device)
            asked = (layout.token_distances, layout.prefix)
            operator.__dict__["log_sum_exp"] = own.statistics(operator, *asked, None).log_sum_exp
            steps: dict[str, Step] = {
                "attention_ms": lambda q=q, k=k: F.scaled_dot_product_attention(q, k, k),
                "statistics_ms": lambda o=operator, own=own, a=asked: own.statistics(o, *a, None),
                "pull_ms": lambda o=operator, own=own, w=weights: own.pull(o, w),
                "torch_statistics_ms": lambda o=operator, a=asked: blocked.statistics(o, *a, None),
            }
            times = {
                name: round(1000 * statistics.median(alternating(plan, [step])[0]), 3) for name, step in steps.items()
            }
            yield {"dtype": str(dtype).removeprefix("torch."), "tokens": layout.tokens, "batch": batch, **times}


def costs(plan: Plan) -> Iterator[Row]:
    """Ratio to the plain forward pass and memory added to its peak, by model, image size and case."""
    for name in plan.models:
        for size, batch in plan.batches.items():
            for case, make in CASES.items():
                row: Row = {"model": name, "image": size, "batch": batch, "case": case}
                try:
                    row |= cost(plan, make, named_config(name, image_size=(size, size)), batch)
                except torch.OutOfMemoryError:
                    row["note"] = "out of memory"
                except ImportError as cause:
                    row["note"] = f"left out: {cause}"
                free(plan)
                yield row


def cost(plan: Plan, make: Callable[[Plan, ViTConfig], tuple[Any, Any]], config: ViTConfig, batch: int) -> Row:
    torch.manual_seed(0)
    images = torch.randn(batch, 3, *config.image_size).to(plan.device, plan.dtype)
    plain, inspect = make(plan, config)
    steps = [lambda: plain(images), lambda: inspect(images)]
    peaks = [peak_mb(plan, step) for step in steps]
    times = alternating(plan, steps)
    return {
        "plain_ms": round(1000 * statistics.median(times[0]), 2),
        "case_ms": round(1000 * statistics.median(times[1]), 2),
        "ratio": round(statistics.median(c / p for p, c in zip(*times, strict=True)), 3),
        "plain_mb": round(peaks[0]),
        "extra_mb": round(peaks[1] - peaks[0]),
    }


def ours(plan: Plan, config: ViTConfig) -> tuple[Any, Any]:
    """This package on its own model, fused attention on."""
    model = VisionTransformer(config).eval().to(plan.device, plan.dtype)

    def inspect(images: Tensor) -> Tensor:
        with watch_attention(model) as watched:
            model(images)
        layout = watched.layout
        rollout = attention_rollout(watched.layers, layout)
        rows = [layer.statistics(layout.token_distances, layout.prefix) for layer in watched.layers]
        stacked = RowStatistics.stack(rows)
        for measure in HEAD_MEASURES.values():
            HeadMoments().update(measure.values(stacked, layout), measure.highest(layout))
        return rollout

    return model, inspect


def transformers_eager(plan: Plan, config: ViTConfig) -> tuple[Any, Any]:
    """Transformers with attn_implementation="eager", output_attentions=True, and the textbook formulas."""
    let_torchvision_import()
    from transformers import ViTConfig as TheirConfig
    from transformers import ViTForImageClassification

    theirs = TheirConfig(
        image_size=config.image_size[0],
        hidden_size=config.width,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
        intermediate_size=config.mlp_width,
    )
    model = ViTForImageClassification(theirs).eval().to(plan.device, plan.dtype)

    def inspect(images: Tensor) -> object:
        model.set_attn_implementation("eager")
        try:
            return textbook(list(model(images, output_attentions=True).attentions), images)
        finally:
            model.set_attn_implementation("sdpa")

    return model, inspect


def textbook(maps: list[Tensor], images: Tensor) -> object:
    """Distance, entropy and rollout as published snippets write them, on whole maps."""
    side = images.shape[-1] // 16
    places = torch.cartesian_prod(torch.arange(side), torch.arange(side)).float() * 16
    apart = torch.cdist(places, places).to(maps[0])
    distance = [(one[:, :, 1:, 1:] * apart).sum(-1).mean((0, 2)) for one in maps]
    entropy = [-(one * (one + 1e-12).log2()).sum(-1).mean((0, 2)) for one in maps]
    unit = torch.eye(maps[0].shape[-1]).to(maps[0])
    rollout = unit
    for one in maps:
        mixed = one.mean(1) + unit
        rollout = (mixed / mixed.sum(-1, keepdim=True)) @ rollout
    return distance, entropy, rollout[:, 0, 1:]


CASES = {"ours": ours, "transformers eager": transformers_eager}


def alternating(plan: Plan, steps: list[Step]) -> list[list[float]]:
    """Seconds of each step in each round, after two rounds that do not count."""
    times: list[list[float]] = [[] for _ in steps]
    for counted in [False] * 2 + [True] * plan.rounds:
        for step, taken in zip(steps, times, strict=True):
            wait(plan)
            began = time.perf_counter()
            step()
            wait(plan)
            if counted:
                taken.append(time.perf_counter() - began)
    return times


def peak_mb(plan: Plan, step: Step) -> float:
    """Most memory held by tensors while a step runs; 0 without a GPU."""
    if plan.device == "cpu":
        step()
        return 0.0
    step()  # compiles kernels and fills caches
    torch.cuda.reset_peak_memory_stats()
    step()
    wait(plan)
    return torch.cuda.max_memory_allocated() / 2**20


def wait(plan: Plan) -> None:
    if plan.device != "cpu":
        torch.cuda.synchronize()


def free(plan: Plan) -> None:
    gc.collect()
    if plan.device != "cpu":
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
