"""What the HTML pages share: the frame, with its safety and its looks, and the small parts that tell numbers.

A page is one file that works from disk, on a phone, in the dark and on paper. It runs no script and loads nothing, and
every string from outside is escaped. Its words are in a file of blocks, its looks in `report.css`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from torch import Tensor

from vitreous.atomic import write_atomically
from vitreous.errors import OutputError
from vitreous.figures.inline import escaped, isolated
from vitreous.inspection import Inspection

Facts = Sequence[tuple[str, str, str]]
"""Name, value and a remark, each HTML."""

Sections = Mapping[str, tuple[str, str]]
"""For each section's id its heading and its HTML."""


def write_page(page: str, path: str | Path) -> Path:
    """The place of a page, written whole or not at all; missing folders are made.

    Raises:
        OutputError: if the file cannot be written.
    """
    target = Path(path)
    if target.is_dir():
        raise OutputError(f"{target} is a folder, a file was to be written there; add a name such as report.html")
    write_atomically(target, page)
    return target


def whole_page(
    title: str,
    lede: str,
    facts: Sequence[tuple[str, str, str]],
    sections: Sections,
    style: str = "",
    kicker: str = "Inside a Vision Transformer",
) -> str:
    """The page as text.

    Args:
        title: the headline, from outside.
        lede: HTML, what the page is about.
        facts: the strip below it.
        sections: what follows.
        style: CSS of this page alone.
        kicker: HTML, the words above the headline.
    """
    return fill(
        "page",
        "page",
        kicker=kicker,
        title=escaped(title),
        style=files("vitreous.pages").joinpath("report.css").read_text("utf-8") + style,
        lede=lede,
        strip="\n".join(
            f"<div><dt>{name}</dt><dd>{value}{f'<small>{more}</small>' if more else ''}</dd></div>"
            for name, value, more in facts
        ),
        contents="\n".join(f'<a href="#{name}">{heading}</a>' for name, (heading, _) in sections.items()),
        sections="\n".join(
            f'<section id="{name}">\n<h2>{heading}</h2>\n{body}\n</section>'
            for name, (heading, body) in sections.items()
        ),
    )


def fill(file: str, block: str, /, **values: str) -> str:
    """A block of `file`.html with its `$names` replaced."""
    return Template(_blocks(file)[block]).substitute(values)


@cache
def _blocks(file: str) -> dict[str, str]:
    """The blocks by name; a line `<!-- name -->` begins one."""
    parts = files("vitreous.pages").joinpath(f"{file}.html").read_text("utf-8").split("<!-- ")[1:]
    return {name: body.strip() for name, body in (part.split(" -->", 1) for part in parts)}


def numbers(values: Mapping[str, str]) -> str:
    """Names and values as a list; nothing where there are none."""
    if not values:
        return ""
    pairs = "\n".join(f"<dt>{escaped(name)}</dt><dd>{escaped(value)}</dd>" for name, value in values.items())
    return f'<dl class="numbers">\n{pairs}\n</dl>'


def absent(reason: str) -> str:
    """The line in place of a figure that is not there; the reason is HTML."""
    return f'<p class="absent">Left out: {reason}.</p>'


def reason(inspection: Inspection, measure: str) -> str:
    """What the notes say of a measure that is not there: the note that begins with its name."""
    notes = (str(note) for note in inspection.provenance.get("notes", ()))
    found = (note.removeprefix(f"{measure}: ") for note in notes if note.startswith(f"{measure}: "))
    return escaped(next(found, "this model has none, or not in a form that was recognised"))


def facts_table(values: Mapping[str, Any]) -> str:
    """A table of names and anything that provenance may hold."""
    rows = "\n".join(
        f'<tr><th scope="row">{_words(name)}</th><td>{_value(value)}</td></tr>' for name, value in values.items()
    )
    return fill("page", "facts", rows=rows)


def proportions(thumbnail: Tensor) -> str:
    """A picture's attribute that keeps its place before it is decoded."""
    return f' style="aspect-ratio:{thumbnail.shape[1]}/{thumbnail.shape[0]}"'


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
