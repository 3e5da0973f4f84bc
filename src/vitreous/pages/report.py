"""An inspection as one HTML file.

The words are in `report.html`, block by block; here the numbers are put in. `page` has what all pages share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vitreous import figures
from vitreous.figures.flow import CUT_COLOURS, paint_cuts
from vitreous.figures.inline import data_uri, escaped, inline_svg, isolated
from vitreous.figures.rollout import enlarge, mask_image, paint_patches
from vitreous.inspection import Inspection
from vitreous.measures.distance import uniform_distance
from vitreous.measures.flow import columns_warning
from vitreous.measures.flow_solver import CUTS, INTERIOR
from vitreous.pages.page import absent, facts_table, fill, numbers, proportions, reason, whole_page, write_page
from vitreous.tokens import TokenLayout


def write_report(inspection: Inspection, path: str | Path, *, title: str | None = None) -> Path:
    """The place of the report, one self-contained HTML file, written whole or not at all.

    Args:
        inspection: what to show.
        path: where to; missing folders are made.
        title: the headline; the model's name where it is None.

    Raises:
        OutputError: if the file cannot be written.
    """
    return write_page(report_html(inspection, title=title), path)


def report_html(inspection: Inspection, *, title: str | None = None) -> str:
    """The report as text: no script, nothing to load, every string from outside escaped.

    A measure that the inspection lacks has its heading and the reason, and no figure.

    Args:
        inspection: what to show.
        title: the headline; the model's name where it is None.
    """
    made = dict(_SECTIONS)
    if inspection.flow is None:  # made only when asked for
        del made["flow"]
    sections = {name: (heading, make(inspection)) for name, (heading, make) in made.items()}
    return whole_page(title or _model_name(inspection), _lede(inspection), _facts(inspection), sections)


def _lede(inspection: Inspection) -> str:
    images = inspection.images
    return (
        "Where this model looks, how far each of its heads looks, and what its first layer knows, "
        f"watched on {images} image{'s' * (images != 1)}. Attention is not explanation: "
        "each figure says what it shows and what not."
    )


def _facts(inspection: Inspection) -> list[tuple[str, str, str]]:
    layout = inspection.layout
    layers, heads = inspection.attention_distance.shape
    shown = len(inspection.thumbnails)
    return [
        ("Images", str(inspection.images), f"{shown} shown"),
        ("Layers × heads", f"{layers} × {heads}", ""),
        (
            "Patches",
            f"{layout.rows} × {layout.columns}",
            f"of {layout.patch_height} × {layout.patch_width} pixels",
        ),
        ("Prefix tokens", str(layout.prefix), _prefix_words(layout)),
        ("Capture proof", *_proof(inspection)),
    ]


def _where(inspection: Inspection) -> str:
    shown = len(inspection.thumbnails)
    if not shown:
        return absent("no image was kept to be shown")
    images = "\n".join(_image(inspection, index) for index in range(shown))
    return fill("report", "where", images=images, readout=_readout(inspection.layout))


def _image(inspection: Inspection, index: int) -> str:
    """One row: input, attention as brightness, attention by patch, predictions."""
    name, rollout = inspection.image_names[index], inspection.rollout[index]
    thumbnail = inspection.thumbnails[index]
    peak = int(rollout.argmax())
    row, column = divmod(peak, inspection.layout.columns)
    share = f"the largest share, {float(rollout.max()):.1%}, at patch row {row}, column {column}"
    even = f"an even spread would give {1 / inspection.layout.patches:.1%}"
    pictures = [
        (enlarge(thumbnail), "input", f"The input {escaped(name)}", ""),
        (
            mask_image(thumbnail, rollout),
            "attention",
            f"Rollout of {escaped(name)} as brightness: {share}; {even}",
            "",
        ),
        (
            paint_patches(thumbnail, rollout),
            "patch by patch",
            f"Rollout by patch: {share}",
            ' class="patches"',
        ),
    ]
    predictions = inspection.predictions[index] if index < len(inspection.predictions) else ()
    listed = f'<ol class="classes">\n{_classes(predictions)}\n</ol>' if predictions else ""
    kind = "image" if predictions else "image alone"
    words = f'<div class="words"><h3>{isolated(name, 120)}</h3>\n{listed}</div>'
    return f'<div class="card {kind}">\n{_columns(pictures, thumbnail)}\n{words}\n</div>'


def _columns(pictures: Sequence[tuple[NDArray[np.uint8], str, str, str]], thumbnail: Tensor) -> str:
    """Pictures beside each other, each with a caption, a description and attributes, in an image's proportions."""
    return "\n".join(
        f'<figure><img{kind} src="{data_uri(picture)}" alt="{alt}"{proportions(thumbnail)}>'
        f"<figcaption>{words}</figcaption></figure>"
        for picture, words, alt, kind in pictures
    )


def _flow(inspection: Inspection) -> str:
    assert inspection.flow is not None and inspection.flow_cut is not None
    cuts = inspection.flow_cut
    images = "\n".join(
        _flow_image(inspection.image_names[index], inspection.thumbnails[index], inspection.flow[index], cuts[index])
        for index in range(len(cuts))
    )
    warning = columns_warning(float((cuts != INTERIOR).double().mean()))
    warned = f'<p class="note">{warning[:1].upper()}{warning[1:]}.</p>' if warning else ""
    keys = dict(zip(CUTS, CUT_COLOURS, strict=True))
    return fill("report", "flow", images=images, warning=warned, readout=_readout(inspection.layout), **keys)


def _flow_image(name: str, thumbnail: Tensor, flow: Tensor, cuts: Tensor) -> str:
    """One row: attention flow as brightness, by patch, and which cut limits it."""
    shares = {cut: float((cuts == code).double().mean()) for code, cut in enumerate(CUTS)}
    limits = "limited by " + ", ".join(f"{cut} {share:.0%}" for cut, share in shares.items() if share)
    least, most = float(flow.min()), float(flow.max())
    pictures = [
        (mask_image(thumbnail, flow), "flow", f"Flow of {escaped(name)} as brightness", ""),
        (paint_patches(thumbnail, flow), "patch by patch", "Flow by patch", ' class="patches"'),
        (paint_cuts(cuts), "limited by", limits.capitalize(), ' class="patches"'),
    ]
    listed = f"<p>flow {least:.2f} to {most:.2f}<br>{limits}</p>"
    words = f'<div class="words"><h3>{isolated(name, 120)}</h3>\n{listed}</div>'
    return f'<div class="card image">\n{_columns(pictures, thumbnail)}\n{words}\n</div>'


def _classes(predictions: Sequence[tuple[str, float]]) -> str:
    return "\n".join(
        f'<li><span>{isolated(name, 80)}</span><span>{share:.1%}</span><i style="--share:{share:.1%}"></i></li>'
        for name, share in predictions
    )


def _distance(inspection: Inspection) -> str:
    layout, uniform = inspection.layout, uniform_distance(inspection.layout)
    spread = {"": inspection.attention_distance_spread} if inspection.images > 1 else None
    paper = figures.draw_attention_distance({"": inspection.attention_distance}, spread=spread, uniform=uniform)
    rescaled = figures.draw_attention_distance({"": inspection.attention_distance_renormalized}, uniform=uniform)
    heard = _heard("Mean attention distance", inspection.attention_distance, "pixels")
    return fill(
        "report",
        "distance",
        figure=inline_svg(paper, "distance", heard),
        rescaled=inline_svg(
            rescaled, "rescaled", _heard("Rescaled", inspection.attention_distance_renormalized, "pixels")
        ),
        numbers=numbers(_trend(inspection)),
        prefix_words=_prefix_words(layout) or "tokens outside the grid",
    )


def _entropy(inspection: Inspection) -> str:
    figure = figures.draw_entropy({"": inspection.attention_entropy}, tokens=inspection.layout.tokens)
    heard = _heard("Attention entropy", inspection.attention_entropy, "bits")
    ends = numbers(_ends(inspection.attention_entropy, "bits", 2))
    return fill("report", "entropy", figure=inline_svg(figure, "entropy", heard), numbers=ends)


def _mass(inspection: Inspection) -> str:
    layout = inspection.layout
    if not layout.prefix:
        return absent("this model has no tokens besides the patches")
    figure = figures.draw_prefix_mass({"": inspection.prefix_mass}, uniform=layout.prefix / layout.tokens)
    heard = _heard("Share of attention on prefix tokens", inspection.prefix_mass, "of 1")
    ends = numbers(_ends(inspection.prefix_mass, "", 3))
    words = _prefix_words(layout)
    return fill("report", "mass", figure=inline_svg(figure, "mass", heard), numbers=ends, prefix_words=words)


def _heads(inspection: Inspection) -> str:
    sheets = [_sheet(inspection, index) for index in range(len(inspection.class_attention))]
    if not sheets:
        return absent("no image was kept to be shown")
    others = "\n".join(
        f'<details><summary><img src="{data_uri(enlarge(inspection.thumbnails[index], 48), 80)}" alt="">'
        f"{isolated(inspection.image_names[index])}</summary>\n{sheets[index]}\n</details>"
        for index in range(1, len(sheets))
    )
    return fill("report", "heads", first=sheets[0], others=others, readout=_readout(inspection.layout))


def _sheet(inspection: Inspection, index: int) -> str:
    name, maps = inspection.image_names[index], inspection.class_attention[index]
    layers, heads = maps.shape[:2]
    heard = f"Attention maps of {name}: {layers} layers from left to right, {heads} heads from top to bottom"
    sheet = inline_svg(figures.draw_class_attention(maps), f"heads{index}", heard)
    thumbnail = inspection.thumbnails[index]
    picture = f'<img src="{data_uri(enlarge(thumbnail, 48), 232)}" alt=""{proportions(thumbnail)}>'
    return f'<figure class="card sheet"><div>{picture}<p>{isolated(name)}</p></div>\n{sheet}</figure>'


def _positions(inspection: Inspection) -> str:
    if inspection.position_similarity is None:
        return absent(reason(inspection, "position similarity"))
    figure = figures.draw_position_similarity(inspection.position_similarity)
    values = {name.replace("_", " and "): f"{value:.2f}" for name, value in inspection.position_structure.items()}
    heard = "Cosine similarity of position embeddings; " + ", ".join(
        f"{name} {value}" for name, value in values.items()
    )
    return fill("report", "positions", figure=inline_svg(figure, "positions", heard), numbers=numbers(values))


def _filters(inspection: Inspection) -> str:
    if inspection.filters is None or inspection.filters_variance is None:
        return absent(reason(inspection, "filters"))
    figure = figures.draw_filters(inspection.filters, inspection.filters_variance)
    shares = inspection.filters_variance[:28]
    values = {
        "first component": f"{float(shares[0]):.1%}",
        f"first {len(shares)} together": f"{float(shares.sum()):.1%}",
    }
    heard = "Principal components of the patch embedding; " + ", ".join(
        f"{name} {value}" for name, value in values.items()
    )
    return fill("report", "filters", figure=inline_svg(figure, "filters", heard), numbers=numbers(values))


def _layers(inspection: Inspection) -> str:
    columns = (
        (inspection.attention_distance.mean(1), ".1f"),
        (inspection.attention_distance.amin(1), ".1f"),
        (inspection.attention_distance.amax(1), ".1f"),
        (inspection.attention_entropy.mean(1), ".2f"),
        (inspection.prefix_mass.mean(1), ".3f"),
    )
    rows = []
    for layer in range(len(inspection.attention_distance)):
        cells = "".join(f"<td>{float(column[layer]):{form}}</td>" for column, form in columns)
        rows.append(f'<tr><th scope="row">{layer}</th>{cells}</tr>')
    return fill("report", "layers", rows="\n".join(rows))


def _provenance(inspection: Inspection) -> str:
    facts = facts_table(inspection.provenance)
    images = "\n".join(f"<li>{isolated(name)}</li>" for name in inspection.image_names)
    return fill("report", "provenance", facts=facts, images=images, count=str(len(inspection.image_names)))


def _citing(_: Inspection) -> str:
    return fill("page", "citing")


_SECTIONS: Mapping[str, tuple[str, Callable[[Inspection], str]]] = {
    "where": ("Where it looks", _where),
    "flow": ("How much could reach the read-out", _flow),
    "distance": ("How far each head looks", _distance),
    "entropy": ("How widely each head looks", _entropy),
    "mass": ("Attention that leaves the image", _mass),
    "heads": ("Every head of every layer", _heads),
    "positions": ("What it knows of positions", _positions),
    "filters": ("What the first layer looks for", _filters),
    "layers": ("Layer by layer", _layers),
    "provenance": ("Where the numbers come from", _provenance),
    "citing": ("How to cite", _citing),
}


def _ends(values: Tensor, unit: str, digits: int) -> dict[str, str]:
    """Mean over the heads of the first layer and of the last."""
    means = values.mean(1)
    return {
        f"mean of layer {layer}": f"{float(means[layer]):.{digits}f} {unit}".strip()
        for layer in dict.fromkeys((0, len(means) - 1))
    }


def _trend(inspection: Inspection) -> dict[str, str]:
    """Distance in pixels and its spread over heads, and how both change from layer to layer."""
    return {
        name.replace("_per_layer", ", change a layer").replace("_", " "): (
            f"{round(value, 2) + 0.0:+.2f} px" if name.endswith("_per_layer") else f"{value:.1f} px"
        )
        for name, value in inspection.depth_trend.items()
    }


def _heard(what: str, values: Tensor, unit: str) -> str:
    ends = ", ".join(f"{name} {value}" for name, value in _ends(values, unit, 2).items())
    return f"{what} of {values.shape[1]} heads in {values.shape[0]} layers: {ends}"


def _model_name(inspection: Inspection) -> str:
    return str(inspection.provenance.get("model", "Vision Transformer"))


def _proof(inspection: Inspection) -> tuple[str, str]:
    error = inspection.provenance.get("largest_proof_error")
    return ("not recorded", "") if error is None else (f"{float(error):.1e}", "largest relative error")


def _prefix_words(layout: TokenLayout) -> str:
    if layout.prefix == 0:
        return ""
    if layout.class_token is None:
        return "registers" if layout.prefix > 1 else "a register"
    return "the class token" + {1: "", 2: " and one more"}.get(layout.prefix, f" and {layout.prefix - 1} more")


def _readout(layout: TokenLayout) -> str:
    return "the mean of the patches, which this model reads out," if layout.class_token is None else "the class token"
