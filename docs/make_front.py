"""Draws docs/images/front.png, the README's figure, from an inspection.

make demo
.venv/bin/vitreous inspect demo/run/model digits --out demo/report.html --save demo/inspection.safetensors
.venv/bin/python docs/make_front.py demo/inspection.safetensors
"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.figure import Figure

from vitreous.figures import draw_attention_distance, draw_class_attention, draw_position_similarity, draw_rollout
from vitreous.inspection import Inspection
from vitreous.measures.distance import uniform_distance

OUT = Path(__file__).parent / "images" / "front.png"
IMAGES = 4


def main() -> None:
    """Draws and saves."""
    inspection = Inspection.load(sys.argv[1])
    layout = inspection.layout
    figure = Figure(figsize=(13, 6.6), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1, 2.1])
    pairs = list(above.subplots(1, 2 * IMAGES).flat)
    draw_rollout(
        inspection.thumbnails[:IMAGES],
        inspection.rollout[:IMAGES],
        [f"image {name}" for name in inspection.image_names[:IMAGES]],
        inspection.predictions[:IMAGES],
        axes=pairs,
    )
    distance, positions, heads = below.subplots(1, 3, width_ratios=[1.1, 1, 1])
    draw_attention_distance({"": inspection.attention_distance}, uniform=uniform_distance(layout), axes=[distance])
    draw_position_similarity(inspection.position_similarity, axes=positions)
    draw_class_attention(inspection.class_attention[0], axes=heads)
    for axes, title in (
        (pairs[0], "input | attention rollout"),
        (distance, "how far each head looks"),
        (positions, "similarity of position embeddings"),
        (heads, "the class token's attention, first image"),
    ):
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    figure.savefig(OUT, dpi=110, facecolor="white")


if __name__ == "__main__":
    main()
