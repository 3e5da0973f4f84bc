from __future__ import annotations

import pytest
import torch

from vitreous.arrangement.bootstrap import Means, Weights
from vitreous.arrangement.effects import Sampled, effect_table, sentence, shuffle_question
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
    table = effect_table([sampled("vit", "ViT", 0.5), sampled("cnn", "CNN", 0.25)], has_labels=True)
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
    rows = {row.of: row.size for row in effect_table(twins, has_labels=True) if row.measure == "change of accuracy"}
    alone = rows["one"]
    assert alone.low is not None and alone.high is not None and alone.high - alone.low > 5
    assert rows["one minus other"] == Interval(0, 0, 0)


def test_the_first_vit_is_compared_with_the_first_cnn() -> None:
    models = [sampled("c1", "CNN", 0.5), sampled("c2", "CNN", 0.5), sampled("h", "hybrid", 0.5)]
    assert "h minus c1" in {row.of for row in effect_table(models, has_labels=True)}
    assert "c1 minus c2" in {row.of for row in effect_table(models[:2], has_labels=True)}
    assert {row.of for row in effect_table(models[:1], has_labels=True)} == {"c1"}


def test_without_labels_the_table_tells_agreement() -> None:
    table = effect_table([sampled("vit", "ViT", 0.5)], has_labels=False)
    sizes = {row.measure: row.size.value for row in table}
    assert sizes["change of agreement"] == pytest.approx(-40)
    assert "area under agreement" in sizes and not any("accuracy" in measure for measure in sizes)


def test_what_only_one_model_was_asked_has_no_difference() -> None:
    one = sampled("vit", "ViT", 0.5)
    other = Sampled("cnn", "CNN", one.unchanged, {}, {})
    assert {row.of for row in effect_table([one, other], has_labels=True)} == {"vit"}


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
    *models: ModelArrangement, rows: dict[str, tuple[float, float | None, float | None]], k: int = 4, images: int = 900
) -> Arrangement:
    table = tuple(
        Effect(shuffle_question(k), of, "change of accuracy", "points", Interval(*size)) for of, size in rows.items()
    )
    has_labels = models[0].shuffled[1].accuracy is not None
    return Arrangement(
        data="d", images=images, has_labels=has_labels, class_names=("a", "b", "c", "d"), seed=0, resamples=9,
        rollout_of=None, models=models, effects=table, notes=(),
    )  # fmt: skip


VIT, CNN = model("vit", "ViT", 0.8, 0.5), model("cnn", "CNN", 0.9, 0.3)
LOSES = {"vit": (-30.0, -33.0, -27.0), "cnn": (-60.0, -63.0, -57.0)}


CLAIM = "the claim that a CNN's answers stay when parts change places"


def test_a_cnn_that_loses_is_against_the_claim() -> None:
    told = sentence(arrangement(VIT, CNN, rows={**LOSES, "vit minus cnn": (30.0, 26.0, 34.0)}))
    assert told == (
        f"On these images {CLAIM} does not hold for cnn. With images cut into 4 x 4 tiles in another order, cnn (CNN) "
        "goes from 90.0 % to 30.0 % accuracy (-60.0 points [-63.0, -57.0]) and keeps 60.0 % [58.0, 62.0] of its "
        "answers; vit (ViT) goes from 80.0 % to 50.0 % accuracy (-30.0 points [-33.0, -27.0]) and keeps 60.0 % "
        "[58.0, 62.0] of its answers. vit loses less than cnn (difference on the same images: +30.0 points [+26.0, "
        "+34.0]). Of its accuracy beyond chance, vit loses 55 %, cnn 92 %. "
        "Cutting also makes edges that no photograph has; part of a change may be due to these."
    )
    words = [word for word in told.split() if any(letter.isalpha() for letter in word)]
    assert len(words) <= 90


def test_the_sentence_follows_the_numbers_the_other_way() -> None:
    vit, cnn = model("vit", "ViT", 0.8, 0.3), model("cnn", "CNN", 0.9, 0.89)
    rows = {"vit": (-50.0, -53.0, -47.0), "cnn": (-1.0, -3.0, 1.0), "vit minus cnn": (-49.0, -52.0, -46.0)}
    told = sentence(arrangement(vit, cnn, rows=rows))
    assert told.startswith(f"The accuracy of cnn does not refute {CLAIM}: it shows no sure loss. ")
    assert "does not hold" not in told and "vit loses more than cnn (" in told


def test_what_each_had_to_lose_is_told() -> None:
    vit, cnn = model("vit", "ViT", 0.5, 0.4), model("cnn", "CNN", 0.9, 0.7)  # chance is 0.25
    rows = {"vit": (-10.0, -12.0, -8.0), "cnn": (-20.0, -22.0, -18.0), "vit minus cnn": (10.0, 8.0, 12.0)}
    told = sentence(arrangement(vit, cnn, rows=rows))
    assert "vit loses less than cnn (" in told
    assert "). Of its accuracy beyond chance, vit loses 40 %, cnn 31 %. Cutting" in told  # 10 of 25, 20 of 65 points


@pytest.mark.parametrize("size", [(-1.0, -4.0, 2.0), (-1.0, None, None), (0.0, 0.0, 0.0)])
def test_what_cannot_be_told_is_not_told(size: tuple[float, float | None, float | None]) -> None:
    told = sentence(arrangement(VIT, CNN, rows={**LOSES, "vit minus cnn": size}))
    assert "Which of the two loses more cannot be told" in told and "loses less" not in told


def test_few_images_tell_nothing_of_the_claim() -> None:
    rows = dict.fromkeys(("vit", "cnn", "vit minus cnn"), (0.0, None, None))
    one = sentence(arrangement(VIT, CNN, rows=rows, images=1))
    sure = {**LOSES, "vit minus cnn": (30.0, 26.0, 34.0)}  # as the resamples of two or three images can be
    for told in (one, sentence(arrangement(VIT, CNN, rows=sure, images=29))):
        assert told.startswith(f"Nothing follows for {CLAIM}: the images are too few.")
        assert "Which of the two loses more cannot be told" in told
    assert "does not hold for cnn" in sentence(arrangement(VIT, CNN, rows=sure, images=30))


def test_no_change_has_no_sign() -> None:
    rows = dict.fromkeys(("vit", "cnn", "vit minus cnn"), (-1e-15, -0.01, 0.04))
    assert "(0.0 points [0.0, 0.0])" in sentence(arrangement(VIT, CNN, rows=rows))


def test_a_model_at_chance_tells_nothing() -> None:
    guessing = model("cnn", "CNN", 0.26, 0.25)  # of four classes, with an interval that holds 1 / 4
    told = sentence(arrangement(VIT, guessing, rows={**LOSES, "vit minus cnn": (-30.0, -33.0, -27.0)}))
    assert told.startswith(f"Nothing follows for {CLAIM}: cnn answers no better than chance.")
    assert "cannot be compared" in told
    assert "loses" not in told and "does not hold" not in told and "refute" not in told
    told = sentence(arrangement(model("vit", "ViT", 0.26, 0.25), CNN, rows=LOSES))
    assert "vit knows the classes no better than chance, so the two cannot be compared" in told
    assert "does not hold for cnn" in told


@pytest.mark.parametrize("kinds", [("ViT", "hybrid"), ("CNN", "CNN"), ("ViT",), ("CNN",)])
def test_models_of_one_kind_say_nothing_of_the_claim(kinds: tuple[Kind, ...]) -> None:
    models = [model(f"m{number}", kind, 0.8, 0.4) for number, kind in enumerate(kinds)]
    rows = {"m0": (-40.0, -43.0, -37.0), "m1": (-40.0, -43.0, -37.0), "m0 minus m1": (5.0, 1.0, 9.0)}
    told = sentence(arrangement(*models, rows=rows))
    assert "takes one model of each kind" in told and "claim" not in told
    assert ("m0 loses less than m1" in told) == (len(models) == 2)


def test_without_labels_the_sentence_tells_agreement() -> None:
    models = [model(name, kind, 0.8, 0.4, labels=False) for name, kind in (("vit", "ViT"), ("cnn", "CNN"))]
    told = sentence(arrangement(*models, rows={**LOSES, "vit minus cnn": (30.0, 26.0, 34.0)}))
    assert "accuracy" not in told and "cnn (CNN) keeps 60.0 % [58.0, 62.0] of its answers; vit" in told
    assert "vit changes fewer of its answers than cnn" in told
    rows = {"cnn": (-0.1, -0.3, 0.0), "vit": (-30.0, -33.0, -27.0), "vit minus cnn": (-29.9, -33.0, -27.0)}
    told = sentence(arrangement(*models, rows=rows))
    assert told.startswith(f"The answers of cnn do not refute {CLAIM}: they show no sure change. ")
    assert "vit changes more of its answers than cnn" in told


def test_the_grid_nearest_to_4_that_both_saw_is_told() -> None:
    both = [model("vit", "ViT", 0.8, 0.5, k=3), model("cnn", "CNN", 0.9, 0.3, k=3)]
    rows = {**LOSES, "vit minus cnn": (30.0, 26.0, 34.0)}
    assert "cut into 3 x 3 tiles" in sentence(arrangement(*both, rows=rows, k=3))
    apart = sentence(arrangement(VIT, both[1], rows={}))
    assert "nothing follows for the claim" in apart
