"""Draws docs/images/cost.png, the README's plot of what looking inside costs, from benchmarks/results.

make bench
.venv/bin/python docs/make_cost.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "inspect_cost.json"
OUT = ROOT / "docs" / "images" / "cost.png"

NAMES = {
    "ours": ("vitreous", "#0072b2", "o"),
    "timm unfused": ("timm, fused attention off, hooks", "#d55e00", "s"),
    "transformers eager": ("transformers, eager, output_attentions", "#009e73", "D"),
}


def main() -> None:
    """Draws and saves."""
    rows = json.loads(RESULTS.read_text())
    figure = Figure(figsize=(11, 4), layout="constrained", facecolor="white")
    time, memory = figure.subplots(1, 2)
    draw(time, rows, "ratio")
    draw(memory, rows, "extra_mb")
    time.axhline(1, color="#586172", linewidth=0.8)
    time.set(yscale="log", ylabel="time, forward passes", yticks=[1, 1.5, 2, 3, 5, 8, 12])
    time.set_yticklabels(["1", "1.5", "2", "3", "5", "8", "12"])
    time.minorticks_off()
    memory.set(yscale="log", ylabel="memory on top of the forward pass, MB")
    memory.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    for axes, title in ((time, "Time: forward pass and looking inside"), (memory, "Extra memory")):
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    memory.legend(frameon=False, fontsize=9, loc="lower right")
    figure.supxlabel(
        "ViT-B/16, one image, float32, 2 CPU cores: distance, entropy and rollout", fontsize=9, color="#586172"
    )
    figure.savefig(OUT, dpi=110)


def draw(axes: Axes, rows: list[dict[str, Any]], value: str) -> None:
    """One line for each way of looking inside, over tokens."""
    for case, (name, colour, marker) in NAMES.items():
        points = sorted((row["tokens"], row[value]) for row in rows if row["case"] == case)
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=5, label=name)
        tokens, last = points[-1]
        if value == "ratio" or case != "transformers eager":  # its memory lies on timm's
            text = f"{last:.1f}×" if value == "ratio" else f"{last:,.0f} MB"
            axes.annotate(
                text, (tokens, last), (6, 0), textcoords="offset points", va="center", color=colour, fontsize=9
            )
    ticks = sorted({row["tokens"] for row in rows})
    axes.set(xscale="log", xlabel="tokens", xticks=ticks, xlim=(ticks[0] * 0.85, ticks[-1] * 2.1))
    axes.set_xticklabels([f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(axis="y", color="#d8dbe2", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
