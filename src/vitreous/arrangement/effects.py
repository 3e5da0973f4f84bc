"""Effect sizes: what each change did to each model's answers, how two models differ in it, and what follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from vitreous.arrangement.answers import MEASURES
from vitreous.arrangement.bootstrap import Means, Resampled, combined
from vitreous.arrangement.result import Arrangement, Effect, Interval, Kind, ModelArrangement

_ACCURACY, _AGREEMENT, _DIVERGENCE = (MEASURES.index(name) for name in ("accuracy", "agreement", "divergence"))

LEAST_IMAGES = 30
"""For a verdict in words: where a few images all change alike, so do all resamples, and intervals have no width."""


@dataclass(frozen=True, eq=False)
class Sampled:
    """One model's answers, with what they are in each resample of the images.

    Attributes:
        name: of the model.
        kind: ViT, hybrid or CNN.
        unchanged: of the images as they are.
        changed: by question, such as "grid shuffle 4 x 4".
        areas: by question, such as "occlusion, random".
    """

    name: str
    kind: Kind
    unchanged: Means
    changed: Mapping[str, Means]
    areas: Mapping[str, Resampled]


def effect_table(models: Sequence[Sampled], *, has_labels: bool) -> tuple[Effect, ...]:
    """The table: of each question and measure a row for each model, and one for the difference of two.

    Of changed images it has the change of accuracy, or without labels of agreement, and the divergence; of occlusion
    the area under the curve. Compared are the first model with attention and the first without, else the first two.
    Both answered the same changed images, so that the interval is of pairs.

    Args:
        models: in the order of the table.
        has_labels: whether accuracy can be told.
    """
    numbers = [_numbers(model, has_labels) for model in models]
    pair = compared(models)
    rows: list[Effect] = []
    for question, measure in dict.fromkeys(key for one in numbers for key in one):
        unit = "nats" if measure == "divergence" else "points"
        told = [one.get((question, measure)) for one in numbers]
        for model, number in zip(models, told, strict=True):
            if number is not None:
                rows.append(Effect(question, model.name, measure, unit, number.interval()))
        first, second = (told[models.index(one)] for one in pair) if pair else (None, None)
        if pair and first is not None and second is not None:
            difference = combined([(1, first), (-1, second)]).interval()
            rows.append(Effect(question, difference_name(*pair), measure, unit, difference))
    return tuple(rows)


def shuffle_question(k: int) -> str:
    """What rows are called that are about images cut into k x k tiles."""
    return f"grid shuffle {k} x {k}"


def difference_name(first: _Named, second: _Named) -> str:
    """What a row is said to be of, that is about the difference of two models."""
    return f"{first.name} minus {second.name}"


def compared(models: Sequence[_Model]) -> tuple[_Model, _Model] | None:
    """The first model with attention and the first without, else the first two; None of a single model."""
    attending = [model for model in models if model.kind != "CNN"]
    others = [model for model in models if model.kind == "CNN"]
    if attending and others:
        return attending[0], others[0]
    return (models[0], models[1]) if len(models) > 1 else None


def sentence(arrangement: Arrangement) -> str:
    """What follows for the claim that a CNN's answers stay when parts change places; verdict first, then the numbers.

    Told by images cut into 4 x 4 tiles, or the nearest number of tiles that the models have in common. The claim does
    not hold for a CNN that surely loses accuracy, without labels one that surely changes answers. A model that knows
    its classes no better than chance has nothing to lose, and few images give no verdict; then nothing follows.

    Two models are compared by the points that they lose. The one that knew more has more to lose, so that the share of
    its accuracy beyond chance is told beside them, without an interval.
    """
    pair = compared(arrangement.models)
    told = list(pair or arrangement.models[:1])
    k = _nearest_to_4(told)
    if k is None:
        return "No images were cut into tiles of the same size for the models, so nothing follows for the claim."
    is_both = pair is not None and pair[0].kind != "CNN" and pair[1].kind == "CNN"
    if is_both:
        told = told[::-1]  # the CNN, which the claim is about
    changes = "; ".join(_what_changes(arrangement, model, k) for model in told)
    parts = [_verdict(arrangement, told[0], k)] * is_both
    parts.append(f"With images cut into {k} x {k} tiles in another order, {changes}.")
    if pair is not None:
        parts.append(_difference(arrangement, pair, k))
    if not is_both:
        parts.append("To tell whether ViTs depend on arrangement more than CNNs takes one model of each kind.")
    parts.append("Cutting also makes edges that no photograph has; part of a change may be due to these.")
    return " ".join(parts)


class _Named(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> Kind: ...


_Model = TypeVar("_Model", bound=_Named)


def _numbers(model: Sampled, has_labels: bool) -> dict[tuple[str, str], Resampled]:
    """By (question, measure), in the order of the table."""
    index, words = (_ACCURACY, "accuracy") if has_labels else (_AGREEMENT, "agreement")
    before = model.unchanged.measure(index)
    found: dict[tuple[str, str], Resampled] = {}
    for question, means in model.changed.items():
        found[question, f"change of {words}"] = combined([(100, means.measure(index)), (-100, before)])
        found[question, "divergence"] = means.measure(_DIVERGENCE)
    for question, area in model.areas.items():
        found[question, f"area under {words}"] = combined([(100, area)])
    return found


def _nearest_to_4(models: Sequence[ModelArrangement]) -> int | None:
    """The number of tiles a side, of those that all models saw; the smaller of two equally near."""
    common = set.intersection(*(set(model.shuffled) for model in models)) - {1}
    return min(common, key=lambda k: (abs(k - 4), k)) if common else None


def _what_changes(arrangement: Arrangement, model: ModelArrangement, k: int) -> str:
    before, after = model.shuffled[1], model.shuffled[k]
    keeps = f"keeps {_percent(after.agreement)} of its answers"
    if before.accuracy is None or after.accuracy is None:
        return f"{_of(model)} {keeps}"
    shares = f"{_percent(before.accuracy, plain=True)} to {_percent(after.accuracy, plain=True)}"
    return f"{_of(model)} goes from {shares} accuracy ({_points(_size(arrangement, k, model.name))}) and {keeps}"


def _verdict(arrangement: Arrangement, cnn: ModelArrangement, k: int) -> str:
    claim = "the claim that a CNN's answers stay when parts change places"
    change = _size(arrangement, k, cnn.name)
    if not _knows_its_classes(arrangement, cnn):
        return f"Nothing follows for {claim}: {cnn.name} answers no better than chance."
    if arrangement.images < LEAST_IMAGES or change is None or change.high is None:
        return f"Nothing follows for {claim}: the images are too few."
    if change.high < 0:
        return f"On these images {claim} does not hold for {cnn.name}."
    if arrangement.has_labels:  # answers may have changed from wrong to wrong
        return f"The accuracy of {cnn.name} does not refute {claim}: it shows no sure loss."
    return f"The answers of {cnn.name} do not refute {claim}: they show no sure change."


def _difference(arrangement: Arrangement, pair: tuple[ModelArrangement, ModelArrangement], k: int) -> str:
    first, second = pair
    ignorant = [model.name for model in pair if not _knows_its_classes(arrangement, model)]
    if ignorant:
        know = "knows" if len(ignorant) == 1 else "know"
        return f"{' and '.join(ignorant)} {know} the classes no better than chance, so the two cannot be compared."
    loses, less, what = ("loses", "less", "") if arrangement.has_labels else ("changes", "fewer", " of its answers")
    size = _size(arrangement, k, difference_name(first, second))
    if size is None or size.low is None or size.high is None:
        return f"Which of the two {loses} more{what} cannot be told from these images."
    numbers = f"(difference on the same images: {_points(size)}).{_shares(arrangement, pair, k)}"
    if arrangement.images < LEAST_IMAGES or size.low <= 0 <= size.high:
        return f"Which of the two {loses} more{what} cannot be told from these images {numbers}"
    return f"{first.name} {loses} {'more' if size.high < 0 else less}{what} than {second.name} {numbers}"


def _shares(arrangement: Arrangement, pair: tuple[ModelArrangement, ModelArrangement], k: int) -> str:
    """How much of the accuracy above chance both lose; nothing without labels."""
    lost = []
    for model in pair:
        before, after = model.shuffled[1].accuracy, model.shuffled[k].accuracy
        if before is None or after is None or not arrangement.class_names:
            return ""
        beyond = before.value - 1 / len(arrangement.class_names)  # above 0: the model knows its classes
        lost.append(f"{100 * (before.value - after.value) / beyond:.0f} %")
    first, second = pair
    return f" Of its accuracy beyond chance, {first.name} loses {lost[0]}, {second.name} {lost[1]}."


def _knows_its_classes(arrangement: Arrangement, model: ModelArrangement) -> bool:
    """Whether accuracy is above chance, as far as labels tell; without labels it is taken for granted."""
    accuracy, classes = model.shuffled[1].accuracy, len(arrangement.class_names)
    return accuracy is None or not classes or (accuracy.value if accuracy.low is None else accuracy.low) > 1 / classes


def _size(arrangement: Arrangement, k: int, of: str) -> Interval | None:
    """The change of accuracy, without labels of agreement, that the table has."""
    question = shuffle_question(k)
    rows = (row for row in arrangement.effects if row.question == question and row.of == of)
    return next((row.size for row in rows if row.measure.startswith("change of ")), None)


def _of(model: ModelArrangement) -> str:
    return model.name if model.kind in model.name else f"{model.name} ({model.kind})"


def _percent(share: Interval, *, plain: bool = False) -> str:
    number = f"{100 * share.value:.1f} %"
    if plain or share.low is None or share.high is None:
        return number
    return f"{number} [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def _points(change: Interval | None) -> str:
    if change is None:
        return "an unknown size"
    number = f"{_signed(change.value)} points"
    if change.low is None or change.high is None:
        return number
    return f"{number} [{_signed(change.low)}, {_signed(change.high)}]"


def _signed(points: float) -> str:
    rounded = round(points, 1)
    return f"{rounded:+.1f}" if rounded else "0.0"  # never -0.0
