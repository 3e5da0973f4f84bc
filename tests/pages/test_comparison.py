import dataclasses
import re
import shutil
from collections import Counter
from html.parser import HTMLParser

import pytest
import torch

from vitreous.errors import ConfigError, OutputError
from vitreous.inspection import Inspection
from vitreous.measures.distance import uniform_distance
from vitreous.pages.comparison import comparison_html, write_comparison
from vitreous.tokens import TokenLayout

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' style='position:fixed",
    "</title></style></svg><iframe src=https://example.org>",
    "<!-- $title ${style} &lt;b&gt; --> $x$ \\frac{",
    "\u202egpj.exe\x00\x1b[31m",
    "\udcff한국어 العربية \U0001f431",
    "x" * 5000,
    'id="x" href="#x" #0072b2',
    "data:image/png;base64,AAAA",
    "_begins with an underscore",
)


def make(model, *, layers=2, heads=2, rows=3, columns=4, patch=4, prefix=1, names=("a.png", "b.png"), seed=0, **more):
    """A small inspection with random numbers; `names` are the images shown."""
    random = torch.Generator().manual_seed(seed)
    layout = TokenLayout(prefix, rows, columns, patch, patch, class_token=0 if prefix else None)
    per_head = {
        name: scale * torch.rand(layers, heads, generator=random)
        for name, scale in {"attention_distance": 10, "attention_entropy": 3, "prefix_mass": 0.2}.items()
    }
    size = (layout.image_height, layout.image_width, 3)
    values = {
        **per_head,
        **{f"{name}_spread": value / 10 for name, value in per_head.items()},
        **{f"{name}_histogram": torch.ones(layers, heads, 4, dtype=torch.int64) for name in per_head},
        "attention_distance_renormalized": per_head["attention_distance"],
        "rollout_mean": torch.rand(rows, columns, generator=random),
        "rollout": torch.rand(len(names), rows, columns, generator=random),
        "class_attention": torch.rand(len(names), layers, heads, rows, columns, generator=random),
        "thumbnails": torch.randint(0, 256, (len(names), *size), generator=random, dtype=torch.uint8),
        "image_names": tuple(names),
        "predictions": tuple((("cat", 0.5 + index / 100),) for index in range(len(names))),
        "filters": torch.rand(3, 3, patch, patch, generator=random),
        "filters_variance": torch.tensor([0.6, 0.3, 0.1]),
        "position_similarity": torch.rand(rows, columns, rows, columns, generator=random),
        "position_structure": {"locality": 0.25 + seed / 100},
        "provenance": {"model": model, "source": f"models/{model}", "parameters": 1234 + seed, "notes": []},
    }
    return Inspection(layout=layout, images=len(names), **(values | more))


def bare(model, **more):
    """An inspection without the measures that take long to draw."""
    return make(model, **({"filters": None, "filters_variance": None, "position_similarity": None} | more))


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


def table(page):
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', section(page, "models"))
    return {name: re.findall(r"<td>(.*?)</td>", cells) for name, cells in rows}


@pytest.fixture(scope="module")
def pair():
    return [make("plain", seed=1), make("hybrid", seed=2, heads=3)]


@pytest.fixture(scope="module")
def page(pair):
    return comparison_html(pair)


@pytest.fixture(scope="module")
def run():
    """Three checkpoints of one run, not in order."""
    return [make(f"epoch-{epoch:04d}", seed=epoch) for epoch in (10, 0, 5)]


@pytest.fixture(scope="module")
def film(run):
    return comparison_html(run)


def test_the_page_is_one_file_written_whole(tmp_path, pair, page):
    path = write_comparison(pair, tmp_path / "new" / "both.html")
    assert path.read_text("utf-8") == page  # the same inspections give the same bytes
    assert [file.name for file in path.parent.iterdir()] == ["both.html"]
    with pytest.raises(OutputError, match=r"add a name such as report\.html"):
        write_comparison(pair, tmp_path)


def test_the_table_has_the_numbers_of_the_inspections(pair, page):
    found = table(page)
    assert re.findall(r'<th scope="col"><bdi>(.*?)</bdi>', section(page, "models")) == ["plain", "hybrid"]
    trends = [inspection.depth_trend for inspection in pair]
    expected = {
        "Layers × heads": ["2 × 2", "2 × 3"],
        "Patches": ["3 × 4"] * 2,
        "Tokens": ["13"] * 2,
        "Parameters": ["1,235", "1,236"],
        "Distance, first": [f"{trend['first_layer_mean']:.1f} px" for trend in trends],
        "Distance, last": [f"{trend['last_layer_mean']:.1f} px" for trend in trends],
        "Distance, change a layer": [f"{trend['mean_per_layer']:+.2f} px" for trend in trends],
        "Distance, spread evenly": [f"{uniform_distance(pair[0].layout):.1f} px"] * 2,
        "Spread of distance, last": [f"{trend['last_layer_spread']:.1f} px" for trend in trends],
        "Entropy, last": [f"{float(one.attention_entropy[-1].mean()):.2f} bits" for one in pair],
        "Prefix mass, first": [f"{float(one.prefix_mass[0].mean()):.3f}" for one in pair],
        "Locality of positions": ["0.26", "0.27"],
    }
    assert {name: found[name] for name in expected} == expected
    assert "every number can be compared" in section(page, "models")


def test_models_that_cannot_be_compared_in_pixels_are_compared_in_diagonals_and_it_is_said():
    small, large = bare("small"), bare("large", patch=8, layers=3, prefix=0, names=("a.png", "c.png", "d.png"))
    page = comparison_html([small, large])
    diagonals = [(12**2 + 16**2) ** 0.5, (24**2 + 32**2) ** 0.5]
    means = [float(one.attention_distance[0].mean()) for one in (small, large)]
    assert table(page)["Distance, first"] == [f"{m / d:.3f} diag." for m, d in zip(means, diagonals, strict=True)]
    entropy = float(small.attention_entropy[0].mean()) / torch.tensor(13.0).log2().item()
    assert table(page)["Entropy, first"][0] == f"{entropy:.3f} of max"
    assert table(page)["Prefix mass, first"][1] == "–"
    for said in (
        "different numbers of images",
        "not shown the same images; 1 of them in common",
        "different sizes in pixels; distances are in diagonals",
        "different numbers of tokens",
        "different numbers of prefix tokens",
        "Some models read out the class token, others the mean of the patches",
        "different numbers of layers",
    ):
        assert said in section(page, "models")
    assert "relative depth" in section(page, "distance")
    assert "Left out, as they have no tokens besides the patches: <bdi>large</bdi>" in section(page, "mass")
    assert "mean attention distance (diagonals)" in section(page, "distance")


def test_images_are_matched_by_name_and_only_those_in_common_are_shown():
    first, second = bare("first", names=("a", "b", "c")), bare("second", names=("d", "c", "a"), seed=3)
    where = section(comparison_html([first, second]), "where")
    assert re.findall(r"<h3><bdi>(.*?)</bdi>", where) == ["a", "c"]
    for image, places in {"a": (0, 2), "c": (2, 1)}.items():
        for inspection, place in zip((first, second), places, strict=True):
            name, share = inspection.provenance["model"], float(inspection.rollout[place].max())
            assert f"Rollout of {image}, {name}: the largest share is {share:.1%}" in where
    assert re.findall(r"cat</bdi> · (\d+)%", where) == ["50", "52", "52", "51"]  # each from its own place
    assert "left out: 1 of the first model's" in where


def test_models_that_were_shown_nothing_in_common_have_no_pictures():
    where = section(comparison_html([bare("first", names=("a",)), bare("second", names=("b",))]), "where")
    assert "Left out: the models were not shown the same images." in where
    assert "<img" not in where


def test_a_measure_that_one_model_lacks_is_explained_in_its_place(pair):
    notes = {"model": "rotary", "notes": ["position similarity: positions are rotary, without a table"]}
    page = comparison_html([pair[0], bare("rotary", provenance=notes)])
    assert re.findall(r"<figcaption><bdi>(.*?)</bdi></figcaption>", section(page, "positions")) == ["plain", "rotary"]
    assert section(page, "positions").count("<svg") == 1
    assert "Left out: positions are rotary, without a table." in section(page, "positions")
    assert "Left out: this model has none" in section(page, "filters")


def test_fewer_than_two_or_more_than_twelve_models_are_refused():
    with pytest.raises(ConfigError, match="at least 2 models, but there is 1"):
        comparison_html([bare("one")])
    with pytest.raises(ConfigError, match="13 models are too many for one comparison; give at most 12"):
        comparison_html([bare(f"model {index}") for index in range(13)])


def test_nothing_is_fetched_and_nothing_runs(page, film):
    for text in (page, film):
        elements = Elements(text)
        assert not set(elements.counts) & {"script", "link", "iframe", "object", "embed", "base", "form", "comment"}
        for tag, name, value in elements.attributes:
            if name in ("src", "href", "xlink:href"):
                assert value.startswith(("data:image/", "#")), (tag, name, value[:60])
            assert not name.startswith("on"), (tag, name)
        assert not re.search(r"https?:|@import", text)
        assert "url(" not in re.sub(r"url\(#", "", text)
        assert "default-src 'none'" in text


def test_hostile_strings_add_no_element_and_no_attribute():
    def page(words):
        models = [
            bare(
                word,
                names=(words[0],),
                predictions=(((word, 0.5),),),
                provenance={"model": word, word + "key": {word: [word]}, "notes": [f"filters: {word}"]},
            )
            for word in words
        ]
        return comparison_html(models)

    benign, hostile = Elements(page([f"model {index}" for index in range(len(HOSTILE))])), Elements(page(HOSTILE))
    assert hostile.counts == benign.counts
    assert Counter(pair[:2] for pair in hostile.attributes) == Counter(pair[:2] for pair in benign.attributes)
    shown = "".join(hostile.text)
    for text in HOSTILE:
        if text.isprintable() and len(text) < 60:
            assert text in shown  # as it is


def test_every_picture_has_words_and_every_id_is_there_once(page, film):
    for text in (page, film):
        elements = Elements(text)
        heard = [value for tag, name, value in elements.attributes if (tag, name) == ("svg", "aria-label")]
        assert len(heard) == elements.counts["svg"]
        assert all(len(words) > 30 for words in heard)
        alts = [value for tag, name, value in elements.attributes if (tag, name) == ("img", "alt")]
        assert len(alts) == elements.counts["img"] and all(alts)
        assert elements.counts["caption"] == elements.counts["table"]
        ids = [value for _, name, value in elements.attributes if name == "id"]
        assert len(ids) == len(set(ids))


def test_a_runs_checkpoints_have_a_frame_each_in_the_order_of_epochs(run, film):
    training = section(film, "training")
    frames = re.split(r'<div><div class="panels">', training)[1:]
    by_epoch = sorted(run, key=lambda one: one.provenance["model"])
    assert len(frames) == 3
    for frame, epoch, inspection in zip(frames, (0, 5, 10), by_epoch, strict=True):
        assert set(re.findall(r"epoch (\d+)</bdi>", frame)) == {str(epoch)}
        ends = [f"{float(inspection.attention_distance[layer].mean()):.1f} px" for layer in (0, -1)]
        assert f"by layer: {ends[0]} to {ends[1]}" in frame
    assert re.findall(r'<label for="frame-(\w+)">(.*?)</label>', training) == [
        ("all", "play"), ("0", "0"), ("1", "5"), ("2", "10"),
    ]  # fmt: skip
    assert [float(share) for share in re.findall(r"hidden\}([\d.]+)%\{visibility:visible", film)] == [0, 20, 40]
    assert "epochs run from left to right" in section(film, "entropy")
    assert "<title>Over training, epoch 0 to epoch 10</title>" in film


def test_all_frames_have_one_axis(film):
    frames = re.split(r'<div><div class="panels">', section(film, "training"))[1:]
    ticks = [re.findall(r">([\d.]+)</text>", frame.split("</svg>")[0]) for frame in frames]
    assert ticks[0] == ticks[1] == ticks[2]


def test_more_than_twelve_checkpoints_are_all_in_the_film_and_eight_side_by_side():
    page = comparison_html([bare(f"epoch-{epoch:04d}", heads=1, layers=1) for epoch in range(14)])
    assert section(page, "training").count('<div><div class="panels">') == 14
    assert re.findall(r"<th scope=\"col\"><bdi>epoch (\d+)", page) == ["0", "2", "4", "6", "7", "9", "11", "13"]


def test_checkpoints_of_different_shapes_or_runs_are_no_film():
    for other in (
        bare("epoch-0005", layers=3),
        bare("epoch-0005", provenance={"model": "epoch-0005", "source": "another/epoch-0005"}),
    ):
        page = comparison_html([bare("epoch-0000"), other])
        assert 'id="training"' not in page
        assert "<title>epoch-0000 and epoch-0005</title>" in page


@pytest.mark.browser
def test_a_browser_plays_it_offline_without_scrolling_sideways(tmp_path, run):
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs chromium")
    named = [dataclasses.replace(one, image_names=("x" * 5000, "b")) for one in run]
    path = write_comparison(named, tmp_path / "film.html")
    seen = "[...document.querySelectorAll('.film > *')].map(e => getComputedStyle(e).visibility === 'visible')"
    at = "ms => document.getAnimations().forEach(one => { one.pause(); one.currentTime = ms })"
    asked = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark", offline=True)
        tab = context.new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(path.as_uri())
        tab.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true })")
        sideways = tab.evaluate("document.documentElement.scrollWidth")
        main = tab.evaluate("document.querySelector('main').clientWidth")
        played = []
        for milliseconds in (100, 900, 1700, 3900):  # 0.8 seconds a frame, the last for three
            tab.evaluate(at, milliseconds)
            played.append(tab.evaluate(seen).index(True))
            assert sum(tab.evaluate(seen)) == 1
        tab.click("label[for=frame-1]")
        chosen = tab.evaluate(seen)
        tab.keyboard.press("ArrowRight")
        next_chosen = tab.evaluate(seen)
        tab.click("label[for=frame-all]")
        tab.emulate_media(reduced_motion="reduce")
        still = tab.evaluate(seen), tab.evaluate("document.getAnimations().length")
        browser.close()
    assert sideways <= 390 and main == 390
    assert played == [0, 1, 2, 2]
    assert chosen == [False, True, False]
    assert next_chosen == [False, False, True]
    assert still == ([False, False, True], 0)
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
