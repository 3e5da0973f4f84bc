"""Effect sizes: what each change did to each model's answers, how two models differ in it, and what follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from vitreous.arrangement.answers import MEASURES
from vitreous.arrangement.bootstrap import Means, Resampled, combined
from vitreous.arrangement.result import Arrangement, Effect, Interval, Kind, ModelArrangement

_ACCURACY, _AGREEMENT, _DIVERGENCE = (MEASURES.index(name) for name in ("accuracy", "agreement", "divergence"))


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


def effects(models: Sequence[Sampled], *, has_labels: bool) -> tuple[Effect, ...]:
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
    """What follows for the claim that CNNs do not encode where parts are, and ViTs do; with the numbers.

    The claim's strong form is that a CNN's answers stay when its parts change places. Its weak form is that a ViT
    depends on arrangement more than a CNN. Both are told by images cut into 4 x 4 tiles, or the nearest number of tiles
    that the models have in common: the strong form by what the CNN loses, the weak form by the difference of what both
    lose. A model that knows its classes no better than chance has nothing to lose, so that nothing follows from it.
    """
    pair = compared(arrangement.models)
    told = list(pair or arrangement.models[:1])
    k = _nearest_to_4(told)
    if k is None:
        return "No images were cut into tiles of the same size for the models, so nothing follows for the claim."
    parts = [_what_changes(arrangement, model, k) for model in told]
    cnn = next((model for model in told if model.kind == "CNN"), None)
    is_both = pair is not None and cnn is not None and pair[0].kind != "CNN"
    if is_both and cnn is not None:
        parts.append(_strong_form(arrangement, cnn, k))
    if pair is not None:
        parts.append(_difference(arrangement, pair, k, is_claim=is_both))
    if not is_both:
        parts.append("Whether ViTs depend on arrangement more than CNNs takes one model of each kind.")
    return f"Images cut into {k} x {k} tiles in another order: " + " ".join(parts)


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
    stays = f"it gives the same answer to {_percent(after.agreement)} of the images"
    if before.accuracy is None or after.accuracy is None:
        return f"{_of(model)}: {stays}."
    change = _size(arrangement, k, model.name)
    shares = f"{_percent(before.accuracy, plain=True)} to {_percent(after.accuracy, plain=True)}"
    return f"{_of(model)}: accuracy goes from {shares}, a change of {_points(change)}; {stays}."


def _strong_form(arrangement: Arrangement, cnn: ModelArrangement, k: int) -> str:
    claim = "that a CNN's answers stay when parts change places"
    change = _size(arrangement, k, cnn.name)
    if not _knows_its_classes(arrangement, cnn):
        return f"{cnn.name} knows the classes no better than chance, so nothing follows for the claim {claim}."
    if change is None or change.high is None or change.low is None:
        return f"These images are too few to tell anything of the claim {claim}."
    if change.high < 0:
        return f"The claim {claim} is refuted for {cnn.name} on these images."
    return f"These images do not refute the claim {claim}: they show no loss of {cnn.name}."


def _difference(
    arrangement: Arrangement, pair: tuple[ModelArrangement, ModelArrangement], k: int, *, is_claim: bool
) -> str:
    first, second = pair
    ignorant = [model.name for model in pair if not _knows_its_classes(arrangement, model)]
    if ignorant:
        if is_claim and second.name in ignorant:  # as was said
            return "So the two cannot be compared."
        return f"{ignorant[0]} knows the classes no better than chance, so the two cannot be compared."
    size = _size(arrangement, k, difference_name(first, second))
    words = "depends on arrangement"
    if size is None or size.low is None or size.high is None or size.low <= 0 <= size.high:
        verdict = f"Whether {first.name} {words} more than {second.name} or less cannot be told from these images"
    elif size.high < 0:
        verdict = f"{first.name} {words} more than {second.name}"
    else:
        verdict = f"{first.name} {words} less than {second.name}"
    if size is None:
        return f"{verdict}."
    return f"{verdict} (difference of the changes, on the same images: {_points(size)})."


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
    number = f"{change.value:+.1f} points"
    if change.low is None or change.high is None:
        return number
    return f"{number} [{change.low:+.1f}, {change.high:+.1f}]"
