import dataclasses
import re
import shutil
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from vitreous.errors import OutputError
from vitreous.inspection import Inspection
from vitreous.pages.report import report_html, write_report
from vitreous.tokens import TokenLayout

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' style='position:fixed",
    "</title></style><iframe src=https://example.org>",
    "<!-- $title ${style} &lt;b&gt; -->",
    "\u202egpj.exe\x00\x1b[31m",
    "\udcff한국어 العربية \U0001f431",
    "x" * 5000,
    "javascript:alert(1)",
    "]]><b>{{7*7}}",
)


def closed_form_inspection(
    rows=14,
    columns=14,
    layers=12,
    heads=12,
    patch=16,
    shown=4,
    prefix=1,
    names=None,
    classes=("tabby cat", "lynx", "sofa"),
):
    """An inspection whose numbers follow from formulas: attention widens with depth, maps are bumps that move."""
    layout = TokenLayout(prefix, rows, columns, patch, patch, class_token=0 if prefix else None)
    depth = torch.linspace(0, 1, layers)[:, None]  # (layers, 1)
    head = torch.linspace(0, 1, heads)[None]  # (1, heads)
    uniform = layout.distances().mean().float()
    distance = uniform * (depth + (1 - depth) * (0.12 + 0.85 * head**2)) * (0.97 - 0.1 * head * depth)
    mass = (0.02 + 0.5 * depth**2 * (1 - head)).expand(layers, heads) * (1 if prefix else 0)
    y, x = torch.linspace(-1, 1, rows)[:, None], torch.linspace(-1, 1, columns)[None]
    bumps = [torch.exp(-((x - 0.5 * np.cos(i)) ** 2 + (y - 0.5 * np.sin(i)) ** 2) / 0.2) + 0.15 for i in range(shown)]
    rollout = torch.stack([bump / bump.sum() for bump in bumps]) if shown else torch.zeros(0, rows, columns)
    angle = torch.arange(layers * heads).reshape(layers, heads, 1, 1) * 2.4
    width = 0.05 + 0.6 * depth[..., None, None].expand(layers, heads, 1, 1)
    wander = torch.exp(-((x - 0.6 * angle.cos()) ** 2 + (y - 0.6 * angle.sin()) ** 2) / width)
    maps = torch.stack([wander * bump for bump in bumps]) if shown else torch.zeros(0, layers, heads, rows, columns)
    maps = 0.8 * maps / maps.sum((-1, -2), keepdim=True)
    height, image_width = layout.image_height, layout.image_width
    grey = torch.linspace(30, 225, height)[:, None, None] * torch.ones(1, image_width, 3)
    tint = torch.stack([torch.linspace(60, 255, image_width).roll(40 * i) for i in range(3)], -1) / 255
    thumbnails = (grey * tint).to(torch.uint8)[None].repeat(shown, 1, 1, 1)
    wave = [
        torch.stack([torch.cos(torch.arange(n) * k * 3.14159 / n) for k in range(1, 5)], -1) for n in (rows, columns)
    ]
    places = torch.cat([wave[0][:, None].expand(rows, columns, 4), wave[1][None].expand(rows, columns, 4)], -1)
    places = places / places.norm(dim=-1, keepdim=True)
    wave_y = torch.cos(torch.arange(patch) * 3.14159 / patch)
    filters = torch.stack([torch.outer((i // 5) * wave_y, (i % 5) * wave_y).cos() for i in range(30)])
    filters = filters[:, None] * torch.tensor([1.0, 0.8, 0.6]).reshape(1, 3, 1, 1)
    return Inspection(
        layout=layout,
        images=shown,
        attention_distance=distance,
        attention_distance_spread=0.05 * distance,
        attention_distance_histogram=torch.ones(layers, heads, 64, dtype=torch.int64),
        attention_distance_renormalized=(distance / (1 - mass)).clamp(max=1.1 * uniform),
        attention_entropy=np.log2(layout.tokens) * (distance / distance.max()).sqrt(),
        attention_entropy_spread=0.05 * torch.ones(layers, heads),
        attention_entropy_histogram=torch.ones(layers, heads, 64, dtype=torch.int64),
        prefix_mass=mass,
        prefix_mass_spread=0.05 * mass,
        prefix_mass_histogram=torch.ones(layers, heads, 64, dtype=torch.int64),
        rollout_mean=rollout.mean(0) if shown else torch.ones(rows, columns) / (rows * columns),
        rollout=rollout,
        class_attention=maps,
        thumbnails=thumbnails,
        image_names=tuple(names or (f"photo-{i}.jpg" for i in range(shown))),
        predictions=tuple(tuple(zip(classes, (0.81, 0.1, 0.02), strict=False)) for _ in range(shown))
        if classes
        else (),
        filters=filters,
        filters_variance=0.2 * 0.8 ** torch.arange(30),
        position_similarity=torch.einsum("rcw,stw->rcst", places, places).clamp(-1, 1),
        position_structure={"locality": 0.62, "row_column": 0.41, "periodicity": 0.35},
        provenance={"model": "closed form", "notes": []},
    )


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


@pytest.fixture(scope="module")
def inspection():
    return closed_form_inspection(shown=2, layers=4, heads=3)


@pytest.fixture(scope="module")
def page(inspection):
    return report_html(inspection)


def with_strings(inspection, text):
    """The same inspection with `text` in every place where a string comes from outside."""
    return dataclasses.replace(
        inspection,
        image_names=(text,) * len(inspection.image_names),
        predictions=(((text, 0.5),) * 3,) * len(inspection.image_names),
        position_structure={text: 0.5},
        filters=None,
        provenance={
            "model": text,
            text + "key": {text: text},
            "list": [text, text],
            "notes": [text, f"filters: {text}"],
        },
    )


def test_the_report_is_one_file_written_whole(tmp_path, inspection, page):
    path = write_report(inspection, tmp_path / "new" / "report.html")
    assert path.read_text("utf-8") == page
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_a_folder_in_the_place_of_the_report_is_refused_with_advice(tmp_path, inspection):
    with pytest.raises(OutputError, match=r"add a name such as report\.html"):
        write_report(inspection, tmp_path)


def test_the_same_inspection_gives_the_same_bytes(inspection, page):
    assert report_html(inspection) == page


def test_the_title_is_the_models_name_unless_told(inspection, page):
    assert "<title>closed form</title>" in page
    assert "<title>My &amp; model</title>" in report_html(inspection, title="My & model")


def test_nothing_is_fetched_and_nothing_runs(page):
    elements = Elements(page)
    assert not set(elements.counts) & {"script", "link", "iframe", "object", "embed", "base", "form", "comment"}
    for tag, name, value in elements.attributes:
        if name in ("src", "href", "xlink:href"):
            assert value.startswith(("data:image/", "#")), (tag, name, value[:60])
        assert not name.startswith("on"), (tag, name)
    assert "http:" not in page
    assert "https:" not in page
    assert "@import" not in page
    assert "url(" not in re.sub(r"url\(#", "", page)


def test_a_policy_forbids_everything_but_its_own_styles_and_pictures(page):
    policy = next(value for _, name, value in Elements(page).attributes if "default-src" in value)
    assert policy == (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )


@pytest.fixture(scope="module")
def small():
    return closed_form_inspection(rows=2, columns=3, layers=1, heads=1, shown=1)


@pytest.fixture(scope="module")
def benign(small):
    return Elements(report_html(with_strings(small, "benign")))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_strings_add_no_element_and_no_attribute(small, benign, text):
    hostile = Elements(report_html(with_strings(small, text)))
    assert hostile.counts == benign.counts
    assert Counter(pair[:2] for pair in hostile.attributes) == Counter(pair[:2] for pair in benign.attributes)
    if text.isprintable() and len(text) < 100:
        assert text in "".join(hostile.text)  # shown as it is


def test_broken_unicode_can_be_written(tmp_path, small):
    path = write_report(with_strings(small, "\udcff"), tmp_path / "report.html")
    assert "?" in path.read_text("utf-8")


def test_the_table_has_the_numbers_of_every_layer(inspection, page):
    rows = re.findall(r'<tr><th scope="row">(\d+)</th>(.*?)</tr>', section(page, "layers"))
    assert [int(layer) for layer, _ in rows] == [0, 1, 2, 3]
    for layer, cells in rows:
        distance = inspection.attention_distance[int(layer)]
        entropy, mass = inspection.attention_entropy[int(layer)], inspection.prefix_mass[int(layer)]
        expected = [f"{float(value):.1f}" for value in (distance.mean(), distance.min(), distance.max())]
        expected += [f"{float(entropy.mean()):.2f}", f"{float(mass.mean()):.3f}"]
        assert re.findall(r"<td>(.*?)</td>", cells) == expected


def test_the_dashed_line_is_the_distance_of_uniform_attention():
    oracle = {(14, 14, 16): "116.5", (7, 7, 32): "115.5", (10, 20, 16): None}  # the first two: published values
    for (rows, columns, patch), expected in oracle.items():
        inspection = closed_form_inspection(rows=rows, columns=columns, patch=patch, layers=2, heads=2, shown=0)
        slow = f"{float(inspection.layout.distances().mean()):.1f}"
        assert expected in (None, slow)
        assert f"dashed: attention spread evenly over the grid, {slow} pixels" in report_html(inspection)


def test_the_trend_with_depth_is_told_in_numbers(inspection, page):
    trend = inspection.depth_trend
    distance = section(page, "distance")
    assert f"<dt>first layer mean</dt><dd>{trend['first_layer_mean']:.1f} px</dd>" in distance
    assert f"<dt>spread, change a layer</dt><dd>{trend['spread_per_layer']:+.2f} px</dd>" in distance


def test_predictions_and_the_peak_of_the_rollout_are_told_in_words(inspection, page):
    where = section(page, "where")
    assert where.count("<bdi>tabby cat</bdi></span><span>81.0%") == 2
    row, column = divmod(int(inspection.rollout[0].argmax()), 14)
    share = float(inspection.rollout[0].max())
    assert f"the largest share, {share:.1%}, at patch row {row}, column {column}" in where


def test_every_picture_has_words_and_every_table_a_caption(page):
    elements = Elements(page)
    alts = [value for tag, name, value in elements.attributes if (tag, name) == ("img", "alt")]
    heard = [value for tag, name, value in elements.attributes if (tag, name) == ("svg", "aria-label")]
    assert len(alts) == elements.counts["img"]
    assert sum(bool(alt) for alt in alts) == 6  # input, mask and patches of two images; the rest repeats them
    assert len(heard) == elements.counts["svg"] == 8
    assert all(len(words) > 30 for words in heard)
    assert elements.counts["caption"] == elements.counts["table"] == 2
    assert elements.counts["h1"] == 1


def test_every_id_is_there_once(page):
    ids = [value for _, name, value in Elements(page).attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_a_missing_measure_keeps_its_heading_and_says_why(inspection):
    lacking = dataclasses.replace(
        inspection,
        filters=None,
        filters_variance=None,
        position_similarity=None,
        provenance={"notes": ["position size: guessed", "position similarity: positions are rotary, without a table"]},
    )
    page = report_html(lacking)
    assert "Left out: positions are rotary, without a table." in section(page, "positions")
    assert "Left out: this model has none" in section(page, "filters")
    assert "<svg" not in section(page, "positions") + section(page, "filters")


def test_a_model_without_class_token_is_described_as_such():
    page = report_html(closed_form_inspection(prefix=0, layers=2, heads=2, shown=1))
    assert "Left out: this model has no tokens besides the patches" in section(page, "mass")
    assert "the mean of the patches" in section(page, "where")
    assert "class token" not in section(page, "heads")


@pytest.mark.parametrize("prefix", [1, 2, 5])
def test_prefix_tokens_are_counted_and_named(prefix):
    page = report_html(closed_form_inspection(prefix=prefix, layers=2, heads=2, shown=1))
    words = {1: "the class token", 2: "the class token and one more", 5: "the class token and 4 more"}[prefix]
    assert f"<dd>{prefix}<small>{words}</small></dd>" in page


def test_one_image_has_no_spread_and_no_class_has_no_list():
    page = report_html(closed_form_inspection(layers=2, heads=2, shown=1, classes=()))
    assert "standard deviation" not in section(page, "distance")
    assert "<ol" not in section(page, "where")
    assert "watched on 1 image." in page


def test_a_report_of_images_that_were_not_kept_has_no_pictures():
    page = report_html(closed_form_inspection(layers=2, heads=2, shown=0))
    assert "no image was kept" in section(page, "where")
    assert "no image was kept" in section(page, "heads")


def test_the_proof_of_the_capture_is_in_the_summary(inspection, page):
    proved = dataclasses.replace(inspection, provenance={"largest_proof_error": 2.4e-6})
    assert "<dd>2.4e-06<small>largest relative error</small></dd>" in report_html(proved)
    assert "<dd>not recorded</dd>" in page


@pytest.mark.parametrize(
    "shape",
    [
        {"rows": 8, "columns": 8, "patch": 4, "layers": 6, "heads": 4},
        {"rows": 10, "columns": 20, "layers": 3, "heads": 5},
        {"rows": 1, "columns": 3, "layers": 1, "heads": 1},
    ],
)
def test_any_grid_and_any_number_of_heads_make_a_report(shape):
    page = report_html(closed_form_inspection(shown=1, **shape))
    assert Elements(page).counts["svg"] == 7


@pytest.mark.slow
def test_a_report_of_eight_images_of_a_base_model_stays_below_3_megabytes():
    inspection = closed_form_inspection(shown=8)
    noise = torch.Generator().manual_seed(0)
    photographs = torch.randint(0, 256, (8, 28, 28, 3), generator=noise).repeat_interleave(8, 1).repeat_interleave(8, 2)
    maps = torch.rand(8, 12, 12, 14, 14, generator=noise)
    worst = dataclasses.replace(inspection, thumbnails=photographs.to(torch.uint8), class_attention=maps)
    assert len(report_html(worst).encode()) <= 3_000_000


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (360, "dark"), (1280, "light")])
def test_a_browser_opens_it_offline_without_scrolling_sideways(tmp_path, inspection, width, scheme):
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs chromium")
    path = write_report(with_strings(inspection, "x" * 5000), tmp_path / "report.html")
    asked, said = [], []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
        tab = context.new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: said.append(message.text))
        tab.goto(path.as_uri())
        tab.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true })")
        sideways = tab.evaluate("document.documentElement.scrollWidth")
        broken = tab.evaluate("[...document.images].filter(image => !image.naturalWidth).length")
        browser.close()
    assert sideways <= width
    assert broken == 0
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    assert said == []
