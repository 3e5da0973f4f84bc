"""Figures and pictures as text that a page carries in itself: themed by the page, fetched from nowhere."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from vitreous.figures import canvas

PAGE_COLOURS: Mapping[str, str] = {
    canvas.INK: "currentColor",
    canvas.MUTED: "var(--muted)",
    canvas.RULE: "var(--rule)",
    canvas.SERIES[0]: "var(--accent)",
}


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """One `<svg>` element for an HTML page: text stays text, lines take the page's colours, no background.

    The same figure and name give the same bytes.

    Args:
        figure: of this package; its palette is turned into the page's colours `PAGE_COLOURS`.
        name: put before every id, letters and digits only, so that two figures of a page do not share one.
        description: what a reader hears who cannot see it.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "vitreous"}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    markup = buffer.getvalue()
    box = re.search(r'viewBox="([^"]+)"', markup)
    assert box is not None
    body = re.sub(r"<style.*?</style>", "", markup[markup.index(">", box.start()) + 1 :], flags=re.DOTALL)
    body = re.sub(r"<[^>]*>", lambda tag: _for_page(tag[0], name), body)  # not the text between, which can be foreign
    body = re.sub(r"\n\s*", "\n", body)
    return f'<svg role="img" aria-label="{escaped(description)}" viewBox="{box[1]}" style="{_shape(box[1])}">{body}'


def data_uri(picture: NDArray[np.uint8], largest: int = 448) -> str:
    """A picture as the address of itself: PNG or JPEG, whichever is smaller.

    Args:
        picture: (image_height, image_width, 3) uint8.
        largest: pixels; the picture is made smaller where a side has more.
    """
    image = Image.fromarray(picture)
    image.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    lossless, photograph = io.BytesIO(), io.BytesIO()
    image.save(lossless, "png", optimize=True)
    image.save(photograph, "jpeg", quality=88)
    kind, data = min(("png", lossless.getvalue()), ("jpeg", photograph.getvalue()), key=lambda pair: len(pair[1]))
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def isolated(foreign: str, longest: int = 400) -> str:
    """`foreign` as HTML that cannot turn the text around it to the other direction."""
    return f"<bdi>{escaped(foreign, longest)}</bdi>"


def escaped(foreign: str, longest: int = 400) -> str:
    """`foreign` as HTML text: valid Unicode, printable, its middle left out beyond the longest."""
    valid = foreign.encode("utf-8", "replace").decode("utf-8")
    shown = "".join(letter if letter.isprintable() else " " for letter in valid)
    return html.escape(shown if len(shown) <= longest else f"{shown[: longest // 2]}…{shown[-longest // 2 :]}")


def _for_page(tag: str, name: str) -> str:
    """One tag of a figure with ids of its own, small pictures, and the page's fonts and colours."""
    tag = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", tag)
    tag = re.sub(r"data:image/png;base64,([^\"]+)", lambda found: _fewer_colours(found[1]), tag)
    tag = re.sub(r"font-family: [^;\"]+;? ?", "", tag)
    for colour, replacement in PAGE_COLOURS.items():
        tag = tag.replace(colour, replacement)
    return tag


def _shape(box: str) -> str:
    width, height = box.split()[2:]
    return f"aspect-ratio:{float(width):.0f}/{float(height):.0f}"


def _fewer_colours(encoded: str) -> str:
    """The same picture with a palette, a third of the bytes; a colour map makes no more than 256 colours."""
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGBA"))
    colours, places = np.unique(pixels.reshape(-1, 4), axis=0, return_inverse=True)
    if len(colours) <= 256:
        image = Image.fromarray(places.reshape(pixels.shape[:2]).astype(np.uint8)).convert("P")
        image.putpalette(colours.tobytes(), "RGBA")
    else:
        image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, "png", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/png;base64,{min(data, encoded, key=len)}"
