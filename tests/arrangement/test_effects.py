from __future__ import annotations

import pytest
import torch

from vitreous.arrangement.bootstrap import Means, Weights
from vitreous.arrangement.effects import Sampled, effects, sentence, shuffle_question
from vitreous.arrangement.result import Answers, Arrangement, Effect, Interval, Kind, ModelArrangement

IMAGES = 200


def answered(right: torch.Tensor, stays: torch.Tensor, divergence: float = 0.0) -> Means:
    means = Means()
    values = torch.stack([right.double(), stays.double(), torch.full((IMAGES,), divergence), torch.ones(IMAGES)], dim=1)
    means.add(values, Weights(0, 400).of(torch.arange(IMAGES)))
    return means


def sampled(name: str, kind: Kind, kept: float, area: int = 1) -> Sampled:
    """A model that is right for 4 of 5 images, and for a share of these when they are changed."""
    place = torch.arange(IMAGES) / IMAGES
    before, after = place < 0.8, place < 0.8 * kept
    changed = answered(after, after == before, divergence=1 - kept)
    whole = torch.ones(IMAGES, dtype=torch.bool)
    areas = {"occlusion, random": changed.measure(area)}
    return Sampled(name, kind, answered(before, whole), {shuffle_question(4): changed}, areas)


def test_the_table_has_each_model_and_their_difference() -> None:
    table = effects([sampled("vit", "ViT", 0.5), sampled("cnn", "CNN", 0.25)], has_labels=True)
    found = {(row.question, row.of, row.measure): (row.size.value, row.unit) for row in table}
    question = "grid shuffle 4 x 4"
    assert list(found) == [
        (question, "vit", "change of accuracy"),
        (question, "cnn", "change of accuracy"),
        (question, "vit minus cnn", "change of accuracy"),
        (question, "vit", "divergence"),
        (question, "cnn", "divergence"),
        (question, "vit minus cnn", "divergence"),
        ("occlusion, random", "vit", "area under accuracy"),
        ("occlusion, random", "cnn", "area under accuracy"),
        ("occlusion, random", "vit minus cnn", "area under accuracy"),
    ]
    assert found[question, "vit", "change of accuracy"] == (pytest.approx(-40), "points")
    assert found[question, "vit minus cnn", "change of accuracy"] == (pytest.approx(20), "points")
    assert found[question, "cnn", "divergence"] == (pytest.approx(0.75), "nats")
    assert found["occlusion, random", "vit", "area under accuracy"] == (pytest.approx(60), "points")


def test_intervals_of_a_difference_are_of_pairs() -> None:
    twins = [sampled("one", "ViT", 0.5), sampled("other", "CNN", 0.5)]
    rows = {row.of: row.size for row in effects(twins, has_labels=True) if row.measure == "change of accuracy"}
    alone = rows["one"]
    assert alone.low is not None and alone.high is not None and alone.high - alone.low > 5
    assert rows["one minus other"] == Interval(0, 0, 0)


def test_the_first_vit_is_compared_with_the_first_cnn() -> None:
    models = [sampled("c1", "CNN", 0.5), sampled("c2", "CNN", 0.5), sampled("h", "hybrid", 0.5)]
    assert "h minus c1" in {row.of for row in effects(models, has_labels=True)}
    assert "c1 minus c2" in {row.of for row in effects(models[:2], has_labels=True)}
    assert {row.of for row in effects(models[:1], has_labels=True)} == {"c1"}


def test_without_labels_the_table_tells_agreement() -> None:
    table = effects([sampled("vit", "ViT", 0.5)], has_labels=False)
    sizes = {row.measure: row.size.value for row in table}
    assert sizes["change of agreement"] == pytest.approx(-40)
    assert "area under agreement" in sizes and not any("accuracy" in measure for measure in sizes)


def test_what_only_one_model_was_asked_has_no_difference() -> None:
    one = sampled("vit", "ViT", 0.5)
    other = Sampled("cnn", "CNN", one.unchanged, {}, {})
    assert {row.of for row in effects([one, other], has_labels=True)} == {"vit"}


def model(name: str, kind: Kind, before: float, after: float, k: int = 4, labels: bool = True) -> ModelArrangement:
    def answers(share: float, agreement: float) -> Answers:
        accuracy = Interval(share, share - 0.02, share + 0.02) if labels else None
        same = Interval(agreement, agreement - 0.02, min(1, agreement + 0.02))
        return Answers(accuracy, same, Interval(0.5), Interval(0.5))

    return ModelArrangement(
        name=name, kind=kind, parameters=1, image_size=(8, 8), patch_size=(4, 4),
        shuffled={1: answers(before, 1.0), k: answers(after, 0.6)}, layers=(), read_out={}, positions={}, shifted={},
        equivariance={}, occluded={}, areas={},
    )  # fmt: skip


def arrangement(
    *models: ModelArrangement, rows: dict[str, tuple[float, float | None, float | None]], k: int = 4
) -> Arrangement:
    table = tuple(
        Effect(shuffle_question(k), of, "change of accuracy", "points", Interval(*size)) for of, size in rows.items()
    )
    return Arrangement(
        data="d", images=9, has_labels=True, class_names=("a", "b", "c", "d"), seed=0, resamples=9, rollout_of=None,
        models=models, effects=table, notes=(),
    )  # fmt: skip


VIT, CNN = model("vit", "ViT", 0.8, 0.5), model("cnn", "CNN", 0.9, 0.3)
LOSES = {"vit": (-30.0, -33.0, -27.0), "cnn": (-60.0, -63.0, -57.0)}


def test_a_cnn_that_loses_refutes_the_strong_form() -> None:
    told = sentence(arrangement(VIT, CNN, rows={**LOSES, "vit minus cnn": (30.0, 26.0, 34.0)}))
    assert told.startswith(
        "Images cut into 4 x 4 tiles in another order: vit (ViT): accuracy goes from 80.0 % to 50.0 %"
    )
    assert "a change of -30.0 points [-33.0, -27.0]; it gives the same answer to 60.0 % [58.0, 62.0]" in told
    assert "is refuted for cnn on these images" in told
    assert "vit depends on arrangement less than cnn" in told and "+30.0 points [+26.0, +34.0]" in told


def test_the_sentence_follows_the_numbers_the_other_way() -> None:
    rows = {"vit": (-60.0, -63.0, -57.0), "cnn": (-1.0, -3.0, 1.0), "vit minus cnn": (-59.0, -62.0, -56.0)}
    told = sentence(arrangement(VIT, CNN, rows=rows))
    assert "do not refute the claim" in told and "is refuted" not in told
    assert "vit depends on arrangement more than cnn" in told


@pytest.mark.parametrize("size", [(-1.0, -4.0, 2.0), (-1.0, None, None), (0.0, 0.0, 0.0)])
def test_what_cannot_be_told_is_not_told(size: tuple[float, float | None, float | None]) -> None:
    told = sentence(arrangement(VIT, CNN, rows={**LOSES, "vit minus cnn": size}))
    assert "Whether vit depends on arrangement more than cnn or less cannot be told" in told


def test_one_image_tells_nothing_of_the_claim() -> None:
    rows = dict.fromkeys(("vit", "cnn", "vit minus cnn"), (0.0, None, None))
    told = sentence(arrangement(VIT, CNN, rows=rows))
    assert "too few to tell" in told and "cannot be told" in told


def test_a_model_at_chance_tells_nothing() -> None:
    guessing = model("cnn", "CNN", 0.26, 0.25)  # of four classes, with an interval that holds 1 / 4
    told = sentence(arrangement(VIT, guessing, rows={**LOSES, "vit minus cnn": (-30.0, -33.0, -27.0)}))
    assert "cnn knows the classes no better than chance" in told and "cannot be compared" in told
    assert "depends on arrangement" not in told and "refute" not in told
    told = sentence(arrangement(model("vit", "ViT", 0.26, 0.25), CNN, rows=LOSES))
    assert "vit knows the classes no better than chance, so the two cannot be compared" in told
    assert "is refuted for cnn" in told


@pytest.mark.parametrize("kinds", [("ViT", "hybrid"), ("CNN", "CNN"), ("ViT",), ("CNN",)])
def test_models_of_one_kind_say_nothing_of_the_claim(kinds: tuple[Kind, ...]) -> None:
    models = [model(f"m{number}", kind, 0.8, 0.4) for number, kind in enumerate(kinds)]
    rows = {"m0": (-40.0, -43.0, -37.0), "m1": (-40.0, -43.0, -37.0), "m0 minus m1": (5.0, 1.0, 9.0)}
    told = sentence(arrangement(*models, rows=rows))
    assert "takes one model of each kind" in told and "claim" not in told
    assert ("m0 depends on arrangement less than m1" in told) == (len(models) == 2)


def test_without_labels_the_sentence_tells_agreement() -> None:
    models = [model(name, kind, 0.8, 0.4, labels=False) for name, kind in (("vit", "ViT"), ("cnn", "CNN"))]
    told = sentence(arrangement(*models, rows={**LOSES, "vit minus cnn": (30.0, 26.0, 34.0)}))
    assert "accuracy" not in told and "same answer to 60.0 %" in told and "less than cnn" in told


def test_the_grid_nearest_to_4_that_both_saw_is_told() -> None:
    both = [model("vit", "ViT", 0.8, 0.5, k=3), model("cnn", "CNN", 0.9, 0.3, k=3)]
    rows = {**LOSES, "vit minus cnn": (30.0, 26.0, 34.0)}
    assert "cut into 3 x 3 tiles" in sentence(arrangement(*both, rows=rows, k=3))
    apart = sentence(arrangement(VIT, both[1], rows={}))
    assert "nothing follows for the claim" in apart
