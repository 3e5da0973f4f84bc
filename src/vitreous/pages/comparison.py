"""Several models, or a run's checkpoints, side by side as one HTML file.

The words are in `comparison.html`, block by block; here the numbers are put in. `compared` makes them comparable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vitreous import figures
from vitreous.compared import Compared, Measured, compare
from vitreous.figures.canvas import blank
from vitreous.figures.comparison import CHECKPOINTS, draw_measured
from vitreous.figures.depth import Quantity, draw_by_depth
from vitreous.figures.inline import data_uri, escaped, inline_svg, isolated
from vitreous.figures.rollout import enlarge, mask_image
from vitreous.inspection import Inspection
from vitreous.measures.distance import depth_trend
from vitreous.pages.page import absent, facts_table, fill, proportions, reason, whole_page, write_page

_PANEL = 3.3  # inches, the width of a figure among several
_ALIKE = "All were shown the same images, by their names, in one size and grid: every number can be compared."
_IMAGES_IN_FILM = 3
_FRAME_SECONDS = 0.8
_HELD = 3  # frames that the last one lasts


def write_comparison(inspections: Sequence[Inspection], path: str | Path, *, title: str | None = None) -> Path:
    """The place of the comparison, one self-contained HTML file, written whole or not at all.

    Args:
        inspections: 2 to 12, best of the same images; or of any number of one run's checkpoints, whose page also has
            an animation over training.
        path: where to; missing folders are made.
        title: the headline; the models' names where it is None.

    Raises:
        ConfigError: if there are fewer than 2 inspections, or more than 12 that are not checkpoints of one run.
        OutputError: if the file cannot be written.
    """
    return write_page(comparison_html(inspections, title=title), path)


def comparison_html(inspections: Sequence[Inspection], *, title: str | None = None) -> str:
    """The comparison as text: no script, nothing to load, every string from outside escaped.

    A measure that a model lacks has its place and the reason, and no figure.

    Args:
        inspections: as `write_comparison` takes them.
        title: the headline; the models' names where it is None.

    Raises:
        ConfigError: if there are fewer than 2 inspections, or more than 12 that are not checkpoints of one run.
    """
    compared = compare(inspections)
    few = compared.chosen(CHECKPOINTS) if compared.epochs else compared
    sections = {"training": ("Over training", _training(compared))} if compared.epochs else {}
    sections |= {
        "models": ("What is compared", _models(few)),
        "where": ("Where they look", _where(few)),
        "distance": ("How far their heads look", _distance(compared, few)),
        "entropy": ("How widely they look", _measure(compared, compared.entropy(), "entropy")),
        "mass": ("Attention that leaves the image", _mass(compared)),
        "positions": ("What they know of positions", fill("comparison", "positions") + _panels(few, _position)),
        "filters": ("What their first layers look for", fill("comparison", "filters") + _panels(few, _filter)),
        "provenance": ("Where the numbers come from", _provenance(few)),
        "citing": ("How to cite", fill("page", "citing")),
    }
    style = _film_style(len(compared.epochs)) if compared.epochs else ""
    return whole_page(title or _title(compared), _lede(compared), _facts(compared), sections, style)


def _title(compared: Compared) -> str:
    names = list(compared.inspections)
    if compared.epochs:
        return f"Over training, {names[0]} to {names[-1]}"
    return " and ".join(names) if len(names) == 2 else f"{len(names)} models side by side"


def _lede(compared: Compared) -> str:
    if compared.epochs:
        words = "One model while it was trained: where it looks, how far and how widely its heads look"
    else:
        words = f"{len(compared.inspections)} models: where they look, how far and how widely their heads look"
    return f"{words}. Attention is not explanation: each figure says what it shows and what not."


def _facts(compared: Compared) -> list[tuple[str, str, str]]:
    counts = sorted({inspection.images for inspection in compared.inspections.values()})
    kind = "Checkpoints" if compared.epochs else "Models"
    return [
        (kind, str(len(compared.inspections)), ""),
        ("Images", " to ".join(map(str, (counts[0], counts[-1])[: len(counts)])), f"{len(compared.images)} shown"),
        ("Distances in", compared.distance().unit, "" if compared.is_same_size else "of each model's image"),
        ("Entropies in", compared.entropy().unit, ""),
    ]


def _models(compared: Compared) -> str:
    distance, entropy, mass = compared.distance(), compared.entropy(), compared.prefix_mass()
    columns = {}
    for name, inspection in compared.inspections.items():
        layout = inspection.layout
        layers, heads = inspection.attention_distance.shape
        trend = depth_trend(distance.values[name])
        parameters = inspection.provenance.get("parameters")
        locality = inspection.position_structure.get("locality")
        columns[name] = {
            "Layers × heads": f"{layers} × {heads}",
            "Image (px)": f"{layout.image_height} × {layout.image_width}",
            "Patches": f"{layout.rows} × {layout.columns}",
            "Patch (px)": f"{layout.patch_height} × {layout.patch_width}",
            "Tokens": f"{layout.tokens}",
            "Prefix tokens": f"{layout.prefix}",
            "Parameters": f"{parameters:,}" if isinstance(parameters, int) else "not recorded",
            "Images averaged over": f"{inspection.images}",
            "Distance, first": distance.written(trend["first_layer_mean"]),
            "Distance, last": distance.written(trend["last_layer_mean"]),
            "Distance, change a layer": distance.change(trend["mean_per_layer"]),
            "Distance, spread evenly": distance.written(distance.uniform[name]),
            "Spread of distance, first": distance.written(trend["first_layer_spread"]),
            "Spread of distance, last": distance.written(trend["last_layer_spread"]),
            **_ends("Entropy", entropy, name),
            **_ends("Prefix mass", mass, name),
            "Locality of positions": "–" if locality is None else f"{round(locality, 2) + 0.0:.2f}",
        }
    names = "\n".join(f'<th scope="col">{isolated(name, 80)}</th>' for name in columns)
    rows = "\n".join(
        f'<tr><th scope="row">{measure}</th>'
        f"{''.join(f'<td>{column[measure]}</td>' for column in columns.values())}</tr>"
        for measure in next(iter(columns.values()))
    )
    caveats = compared.caveats()
    return fill(
        "comparison",
        "models",
        names=names,
        rows=rows,
        heading="What to keep in mind" if caveats else "All alike",
        caveats="".join(f"<p>{caveat}</p>" for caveat in caveats or [_ALIKE]),
    )


def _ends(words: str, measured: Measured, name: str) -> dict[str, str]:
    """Means over heads of the first and the last layer; dashes for a model that was not measured."""
    means = measured.values[name].mean(1) if name in measured.values else None
    return {
        f"{words}, {end}": "–" if means is None else measured.written(float(means[layer]))
        for end, layer in (("first", 0), ("last", -1))
    }


def _training(compared: Compared) -> str:
    distance, shown = compared.distance(), compared.shown()
    inputs = ['<input type="radio" name="frame" id="frame-all" checked aria-label="All epochs, one after the other">']
    labels = ['<label for="frame-all">play</label>']
    frames = []
    for index, (epoch, (name, inspection)) in enumerate(
        zip(compared.epochs, compared.inspections.items(), strict=True)
    ):
        inputs.append(f'<input type="radio" name="frame" id="frame-{index}" aria-label="Epoch {epoch}">')
        labels.append(f'<label for="frame-{index}">{epoch}</label>')
        panels = _distance_panel(distance, name, f"film{index}distance")
        if inspection.position_similarity is not None:
            panels += _position(inspection, name, f"film{index}position")
        stills = "".join(
            _picture(enlarge(thumbnail), thumbnail, f"The input {image}", "input", 160)
            + _picture(mask_image(thumbnail, rollout), thumbnail, f"Rollout of {image}, {name}", name, 160)
            for image, thumbnail, rollout in list(zip(compared.images, *shown[name], strict=True))[:_IMAGES_IN_FILM]
        )
        frames.append(f'<div><div class="panels">\n{panels}\n</div>\n<div class="stills">\n{stills}\n</div></div>')
    return fill("comparison", "training", inputs="\n".join(inputs), labels="\n".join(labels), frames="\n".join(frames))


def _film_style(frames: int) -> str:
    """The rules that show one frame at a time: all in turn, or the one whose button was chosen."""
    length = frames - 1 + _HELD
    rules = [f".film>*{{animation-duration:{length * _FRAME_SECONDS:.1f}s}}"]
    for index in range(frames):
        begin, end = index / length, (index + 1) / length if index < frames - 1 else 1
        button, frame = f"#frame-{index}", f".film>:nth-child({index + 1})"
        label = f".epochs>:nth-child({index + 2})"
        rules.append(
            f"@keyframes film{index}{{0%{{visibility:hidden}}{begin:.3%}{{visibility:visible}}"
            f"{end:.3%},100%{{visibility:hidden}}}}\n"
            f"#frame-all:checked~{frame}{{animation-name:film{index}}}\n"
            f"{button}:checked~{frame}{{visibility:visible}}\n"
            f"{button}:checked~{label}{{color:var(--paper);background:var(--accent)}}\n"
            f"{button}:focus-visible~{label}{{outline:2px solid var(--accent);outline-offset:2px}}"
        )
    return "\n".join(rules)


def _where(compared: Compared) -> str:
    if not compared.images:
        return absent("the models were not shown the same images")
    shown, first = compared.shown(), next(iter(compared.inspections.values()))
    rows = []
    for index, image in enumerate(compared.images):
        thumbnail = shown[next(iter(shown))][0][index]
        pictures = [_picture(enlarge(thumbnail), thumbnail, f"The input {image}", "input", 224)]
        for name, inspection in compared.inspections.items():
            thumbnail, rollout = (values[index] for values in shown[name])
            words = f"Rollout of {image}, {name}: the largest share is {float(rollout.max()):.1%}"
            likely = _likely(inspection, image)
            pictures.append(_picture(mask_image(thumbnail, rollout), thumbnail, words, name, 224, likely))
        body = "\n".join(pictures)
        rows.append(f'<div class="card"><h3>{isolated(image, 120)}</h3>\n<div class="stills">\n{body}\n</div></div>')
    others = len(first.thumbnails) - len(compared.images)
    left_out = (
        f"Images that were not shown to all models are left out: {others} of the first model's." if others else ""
    )
    return fill("comparison", "where", images="\n".join(rows), left_out=left_out)


def _likely(inspection: Inspection, image: str) -> str:
    """The most likely class of an image as HTML; empty where none is known."""
    predictions = inspection.predictions[inspection.image_names.index(image)] if inspection.predictions else ()
    return "".join(f"{isolated(name, 60)} · {share:.0%}" for name, share in predictions[:1])


def _distance(compared: Compared, few: Compared) -> str:
    distance = few.distance()
    panels = "\n".join(
        _distance_panel(distance, name, f"distance{index}") for index, name in enumerate(distance.values)
    )
    return _measure(compared, compared.distance(), "distance", panels=panels)


def _mass(compared: Compared) -> str:
    mass = compared.prefix_mass()
    if not mass.values:
        return absent("no model has tokens besides the patches")
    others = [isolated(name, 80) for name in compared.inspections if name not in mass.values]
    left_out = f"Left out, as they have no tokens besides the patches: {', '.join(others)}." if others else ""
    return _measure(compared, mass, "mass", left_out=left_out)


def _measure(compared: Compared, measured: Measured, block: str, **values: str) -> str:
    """The plot of one quantity of all models, with its words."""
    ends = "; ".join(f"{name} {' to '.join(_ends('', measured, name).values())}" for name in measured.values)
    heard = f"{measured.words}, mean over heads of the first and of the last layer: {ends}"
    if compared.epochs:
        kind = "A line is one layer's mean over heads, and epochs run from left to right."
    elif compared.is_same_depth:
        kind = "A line is a model's mean over heads, from the first layer to the last."
    else:
        kind = (
            "A line is a model's mean over heads. As the models differ in depth, it is drawn over relative depth: 0 is "
            "a model's first layer, 1 its last."
        )
    figure = inline_svg(draw_measured(compared, measured), block, heard)
    return fill("comparison", block, figure=figure, kind=kind, unit=measured.unit, **values)


def _panels(compared: Compared, make: Callable[[Inspection, str, str], str]) -> str:
    """One card a model."""
    cards = (
        make(inspection, name, f"{make.__name__[1:]}{index}")
        for index, (name, inspection) in enumerate(compared.inspections.items())
    )
    return '<div class="panels">\n' + "\n".join(cards) + "\n</div>"


def _distance_panel(distance: Measured, name: str, key: str) -> str:
    level = distance.uniform[name]
    quantity = Quantity(f"distance ({distance.unit})", level, f"spread evenly, {distance.written(level)}", distance.top)
    figure = draw_by_depth({"": distance.values[name]}, quantity, axes=[blank(_PANEL, 0.9 * _PANEL).add_subplot()])
    ends = " to ".join(_ends("", distance, name).values())
    return _card(name, inline_svg(figure, key, f"Attention distance of every head of {name}, by layer: {ends}"))


def _position(inspection: Inspection, name: str, key: str) -> str:
    if inspection.position_similarity is None:
        return _card(name, absent(reason(inspection, "position similarity")))
    figure = figures.draw_position_similarity(
        inspection.position_similarity, inspection.position_structure, width=_PANEL
    )
    return _card(name, inline_svg(figure, key, f"Cosine similarity of position embeddings of {name}"))


def _filter(inspection: Inspection, name: str, key: str) -> str:
    if inspection.filters is None or inspection.filters_variance is None:
        return _card(name, absent(reason(inspection, "filters")))
    figure = figures.draw_filters(inspection.filters, inspection.filters_variance, width=_PANEL)
    return _card(name, inline_svg(figure, key, f"Principal components of the patch embedding of {name}"))


def _card(name: str, body: str) -> str:
    return f'<figure class="card"><figcaption>{isolated(name, 80)}</figcaption>\n{body}</figure>'


def _picture(picture: NDArray[np.uint8], thumbnail: Tensor, alt: str, words: str, largest: int, more: str = "") -> str:
    """A picture with its words, and more of them as HTML."""
    below = isolated(words, 80) + (f"<br>{more}" if more else "")
    return (
        f'<figure><img src="{data_uri(picture, largest)}" alt="{escaped(alt)}"{proportions(thumbnail)}>'
        f"<figcaption>{below}</figcaption></figure>"
    )


def _provenance(compared: Compared) -> str:
    return "\n".join(
        fill("comparison", "provenance", name=isolated(name, 120), facts=facts_table(inspection.provenance))
        for name, inspection in compared.inspections.items()
    )
