import pytest
import torch
from PIL import Image

from vitreous.compared import compare
from vitreous.errors import OutputError, ShapeError
from vitreous.figures import canvas
from vitreous.figures.comparison import write_comparison_figures
from vitreous.figures.filters import draw_filter_sets
from vitreous.figures.similarity import draw_position_similarities
from vitreous.inspection import Inspection
from vitreous.tokens import TokenLayout


def make(model):
    heads = torch.tensor([[1.0, 3.0], [2.0, 4.0]])
    names = ("attention_distance", "attention_entropy", "prefix_mass")
    return Inspection(
        layout=TokenLayout(0, 2, 2, 4, 4),
        images=1,
        **dict.fromkeys([*names, "attention_distance_renormalized"], heads),
        **{f"{name}_{kind}": heads for name in names for kind in ("spread", "histogram")},
        rollout_mean=torch.ones(2, 2),
        rollout=torch.ones(1, 2, 2),
        class_attention=torch.ones(1, 2, 2, 2, 2),
        thumbnails=torch.zeros(1, 8, 8, 3, dtype=torch.uint8),
        image_names=("a",),
        position_similarity=torch.ones(2, 2, 2, 2),
        provenance={"model": model},
    )


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr("vitreous.figures.files.DOTS_PER_INCH", 30)


def test_each_figure_is_a_pdf_and_a_png_and_nothing_half_is_left(tmp_path):
    written = write_comparison_figures(compare([make("a"), make("b")]), tmp_path / "new")
    names = ["attention-distance-overlay", "attention-entropy-overlay", "attention-distance", "attention-rollout"]
    names.append("position-similarity")  # no prefix tokens, no filters
    assert [path.name for path in written] == [f"{name}.{kind}" for name in names for kind in ("pdf", "png")]
    assert sorted(written) == sorted((tmp_path / "new").iterdir())


def test_a_run_also_has_lines_over_training_and_a_film_with_a_frame_a_checkpoint(tmp_path):
    run = compare([make(f"epoch-{epoch:04d}") for epoch in range(3)])
    written = write_comparison_figures(run, tmp_path)
    assert {"attention-distance-over-training.pdf", "attention-entropy-over-training.png"} <= {
        path.name for path in written
    }
    assert written[-1] == tmp_path / "training.gif"
    with Image.open(written[-1]) as animation:
        assert animation.n_frames == 3


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_comparison_figures(compare([make("a"), make("b")]), tmp_path / "file")


def test_sheets_side_by_side_are_named_and_in_order():
    similarities = {name: torch.full((2, 2, 2, 2), value) for name, value in {"a": 0.25, "b": 0.75}.items()}
    left, right = draw_position_similarities(similarities, {"b": {"locality": 0.5}}).axes
    assert [axes.get_title(loc="left") for axes in (left, right)] == ["a", "b"]
    assert [axes.images[0].get_array().max() for axes in (left, right)] == [0.25, 0.75]
    assert [text.get_text() for text in right.texts] == ["locality 0.50"]
    filters = {
        name: (torch.rand(2, 3, 4, 4), torch.tensor([share, 0.1])) for name, share in {"a": 0.5, "b": 0.6}.items()
    }
    figure = draw_filter_sets(filters)
    assert [figure.axes[index].get_title(loc="left") for index in (0, 2)] == ["a", "b"]
    assert [figure.axes[index].lines[0].get_ydata()[-1] for index in (1, 3)] == pytest.approx([60, 70])
    with pytest.raises(ShapeError, match="at least one model"):
        draw_position_similarities({})


def test_a_caption_is_as_wide_as_its_axes():
    texts = []
    for width in (3.0, 6.0):
        axes = canvas.blank(width, 2).add_subplot()
        canvas.caption(axes, "word " * 40)
        texts.append(max(map(len, axes.texts[0].get_text().splitlines())))
    assert texts[1] / texts[0] == pytest.approx(2, rel=0.15)
