"""Every figure of an inspection as files: PDF for papers, PNG for slides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from vitreous.atomic import write_atomically
from vitreous.errors import ConfigError
from vitreous.figures.distance import draw_attention_distance
from vitreous.figures.entropy import draw_entropy
from vitreous.figures.filters import draw_filters
from vitreous.figures.flow import draw_flow
from vitreous.figures.heads import draw_class_attention
from vitreous.figures.mass import draw_prefix_mass
from vitreous.figures.rollout import draw_rollout
from vitreous.figures.similarity import draw_position_similarity
from vitreous.inspection import Inspection
from vitreous.measures.distance import uniform_distance

DOTS_PER_INCH = 200
KINDS = ("png", "pdf", "svg")
"""Kinds of file that one figure can be, by the end of its name."""


def write_figures(inspection: Inspection, folder: str | Path) -> list[Path]:
    """Writes each figure that the inspection has numbers for, as PDF and as PNG.

    Args:
        inspection: what to draw.
        folder: made if there is none; files of the same names are replaced.

    Returns:
        The files.

    Raises:
        OutputError: if a file cannot be written.
    """
    return write_each(_figures(inspection), Path(folder))


def write_each(figures: Iterable[tuple[str, Figure]], folder: Path) -> list[Path]:
    """Writes named figures as PDF and as PNG, each file whole or not at all; returns the files."""
    written = []
    for name, figure in figures:
        for kind in ("pdf", "png"):
            written.append(folder / f"{name}.{kind}")
            write_figure(figure, written[-1])
    return written


def write_figure(figure: Figure, path: Path) -> None:
    """Writes one figure, whole or not at all, as the kind of file that its name says.

    Raises:
        ConfigError: if the name does not end in .png, .pdf or .svg.
        OutputError: if the file cannot be written.
    """
    file = BytesIO()
    with rc_context({"pdf.fonttype": 42}):  # TrueType: journals refuse the default, Type 3
        figure.savefig(file, format=figure_kind(path), dpi=DOTS_PER_INCH)
    write_atomically(path, file.getvalue())


def figure_kind(path: Path) -> str:
    """What kind of file a figure becomes, by the end of its name; asked before the work, not after it.

    Raises:
        ConfigError: if the name does not end in .png, .pdf or .svg.
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind not in KINDS:
        raise ConfigError(f"{path.name} is no name for a figure; it ends in .{', .'.join(KINDS[:-1])} or .{KINDS[-1]}")
    return kind


def _figures(inspection: Inspection) -> Iterator[tuple[str, Figure]]:
    layout, model = inspection.layout, str(inspection.provenance.get("model", ""))
    shown = len(inspection.thumbnails)
    yield (
        "attention-rollout",
        draw_rollout(inspection.thumbnails, inspection.rollout, inspection.image_names, inspection.predictions),
    )
    if inspection.flow is not None and inspection.flow_cut is not None:
        pictures = (inspection.thumbnails, inspection.rollout, inspection.flow, inspection.flow_cut)
        yield "attention-flow", draw_flow(*pictures, inspection.image_names, inspection.predictions)
    spread = {model: inspection.attention_distance_spread} if inspection.images > 1 else None
    distances = {model: inspection.attention_distance}
    yield "attention-distance", draw_attention_distance(distances, spread=spread, uniform=uniform_distance(layout))
    yield "attention-entropy", draw_entropy({model: inspection.attention_entropy}, tokens=layout.tokens)
    if layout.prefix:
        share = layout.prefix / layout.tokens
        yield "prefix-mass", draw_prefix_mass({model: inspection.prefix_mass}, uniform=share)
    if inspection.position_similarity is not None:
        figure = draw_position_similarity(inspection.position_similarity, inspection.position_structure)
        yield "position-similarity", figure
    if inspection.filters is not None and inspection.filters_variance is not None:
        yield "embedding-filters", draw_filters(inspection.filters, inspection.filters_variance)
    for index in range(shown):
        figure = draw_class_attention(
            inspection.class_attention[index], inspection.thumbnails[index], name=inspection.image_names[index]
        )
        yield f"class-attention-{index}", figure
