import base64
import dataclasses
import io
import re
import runpy
import shutil
from collections import Counter
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from vitreous.arrangement.effects import sentence
from vitreous.arrangement.faces import draw_faces
from vitreous.arrangement.result import Effect, Interval
from vitreous.errors import OutputError
from vitreous.pages.arrangement import arrangement_html, write_arrangement

MADE = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "arrangements.py")))  # tests are no package
HOSTILE = (
    "<script>alert(1)</script>",
    '"><svg onload=alert(1)>',
    "</title></style></svg><iframe src=https://example.org>",
    "<!-- $title ${style} &lt;b&gt; --> $x$ \\frac{",
    "\u202egpj.exe\x00\x1b[31m",
    "\udcff한국어 العربية \U0001f431",
    "_begins with an underscore",
)
SECTIONS = ("shuffle", "read-out", "positions", "translation", "occlusion", "faces")


class Elements(HTMLParser):
    """Counts elements, keeps attributes and text."""

    def __init__(self, page):
        super().__init__()
        self.counts, self.attributes, self.text = Counter(), [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.counts[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attributes]

    def handle_data(self, data):
        self.text.append(data)

    def handle_comment(self, data):
        self.counts["comment"] += 1


def section(page, name):
    return re.search(rf'<section id="{name}">.*?</section>', page, re.DOTALL)[0]


def rows(part):
    """Of the tables of a section: names and cells as text."""
    found = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', part)
    plain = [[unescape(re.sub("<.*?>", "", cell)) for cell in (name, *re.findall(r"<td>(.*?)</td>", cells))]
             for name, cells in found]  # fmt: skip
    return plain


def bare(name="bare", **more):
    """A model of which only the grid shuffle was measured; the other figures take long to draw."""
    nothing = {"read_out": {}, "positions": {}, "shifted": {}, "equivariance": {}, "occluded": {}, "areas": {}}
    return dataclasses.replace(MADE.model(name, "CNN", **more), **nothing)


@pytest.fixture(scope="module")
def page():
    return arrangement_html(MADE.arrangement(), MADE.faces())


def test_the_page_is_one_file_written_whole(tmp_path, page):
    path = write_arrangement(MADE.arrangement(), tmp_path / "new" / "arrangement.html", MADE.faces())
    assert path.read_text("utf-8") == page  # the same numbers give the same bytes
    assert [file.name for file in path.parent.iterdir()] == ["arrangement.html"]
    with pytest.raises(OutputError, match=r"add a name such as report\.html"):
        write_arrangement(MADE.arrangement(), tmp_path)


def test_the_sentence_stands_on_top_and_six_figures_follow(page):
    lede = re.search(r'<p class="lede">(.*?)</p>', page, re.DOTALL)[1]
    assert unescape(re.sub("<.*?>", "", lede)) == sentence(MADE.arrangement())
    assert [section(page, name).count("<svg") for name in SECTIONS] == [1] * 6
    for name in SECTIONS:
        assert "Reading it." in section(page, name) and "Limits." in section(page, name)


def test_effects_are_the_numbers_with_their_intervals(page):
    table = rows(section(page, "effects"))
    assert table[:5] == [
        ["grid shuffle 4 x 4", "cifar10-ti4", "change of accuracy", "−42.3 points", "−44.1 to −40.2"],
        ["grid shuffle 4 x 4", "cifar10-resnet", "change of accuracy", "−65.5 points", "−67.1 to −63.2"],
        ["grid shuffle 4 x 4", "cifar10-ti4 minus cifar10-resnet", "change of accuracy", "+23.2 points",
         "+20.9 to +25.4"],
        ["position embeddings zeroed", "cifar10-ti4", "divergence", "1.23 nats", "not told"],
        ["occlusion, random", "cifar10-ti4", "area under accuracy", "52.2 points", "0.500 to 53.0"],
    ]  # fmt: skip
    assert table[5] == ["cifar10-ti4", "ViT", "2,697,610", "32 × 32", "4 × 4", "7"]


def test_a_rounding_error_has_no_sign():
    effect = Effect("q", "m", "change of accuracy", "points", Interval(-7e-15, -0.0004, 7e-15))
    page = arrangement_html(dataclasses.replace(MADE.arrangement(), effects=(effect,)))
    assert rows(section(page, "effects"))[0][3:] == ["0.000 points", "0.000 to 0.000"]


def test_the_faces_table_has_means_with_t_intervals(page):
    faces = MADE.faces()
    table = rows(section(page, "faces"))
    assert [row[0] for row in table] == [model.name for model in faces.models]
    # five seeds 0.01 apart: deviation 0.01581, t 2.776, root of 5 2.236
    assert table[0][1:] == ["150,000", "48", "42", "97.0 ± 2.0", "91.0 ± 2.0", "85.0 ± 2.0", "79.0 ± 2.0"]
    assert "1,500 steps of 128 drawings" in section(page, "faces")
    single = rows(section(arrangement_html(MADE.arrangement([bare()]), MADE.faces(seeds=1, examples=1)), "faces"))
    assert single[0][4] == "95.0"


def test_figures_are_told_to_those_who_cannot_see_them(page):
    made = MADE.arrangement()
    heard = {name: unescape(re.search(r'aria-label="(.*?)"', section(page, name))[1]) for name in SECTIONS}
    shuffled = made.models[1].shuffled[4]
    assert heard["shuffle"].startswith("accuracy by grid: cifar10-ti4: k = 1 82.0 %")
    assert f"k = 4 {100 * shuffled.accuracy.value:.1f} %" in heard["shuffle"].split("cifar10-resnet")[1]
    assert "cifar10-ti4: images as they are 0.95 to 0.45" in heard["read-out"]
    assert "cifar10-resnet: no table of positions" in heard["positions"]
    assert f"4 px {100 * made.models[0].shifted[4].agreement.value:.1f} %" in heard["translation"]
    assert f"centre first {made.models[0].areas['centre first'].value:.2f}" in heard["occlusion"]
    assert "accuracy on seen kinds: CNN 97.0 %; CNN without padding 85.0 %; BagNet 73.0 %" in heard["faces"]


def test_without_labels_agreement_stands_in_the_place_of_accuracy():
    page = arrangement_html(MADE.arrangement([bare(labels=False)], labels=False, class_names=()))
    assert "no labels: no accuracy" in page
    assert "the share of answers that stay the same" in section(page, "shuffle")
    assert "share of unchanged answers by grid: bare: k = 1 100.0 %" in section(page, "shuffle")
    assert "accuracy (%)" not in page and "same answer (%)" in page


def test_what_was_not_measured_has_its_place_and_the_reason():
    page = arrangement_html(MADE.arrangement([bare()], effects=(), images=1, rollout_of=None, notes=()))
    for name, words in {
        "read-out": "positions were not read out of any model",
        "positions": "no model has a table of position embeddings",
        "translation": "no image was moved",
        "occlusion": "no patches were hidden",
        "faces": "the faces task was not run",
        "effects": "no effect could be told",
    }.items():
        assert f"Left out: {words}" in section(page, name) and "<svg" not in section(page, name)
    assert "One image tells no interval." in section(page, "limits") and "In this run" not in section(page, "limits")


def test_the_faces_are_those_that_the_models_answered(page):
    """Each kind has its picture, drawn again from the seed, part by part in its place."""
    faces = MADE.faces()
    drawn = (255 * draw_faces(faces.example_seed, 0, 12, faces.example_kinds)[0]).round().permute(0, 2, 3, 1).numpy()
    found = re.findall(r'data:image/png;base64,([^"]+)', section(page, "faces"))
    shown = [np.asarray(Image.open(io.BytesIO(base64.b64decode(one))).convert("RGBA"))[..., :3] for one in found]
    assert len(shown) == 12
    for one, wanted in zip(shown, drawn, strict=True):
        assert np.array_equal(one, wanted) or np.array_equal(one[::-1], wanted)  # SVG may hold it upside down


def test_limits_sources_notes_and_provenance_are_told(page):
    for paper in ("2001.08248", "2105.10497", "1904.00760", "1904.11486", "2010.11929"):
        assert f"arXiv {paper}" in section(page, "citing")
    assert "k = 3 does not divide the image; 4 was used" in section(page, "limits")
    assert "1,000 resamples" in section(page, "limits")
    provenance = section(page, "provenance")
    assert "2026-11-22" in provenance and "0" * 64 in provenance and "2 cores" in provenance
    assert "Without such a table, and so not drawn: <bdi>cifar10-resnet</bdi>." in section(page, "positions")


def test_nothing_is_fetched_and_nothing_runs(page):
    elements = Elements(page)
    assert not set(elements.counts) & {"script", "link", "iframe", "object", "embed", "base", "form", "comment"}
    for tag, name, value in elements.attributes:
        if name in ("src", "href", "xlink:href"):
            assert value.startswith(("data:image/", "#")), (tag, name, value[:60])
        assert not name.startswith("on"), (tag, name)
    assert not re.search(r"https?:|@import", page)
    assert "default-src 'none'" in page
    ids = [value for _, name, value in elements.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert elements.counts["caption"] == elements.counts["table"]


def test_hostile_strings_add_no_element_and_no_attribute():
    def page(words):
        whole = [MADE.model(words[0]), MADE.model(words[3], "CNN")]
        models = [*whole, *(bare(word) for word in words if word not in (words[0], words[3]))]
        faces = MADE.faces(seeds=2, examples=1, names=words)
        faces = dataclasses.replace(
            faces,
            kinds_seen=(words[0],),
            kinds_unseen=(words[1],),
            models=tuple(
                dataclasses.replace(one, accuracies=dict.fromkeys(words[:2], (0.5, 0.6))) for one in faces.models
            ),
            provenance={words[0] + "key": [words[1]]},
        )
        made = MADE.arrangement(
            models,
            data=words[0],
            class_names=tuple(words),
            rollout_of=words[2],
            notes=tuple(words),
            effects=tuple(Effect(word, word, word, word, Interval(1.0, 0.5, 1.5)) for word in words),
            provenance={word + "key": {word: [word]} for word in words},
        )
        return arrangement_html(made, faces)

    benign, hostile = Elements(page([f"model {place}" for place in range(len(HOSTILE))])), Elements(page(HOSTILE))
    for tag in set(benign.counts) | set(hostile.counts):  # outlines of letters in figures differ with the words
        if tag not in ("g", "text", "tspan", "path", "use", "defs"):
            assert hostile.counts[tag] == benign.counts[tag], tag
    assert {pair[:2] for pair in hostile.attributes} == {pair[:2] for pair in benign.attributes}
    shown = "".join(hostile.text)
    for text in HOSTILE:
        if text.isprintable() and len(text) < 60:
            assert text in shown  # as it is


@pytest.mark.browser
def test_a_browser_shows_it_offline_without_scrolling_sideways(tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs chromium")
    long = Effect("grid shuffle", "y" * 5000, "change of accuracy", "points", Interval(1.0, 0.5, 1.5))
    made = MADE.arrangement([bare("x" * 5000), MADE.model("b")], effects=(long,))
    path = write_arrangement(made, tmp_path / "page.html", MADE.faces(seeds=2, examples=1))
    asked = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark", offline=True)
        tab = context.new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(path.as_uri())
        tab.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true })")
        sideways = tab.evaluate("document.documentElement.scrollWidth")
        browser.close()
    assert sideways <= 390
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
