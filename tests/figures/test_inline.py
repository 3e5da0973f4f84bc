import base64
import io
import re

import matplotlib
import numpy as np
import torch
from PIL import Image

from vitreous.figures import canvas, draw_attention_distance, draw_class_attention
from vitreous.figures.inline import data_uri, escaped, inline_svg, isolated

MAPS = torch.rand(3, 2, 4, 5, generator=torch.Generator().manual_seed(0))


def decoded(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


def test_a_figure_becomes_one_element_with_the_colours_of_the_page():
    markup = inline_svg(draw_attention_distance({"": MAPS[0, 0]}), "a", 'says "so" & <more>')
    assert markup.startswith('<svg role="img" aria-label="says &quot;so&quot; &amp; &lt;more&gt;"')
    assert markup.rstrip().endswith("</svg>")
    assert "currentColor" in markup
    assert "var(--accent)" in markup
    assert canvas.INK not in markup
    assert "<text" in markup  # letters, not outlines
    assert not re.search(r"<style|<metadata|https?:|fill: #ffffff", markup)


def test_ids_of_two_figures_differ_and_every_reference_is_met():
    figures = {name: inline_svg(draw_class_attention(MAPS), name, "") for name in ("a", "b")}
    ids = {name: set(re.findall(r'\bid="([^"]+)"', markup)) for name, markup in figures.items()}
    assert not ids["a"] & ids["b"]
    for name, markup in figures.items():
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', markup)) <= ids[name]


def test_the_same_figure_gives_the_same_bytes():
    assert inline_svg(draw_class_attention(MAPS), "a", "") == inline_svg(draw_class_attention(MAPS), "a", "")


def test_maps_are_kept_to_the_pixel_and_their_colours_exactly():
    markup = inline_svg(draw_class_attention(MAPS), "a", "")
    sheet = decoded(re.search(r'href="(data:image/png[^"]+)"', markup)[1]).convert("RGBA")
    assert sheet.size == (3 * 6 - 1, 2 * 5 - 1)
    shares = MAPS[2, 1] / MAPS[2, 1].max()
    expected = matplotlib.colormaps[canvas.SHARES](shares.double().numpy(), bytes=True)
    np.testing.assert_array_equal(np.asarray(sheet)[5:9, 12:17], expected)


def test_flat_pictures_are_kept_without_loss_and_photographs_made_small():
    flat = np.zeros((64, 64, 3), np.uint8)
    flat[:, 32:] = 255
    assert np.array_equal(np.asarray(decoded(data_uri(flat)).convert("RGB")), flat)
    noise = np.random.default_rng(0).integers(0, 255, (600, 300, 3), np.uint8)
    assert decoded(data_uri(noise)).size == (224, 448)


def test_foreign_text_is_valid_printable_and_short():
    assert escaped('<b a="1">&') == "&lt;b a=&quot;1&quot;&gt;&amp;"
    assert escaped("\x00\udcff\u202e") == " ? "
    assert len(escaped("x" * 10_000)) == 401
    assert isolated("<") == "<bdi>&lt;</bdi>"
