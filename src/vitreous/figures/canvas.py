"""Paper, ink and type: what all figures share, so that they look like one family."""

from __future__ import annotations

import math
import textwrap
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vitreous.errors import NumericError, ShapeError

try:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties, fontManager, get_font
except ImportError as missing:
    raise ImportError("figures need matplotlib; install it with: pip install 'vitreous[figures]'") from missing

INK = "#1b2230"
MUTED = "#586172"
RULE = "#d8dbe2"
SERIES = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    INK,
)  # Okabe and Ito, colour-blind safe; their black is ink, so that it shows on dark pages too
SHARES = "magma"  # of attention: black is none
COSINES = "viridis"  # as in the paper's figure 7

MARKERS = "osD^vP"
ACROSS = 4  # panels side by side, before the next row

WIDTH = 4.8  # inches; one column of a page, and a phone's width when shown at 1:1
TITLE, LABEL, NOTE = 10.5, 9.5, 8.5  # points
_LETTERS_PER_INCH = 16  # of a note

_SCRIPTS = (
    "DejaVu Sans", "Noto Sans CJK KR", "Noto Sans CJK JP", "Noto Sans CJK SC", "Apple SD Gothic Neo",
    "NanumGothic", "Malgun Gothic", "Hiragino Sans", "Microsoft YaHei", "PingFang SC", "Noto Sans",
    "Noto Sans Arabic", "Noto Sans Devanagari", "Noto Sans Thai", "Arial Unicode MS",
)  # fmt: skip


def blank(width: float, height: float) -> Figure:
    """An empty white figure of that many inches that makes room for its own labels."""
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def panels(count: int, width: float, height: float, *, sharey: bool = True) -> list[Axes]:
    """So many axes in a new figure, up to four in a row, each of so many inches, with one y axis unless told.

    Raises:
        ShapeError: if there is none.
    """
    if count < 1:
        raise ShapeError("expected at least one model to draw, but got none")
    rows = math.ceil(count / ACROSS)
    across = math.ceil(count / rows)
    figure = blank(0.8 + width * across, height * rows)
    axes = list(figure.subplots(rows, across, sharey=sharey, squeeze=False).ravel())
    for unused in axes[count:]:
        unused.remove()
    return axes[:count]


def figure_of(axes: Axes) -> Figure:
    """The whole figure that axes stand in, also those of a subfigure."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def numbers(values: Any, *axes: str) -> NDArray[np.float64]:
    """`values`, a tensor or an array, as float64 with exactly the named axes.

    Raises:
        ShapeError: if it has another number of axes, or one of them is empty.
        NumericError: if a value is NaN or infinite.
    """
    array: NDArray[np.float64] = torch.as_tensor(values).detach().to("cpu", torch.float64).numpy()
    if array.ndim != len(axes) or 0 in array.shape:
        raise ShapeError(f"expected ({', '.join(axes)}), none of them empty, but got {array.shape}")
    if not np.isfinite(array).all():
        first = tuple(int(index) for index in np.argwhere(~np.isfinite(array))[0])
        raise NumericError(f"the value at ({', '.join(axes)}) = {first} is {array[first]}; nothing was drawn")
    return array


def pictures(values: Any, *axes: str) -> NDArray[np.uint8]:
    """`values` as uint8 colours with exactly the named axes.

    Raises:
        ShapeError: if it has another number of axes, or one of them is empty.
        ValueError: if it is not of type uint8, 0 to 255.
    """
    array = torch.as_tensor(values).detach().cpu().numpy()
    if array.dtype != np.uint8:
        raise ValueError(f"expected colours as uint8, 0 to 255, but got {array.dtype}")
    numbers(array, *axes)
    return array


def mosaic(tiles: NDArray[Any], gap: int, fill: float) -> NDArray[Any]:
    """(rows, columns, height, width, ...) laid out as one picture, with `gap` pixels of `fill` between tiles.

    One picture draws ten times faster than one axes a tile, and a vector file keeps it as it is.
    """
    rows, columns, height, width = tiles.shape[:4]
    frame = [(0, 0), (0, 0), (0, gap), (0, gap), *[(0, 0)] * (tiles.ndim - 4)]
    framed = np.pad(tiles, frame, constant_values=fill)
    picture = framed.swapaxes(1, 2).reshape(rows * (height + gap), columns * (width + gap), *tiles.shape[4:])
    whole: NDArray[Any] = picture[: rows * (height + gap) - gap, : columns * (width + gap) - gap]
    return whole


def tick_tiles(axis: Axis, names: Sequence[int], length: int, gap: int, most: int = 16) -> None:
    """Names a mosaic's tiles at their middles; every second, third ... where there are more than `most`."""
    step = math.ceil(len(names) / most)
    middles = [index * (length + gap) + (length - 1) / 2 for index in range(0, len(names), step)]
    axis.set_ticks(middles, labels=[str(name) for name in names[::step]])
    axis.set_tick_params(length=0, labelsize=NOTE, labelcolor=MUTED, pad=3)


def style_picture(axes: Axes) -> None:
    """No frame around a picture: it has its own edges."""
    axes.spines[:].set_visible(False)
    axes.set_facecolor("none")


def style_plot(axes: Axes) -> None:
    """Two quiet axes, and rules to read values by."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelsize=NOTE, length=3)
    axes.grid(axis="y", color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)


def label(axes: Axes, x: str = "", y: str = "") -> None:
    """Writes what the axes mean, with units."""
    axes.set_xlabel(x, fontsize=LABEL, color=INK)
    axes.set_ylabel(y, fontsize=LABEL, color=INK)


def title(axes: Axes, text: str, size: float = TITLE) -> None:
    """Writes a title at the left, as the reader begins there; foreign text is safe."""
    axes.set_title(readable(text), loc="left", fontsize=size, color=INK, parse_math=False, fontfamily=list(families()))


def caption(axes: Axes, *lines: str) -> None:
    """Says below the axes what was scaled, left out or chosen, in lines that are as wide as the axes."""
    width = axes.get_position().width * figure_of(axes).get_figwidth()  # inches
    letters = max(24, round(width * _LETTERS_PER_INCH))
    wrapped = [part for line in lines for part in textwrap.wrap(line, letters)]
    below: Any = axes.xaxis.label if axes.get_xlabel() else "axes fraction"
    axes.annotate(
        "\n".join(wrapped), (0, 0), (0, -6), ("axes fraction", below), "offset points", ha="left", va="top",
        fontsize=NOTE, color=MUTED, linespacing=1.35, annotation_clip=False, parse_math=False,
    )  # fmt: skip


def colour_bar(axes: Axes, image: Any, words: str, ticks: Sequence[float]) -> None:
    """Says beside a picture, at its very height, what its colours mean."""
    place = axes.inset_axes((1.025, 0, 0.04, 1))
    finish_bar(figure_of(axes).colorbar(image, cax=place, ticks=ticks), words)


def finish_bar(bar: Any, words: str) -> None:
    """A colour bar without a frame, and what it means."""
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=NOTE, colors=MUTED, length=0)
    bar.set_label(words, fontsize=NOTE, color=INK)


def fit_height(figure: Figure, spare: float = 0.1) -> None:
    """Cuts off the height that pictures of fixed proportions left empty; `spare` inches stay."""
    for _ in range(2):  # labels move with the pictures, and only the second look sees where they went
        figure.draw_without_rendering()
        figure.set_size_inches(figure.get_figwidth(), figure.get_tightbbox().height + spare)


def shorten(text: str, letters: int) -> str:
    """`text` in at most `letters` columns, its middle left out; East Asian letters count twice."""
    text = readable(text)
    if _columns(text) <= letters:
        return text
    head, tail = text[:letters], text[-letters:]
    while _columns(head) + _columns(tail) + 1 > letters:
        head, tail = (head[:-1], tail) if _columns(head) > _columns(tail) else (head, tail[1:])
    return f"{head}…{tail}"


def readable(text: str) -> str:
    """`text` without control characters, and with a box for what no font at hand can draw."""
    fonts = [get_font(_font_file(family)) for family in families()]
    seen = (" " if unicodedata.category(letter) in _UNSEEN else letter for letter in text)
    return "".join(letter if any(font.get_char_index(ord(letter)) for font in fonts) else "□" for letter in seen)


_UNSEEN = ("Cc", "Cf", "Zs", "Zl", "Zp")  # control, format, blanks; a stray byte of a name gets a box


@cache
def families() -> tuple[str, ...]:
    """Fonts for foreign text, best first, as far as this machine has them; matplotlib brings the first."""
    present = set(fontManager.get_font_names())
    return tuple(family for family in _SCRIPTS if family in present)


@cache
def _font_file(family: str) -> Any:
    return fontManager.findfont(FontProperties(family=family), fallback_to_default=True)


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
