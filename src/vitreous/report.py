"""An inspection as one HTML file that works from disk, on a phone, in the dark and on paper.

The words are in `report.html`, block by block, the looks in `report.css`; here the numbers are put in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from torch import Tensor

from vitreous import figures
from vitreous.atomic import write_atomically
from vitreous.errors import OutputError
from vitreous.figures.inline import data_uri, escaped, inline_svg, isolated
from vitreous.figures.rollout import enlarge, mask_image, paint_patches
from vitreous.inspection import Inspection
from vitreous.measures.distance import uniform_distance
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
    target = Path(path)
    if target.is_dir():
        raise OutputError(f"{target} is a folder, a file was to be written there; add a name such as report.html")
    write_atomically(target, report_html(inspection, title=title))
    return target


def report_html(inspection: Inspection, *, title: str | None = None) -> str:
    """The report as text: no script, nothing to load, every string from outside escaped.

    A measure that the inspection lacks has its heading and the reason, and no figure.

    Args:
        inspection: what to show.
        title: the headline; the model's name where it is None.
    """
    sections, contents = [], []
    for name, (heading, make) in _SECTIONS.items():
        sections.append(f'<section id="{name}">\n<h2>{heading}</h2>\n{make(inspection)}\n</section>')
        contents.append(f'<a href="#{name}">{heading}</a>')
    return _fill(
        "page",
        title=escaped(title or _model_name(inspection)),
        style=files("vitreous").joinpath("report.css").read_text("utf-8"),
        lede=_lede(inspection),
        strip=_strip(inspection),
        contents="\n".join(contents),
        sections="\n".join(sections),
    )


def _lede(inspection: Inspection) -> str:
    images = inspection.images
    return (
        "Where this model looks, how far each of its heads looks, and what its first layer knows, "
        f"watched on {images} image{'s' * (images != 1)}. Attention is not explanation: "
        "each figure says what it shows and what not."
    )


def _strip(inspection: Inspection) -> str:
    layout = inspection.layout
    layers, heads = inspection.attention_distance.shape
    shown = len(inspection.thumbnails)
    facts = [
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
    return "\n".join(
        f"<div><dt>{name}</dt><dd>{value}{f'<small>{more}</small>' if more else ''}</dd></div>"
        for name, value, more in facts
    )


def _where(inspection: Inspection) -> str:
    shown = len(inspection.thumbnails)
    if not shown:
        return _absent("no image was kept to be shown")
    images = "\n".join(_image(inspection, index) for index in range(shown))
    return _fill("where", images=images, readout=_readout(inspection.layout))


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
    columns = "\n".join(
        f'<figure><img{kind} src="{data_uri(picture)}" alt="{alt}"{_shape(thumbnail)}>'
        f"<figcaption>{words}</figcaption></figure>"
        for picture, words, alt, kind in pictures
    )
    predictions = inspection.predictions[index] if index < len(inspection.predictions) else ()
    listed = f'<ol class="classes">\n{_classes(predictions)}\n</ol>' if predictions else ""
    kind = "image" if predictions else "image alone"
    words = f'<div class="words"><h3>{isolated(name, 120)}</h3>\n{listed}</div>'
    return f'<div class="card {kind}">\n{columns}\n{words}\n</div>'


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
    return _fill(
        "distance",
        figure=inline_svg(paper, "distance", heard),
        rescaled=inline_svg(
            rescaled, "rescaled", _heard("Rescaled", inspection.attention_distance_renormalized, "pixels")
        ),
        numbers=_numbers(_trend(inspection)),
        prefix_words=_prefix_words(layout) or "tokens outside the grid",
    )


def _entropy(inspection: Inspection) -> str:
    figure = figures.draw_entropy({"": inspection.attention_entropy}, tokens=inspection.layout.tokens)
    heard = _heard("Attention entropy", inspection.attention_entropy, "bits")
    numbers = _numbers(_ends(inspection.attention_entropy, "bits", 2))
    return _fill("entropy", figure=inline_svg(figure, "entropy", heard), numbers=numbers)


def _mass(inspection: Inspection) -> str:
    layout = inspection.layout
    if not layout.prefix:
        return _absent("this model has no tokens besides the patches")
    figure = figures.draw_prefix_mass({"": inspection.prefix_mass}, uniform=layout.prefix / layout.tokens)
    heard = _heard("Share of attention on prefix tokens", inspection.prefix_mass, "of 1")
    numbers = _numbers(_ends(inspection.prefix_mass, "", 3))
    words = _prefix_words(layout)
    return _fill("mass", figure=inline_svg(figure, "mass", heard), numbers=numbers, prefix_words=words)


def _heads(inspection: Inspection) -> str:
    sheets = [_sheet(inspection, index) for index in range(len(inspection.class_attention))]
    if not sheets:
        return _absent("no image was kept to be shown")
    others = "\n".join(
        f'<details><summary><img src="{data_uri(enlarge(inspection.thumbnails[index], 48), 80)}" alt="">'
        f"{isolated(inspection.image_names[index])}</summary>\n{sheets[index]}\n</details>"
        for index in range(1, len(sheets))
    )
    return _fill("heads", first=sheets[0], others=others, readout=_readout(inspection.layout))


def _sheet(inspection: Inspection, index: int) -> str:
    name, maps = inspection.image_names[index], inspection.class_attention[index]
    layers, heads = maps.shape[:2]
    heard = f"Attention maps of {name}: {layers} layers from left to right, {heads} heads from top to bottom"
    sheet = inline_svg(figures.draw_class_attention(maps), f"heads{index}", heard)
    thumbnail = inspection.thumbnails[index]
    picture = f'<img src="{data_uri(enlarge(thumbnail, 48), 232)}" alt=""{_shape(thumbnail)}>'
    return f'<figure class="card sheet"><div>{picture}<p>{isolated(name)}</p></div>\n{sheet}</figure>'


def _positions(inspection: Inspection) -> str:
    if inspection.position_similarity is None:
        return _absent(_reason(inspection, "position similarity"))
    figure = figures.draw_position_similarity(inspection.position_similarity)
    values = {name.replace("_", " and "): f"{value:.2f}" for name, value in inspection.position_structure.items()}
    heard = "Cosine similarity of position embeddings; " + ", ".join(
        f"{name} {value}" for name, value in values.items()
    )
    return _fill("positions", figure=inline_svg(figure, "positions", heard), numbers=_numbers(values))


def _filters(inspection: Inspection) -> str:
    if inspection.filters is None or inspection.filters_variance is None:
        return _absent(_reason(inspection, "filters"))
    figure = figures.draw_filters(inspection.filters, inspection.filters_variance)
    shares = inspection.filters_variance[:28]
    values = {
        "first component": f"{float(shares[0]):.1%}",
        f"first {len(shares)} together": f"{float(shares.sum()):.1%}",
    }
    heard = "Principal components of the patch embedding; " + ", ".join(
        f"{name} {value}" for name, value in values.items()
    )
    return _fill("filters", figure=inline_svg(figure, "filters", heard), numbers=_numbers(values))


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
    return _fill("layers", rows="\n".join(rows))


def _provenance(inspection: Inspection) -> str:
    rows = "\n".join(
        f'<tr><th scope="row">{_words(name)}</th><td>{_value(value)}</td></tr>'
        for name, value in inspection.provenance.items()
    )
    images = "\n".join(f"<li>{isolated(name)}</li>" for name in inspection.image_names)
    return _fill("provenance", rows=rows, images=images, count=str(len(inspection.image_names)))


def _citing(_: Inspection) -> str:
    return _fill("citing")


_SECTIONS: Mapping[str, tuple[str, Callable[[Inspection], str]]] = {
    "where": ("Where it looks", _where),
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


def _fill(block: str, **values: str) -> str:
    return Template(_blocks()[block]).substitute(values)


@cache
def _blocks() -> dict[str, str]:
    """The blocks of `report.html` by name; a line `<!-- name -->` begins one."""
    parts = files("vitreous").joinpath("report.html").read_text("utf-8").split("<!-- ")[1:]
    return {name: body.strip() for name, body in (part.split(" -->", 1) for part in parts)}


def _numbers(values: Mapping[str, str]) -> str:
    if not values:
        return ""
    pairs = "\n".join(f"<dt>{escaped(name)}</dt><dd>{escaped(value)}</dd>" for name, value in values.items())
    return f'<dl class="numbers">\n{pairs}\n</dl>'


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


def _absent(reason: str) -> str:
    return f'<p class="absent">Left out: {reason}.</p>'


def _reason(inspection: Inspection, measure: str) -> str:
    """What the notes say of a measure that is not there: the note that begins with its name."""
    notes = (str(note) for note in inspection.provenance.get("notes", ()))
    found = (note.removeprefix(f"{measure}: ") for note in notes if note.startswith(f"{measure}: "))
    return escaped(next(found, "this model has none, or not in a form that was recognised"))


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


def _value(value: Any) -> str:
    """Anything that provenance may hold, as lists in lists."""
    if isinstance(value, Mapping):
        parts = [f"<span>{_words(name)}</span> {_value(part)}" for name, part in value.items()]
    elif isinstance(value, list | tuple) and all(isinstance(part, int | float) for part in value):
        return ", ".join(_value(part) for part in value)
    elif isinstance(value, list | tuple):
        parts = [_value(part) for part in value]
    else:
        return isolated(f"{value:.6g}" if isinstance(value, float) else str(value))
    return "<ul>" + "".join(f"<li>{part}</li>" for part in parts) + "</ul>"


def _words(name: object) -> str:
    return escaped(str(name).replace("_", " "))


def _shape(thumbnail: Tensor) -> str:
    return f' style="aspect-ratio:{thumbnail.shape[1]}/{thumbnail.shape[0]}"'
