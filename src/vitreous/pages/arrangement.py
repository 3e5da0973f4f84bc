"""What models make of the same parts in another place, as one HTML file.

The words are in `arrangement.html`, block by block; here the numbers are put in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from vitreous.arrangement.effects import sentence
from vitreous.arrangement.face_task import example_images
from vitreous.arrangement.result import Answers, Arrangement, Effect, Faces, FacesModel, ModelArrangement
from vitreous.figures.arrangement import draw_grid_shuffle, draw_occlusion, draw_positions
from vitreous.figures.faces import draw_faces_task
from vitreous.figures.inline import escaped, inline_svg, isolated
from vitreous.figures.places import draw_read_out, draw_translation
from vitreous.pages.page import absent, facts_table, fill, whole_page, write_page

_MINUS = "−"
_STYLE = """
.effects td:nth-child(-n+3), .effects th:nth-child(-n+3) { text-align: left; }
.effects td:nth-child(n+4), .faces td { white-space: nowrap; }
.split + .scroll, .scroll + p + .scroll { margin-top: 28px; }
.scroll + p { margin-top: 10px; }
"""


def write_arrangement(arrangement: Arrangement, path: str | Path, faces: Faces | None = None) -> Path:
    """The place of the report, one self-contained HTML file, written whole or not at all.

    Args:
        arrangement: what was measured.
        path: where to; missing folders are made.
        faces: the faces task; its section says that it was not run where it is None.

    Raises:
        OutputError: if the file cannot be written.
    """
    return write_page(arrangement_html(arrangement, faces), path)


def arrangement_html(arrangement: Arrangement, faces: Faces | None = None) -> str:
    """The report as text: no script, nothing to load, every string from outside escaped.

    What was not measured has its place and the reason, and no figure.

    Args:
        arrangement: what was measured.
        faces: the faces task; its section says that it was not run where it is None.
    """
    sections = {
        "shuffle": ("The same parts in another order", _shuffle(arrangement)),
        "read-out": ("Whether features say where they are", _read_out(arrangement)),
        "positions": ("Without its own positions", _positions(arrangement)),
        "translation": ("The whole image moved", _translation(arrangement)),
        "occlusion": ("Parts hidden", _occlusion(arrangement)),
        "faces": ("The lecture's faces", _faces(faces)),
        "effects": ("How large the effects are", _effects(arrangement)),
        "limits": ("What this does not say", _limits(arrangement)),
        "provenance": ("Where the numbers come from", _provenance(arrangement, faces)),
        "citing": ("What it builds on", fill("arrangement", "citing")),
    }
    lede = f"<bdi>{escaped(sentence(arrangement), 5000)}</bdi>"
    kicker = "What vision models make of arrangement"
    return whole_page("The same parts in another place", lede, _facts(arrangement), sections, _STYLE, kicker)


def _facts(arrangement: Arrangement) -> list[tuple[str, str, str]]:
    classes = len(arrangement.class_names)
    told = f"chance is {1 / classes:.1%}" if arrangement.has_labels and classes else "no labels: no accuracy"
    names = [isolated(model.name, 60) for model in arrangement.models]
    return [
        ("Models", str(len(names)), ", ".join(names)),
        ("Images", f"{arrangement.images:,}", isolated(arrangement.data, 80)),
        ("Classes", str(classes) if classes else "not known", told),
        ("Resamples for intervals", f"{arrangement.resamples:,}", f"seed {arrangement.seed}"),
    ]


def _shuffle(arrangement: Arrangement) -> str:
    def ends(model: ModelArrangement) -> str:
        return _range(arrangement, {f"k = {k}": answers for k, answers in sorted(model.shuffled.items())})

    heard = _heard(arrangement, ends, f"{_share(arrangement)} by grid")
    figure = inline_svg(draw_grid_shuffle(arrangement), "shuffle", heard)
    return fill("arrangement", "shuffle", figure=figure, right=_right(arrangement))


def _read_out(arrangement: Arrangement) -> str:
    if not any(model.read_out for model in arrangement.models):
        return absent("positions were not read out of any model; the notes say why")

    def ends(model: ModelArrangement) -> str:
        return ", ".join(f"{name} {values[0]:.2f} to {values[-1]:.2f}" for name, values in model.read_out.items())

    heard = _heard(arrangement, ends, "R squared of the position read-out, first layer to last")
    return fill("arrangement", "read_out", figure=inline_svg(draw_read_out(arrangement), "readout", heard))


def _positions(arrangement: Arrangement) -> str:
    if not any(model.positions for model in arrangement.models):
        return absent("no model has a table of position embeddings")

    def ends(model: ModelArrangement) -> str:
        return _range(arrangement, model.positions) if model.positions else "no table of positions"

    others = [isolated(model.name, 80) for model in arrangement.models if not model.positions]
    left_out = f"Without such a table, and so not drawn: {', '.join(others)}." if others else ""
    heard = _heard(arrangement, ends, f"{_share(arrangement)} by what was done to the position embeddings")
    figure = inline_svg(draw_positions(arrangement), "positions", heard)
    return fill("arrangement", "positions", figure=figure, left_out=left_out)


def _translation(arrangement: Arrangement) -> str:
    if not any(model.shifted for model in arrangement.models):
        return absent("no image was moved; the notes say why")

    def ends(model: ModelArrangement) -> str:
        return ", ".join(
            f"{pixels} px {100 * answers.agreement.value:.1f} %" for pixels, answers in sorted(model.shifted.items())
        )

    heard = _heard(arrangement, ends, "same answers by shift")
    return fill("arrangement", "translation", figure=inline_svg(draw_translation(arrangement), "translation", heard))


def _occlusion(arrangement: Arrangement) -> str:
    if not any(model.occluded for model in arrangement.models):
        return absent("no patches were hidden; the notes say why")

    def ends(model: ModelArrangement) -> str:
        return ", ".join(f"{order} {area.value:.2f}" for order, area in model.areas.items())

    heard = _heard(arrangement, ends, "area under the line by order of hiding")
    rollout = "no model here has attention" if arrangement.rollout_of is None else isolated(arrangement.rollout_of, 80)
    figure = inline_svg(draw_occlusion(arrangement), "occlusion", heard)
    return fill("arrangement", "occlusion", figure=figure, right=_right(arrangement), rollout=rollout)


def _right(arrangement: Arrangement) -> str:
    if arrangement.has_labels:
        return "Accuracy is the share of images whose true class is the most likely one."
    return "The images have no labels: in the place of accuracy stands the share of answers that stay the same."


def _share(arrangement: Arrangement) -> str:
    return "accuracy" if arrangement.has_labels else "share of unchanged answers"


def _heard(arrangement: Arrangement, ends: Callable[[ModelArrangement], str], words: str) -> str:
    """What is heard who cannot see a figure: the numbers of each model."""
    return f"{words}: " + "; ".join(f"{model.name}: {ends(model)}" for model in arrangement.models)


def _range(arrangement: Arrangement, answers: Mapping[str, Answers]) -> str:
    """Accuracies, or where there are no labels the shares of unchanged answers, by what was done."""
    shares = {name: one.accuracy if arrangement.has_labels else one.agreement for name, one in answers.items()}
    return ", ".join(f"{name} {100 * share.value:.1f} %" for name, share in shares.items() if share is not None)


def _faces(faces: Faces | None) -> str:
    if faces is None:
        return absent("the faces task was not run")
    tests = list(dict.fromkeys(kind for model in faces.models for kind in model.accuracies))
    seeds = f"{len(faces.seeds)} seeds" if len(faces.seeds) > 1 else "one seed"
    means = "; ".join(
        f"{model.name} {100 * model.interval(tests[0]).value:.1f} %"
        for model in faces.models
        if tests[0] in model.accuracies
    )
    heard = f"Examples with each model's answer; accuracy on {tests[0]}: {means}"
    figure = inline_svg(draw_faces_task(faces, example_images(faces)), "faces", heard)
    return fill(
        "arrangement",
        "faces",
        figure=figure,
        steps=f"{faces.steps:,}",
        batch=f"{faces.batch_size:,}",
        seen=_list(faces.kinds_seen),
        unseen=_list(faces.kinds_unseen),
        seeds=seeds,
        names="".join(f'<th scope="col">{isolated(kind, 60)}</th>' for kind in tests),
        rows="\n".join(_faces_row(model, tests) for model in faces.models),
    )


def _list(kinds: tuple[str, ...]) -> str:
    return ", ".join(isolated(kind, 60) for kind in kinds) or "none"


def _faces_row(model: FacesModel, tests: list[str]) -> str:
    seconds = f"{sum(model.seconds) / len(model.seconds):.0f}" if model.seconds else "–"
    cells = [f"{model.parameters:,}", str(model.sees), seconds]
    for kind in tests:
        if kind not in model.accuracies:
            cells.append("–")
            continue
        found = model.interval(kind)
        half = "" if found.high is None else f" ± {100 * (found.high - found.value):.1f}"
        cells.append(f"{100 * found.value:.1f}{half}")
    return _row(isolated(model.name, 80), cells)


def _effects(arrangement: Arrangement) -> str:
    models = "\n".join(
        _row(
            isolated(model.name, 80),
            [
                model.kind,
                f"{model.parameters:,}",
                " × ".join(map(str, model.image_size)),
                " × ".join(map(str, model.patch_size)),
                str(len(model.layers)),
            ],
        )
        for model in arrangement.models
    )
    table = fill("arrangement", "models", rows=models)
    if not arrangement.effects:
        return absent("no effect could be told") + table
    rows = "\n".join(_effect_row(effect) for effect in arrangement.effects)
    return fill("arrangement", "effects", rows=rows) + table


def _effect_row(effect: Effect) -> str:
    size, unit = effect.size, isolated(effect.unit, 40)
    is_change = "change" in effect.measure or " minus " in effect.of
    between = "not told"
    if size.low is not None and size.high is not None:
        between = f"{_digits(size.low, is_change)} to {_digits(size.high, is_change)}"
    cells = [
        isolated(effect.of, 160),
        isolated(effect.measure, 80),
        f"{_digits(size.value, is_change)} {unit}",
        between,
    ]
    return _row(isolated(effect.question, 120), cells)


def _digits(value: float, is_change: bool) -> str:
    """Three digits or so; a change shows its direction."""
    digits = 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    rounded = round(value, digits) + 0.0  # never -0
    return f"{rounded:{'+' if is_change and rounded else ''}.{digits}f}".replace("-", _MINUS)


def _row(name: str, cells: list[str]) -> str:
    """A table's row of HTML."""
    return f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _limits(arrangement: Arrangement) -> str:
    notes = "".join(f"<li>{isolated(note, 600)}</li>" for note in arrangement.notes)
    counted = f"They hold what other images of the same kind would give: {arrangement.resamples:,} resamples of these."
    return fill(
        "arrangement",
        "limits",
        intervals=counted if arrangement.images > 1 else "One image tells no interval.",
        notes=f"<p><b>In this run.</b></p>\n<ul>{notes}</ul>" if notes else "",
    )


def _provenance(arrangement: Arrangement, faces: Faces | None) -> str:
    parts = [fill("arrangement", "provenance", name="The models", facts=facts_table(arrangement.provenance))]
    if faces is not None:
        plan = {"seeds": faces.seeds, "steps": faces.steps, "batch size": faces.batch_size}
        parts.append(
            fill("arrangement", "provenance", name="The faces", facts=facts_table(plan | dict(faces.provenance)))
        )
    return "\n".join(parts)
