"""What came out of the experiments on arrangement: plain numbers, ready for JSON, read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from vitreous.training.confidence import estimate

Kind = Literal["ViT", "hybrid", "CNN"]


@dataclass(frozen=True)
class Interval:
    """A number and where it would lie with other images, or other seeds, of the same kind.

    Attributes:
        value: what was measured.
        low: 95 % of such intervals hold the true value; None where it cannot be told.
        high: likewise.
    """

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Answers:
    """A model's answers to changed images, beside its own answers to the same images unchanged; means over images.

    Attributes:
        accuracy: share of images whose most likely class is the true one, in [0, 1]; None without labels.
        agreement: share of images whose most likely class stays the same, in [0, 1].
        divergence: Kullback-Leibler, from the class probabilities unchanged to those changed, in nats; 0 if equal.
        cosine: of the vectors that the head reads, changed and unchanged, in [-1, 1].
    """

    accuracy: Interval | None
    agreement: Interval
    divergence: Interval
    cosine: Interval


@dataclass(frozen=True)
class ModelArrangement:
    """All that was measured of one model.

    Attributes:
        name: for titles, unique among the models.
        kind: ViT, hybrid or CNN.
        parameters: how many numbers the model has learned.
        image_size: (image_height, image_width) in pixels that it sees.
        patch_size: (height, width) in pixels of a patch; of a CNN what one position of its last map stands for.
        shuffled: by k, of images cut into k x k tiles in another order; 1 is unchanged.
        layers: names of the places where features were read, first layer first.
        read_out: by condition, R^2 of a linear read-out of (row, column) of each layer on held-out images: "images as
            they are", "rolled images" (content tells no position), and "rolled images, WORDS", where WORDS is
            "no positions" or "no zero padding", of a hybrid both; empty for one image.
        positions: by what was done to the position embeddings: "zeroed", "shuffled", "transplanted"; empty for a model
            that has no table of them.
        shifted: by how many pixels images were shifted.
        equivariance: by pixels, for each layer how far features are from those of the unshifted image, moved alike:
            0 if equal, 1 if unrelated; None where it cannot be told.
        occluded: by order ("random", "centre first", "rollout"), then by share of patches hidden; 0 is unchanged.
        areas: by order, area under accuracy against the share, without labels under agreement, in [0, 1].
    """

    name: str
    kind: Kind
    parameters: int
    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    shuffled: Mapping[int, Answers]
    layers: tuple[str, ...]
    read_out: Mapping[str, tuple[float, ...]]
    positions: Mapping[str, Answers]
    shifted: Mapping[int, Answers]
    equivariance: Mapping[int, tuple[float | None, ...]]
    occluded: Mapping[str, Mapping[float, Answers]]
    areas: Mapping[str, Interval]


@dataclass(frozen=True)
class Effect:
    """One line of the table of effect sizes.

    Attributes:
        question: what was asked, such as "grid shuffle 4 x 4".
        of: a model's name, or "A minus B": the same images and changes for both, and so the interval is of pairs.
        measure: what the number is, such as "change of accuracy".
        unit: such as "points" or "nats".
        size: the number and its interval.
    """

    question: str
    of: str
    measure: str
    unit: str
    size: Interval


@dataclass(frozen=True)
class FacesModel:
    """One architecture of the faces task.

    Attributes:
        name: for the figure and the table.
        parameters: how many numbers it learns.
        sees: pixels a side that one of its features can see at most, before features are averaged.
        accuracies: by kind of test ("seen kinds", or the name of a displacement unseen in training), one share in
            [0, 1] a seed.
        seconds: of training, one a seed.
        answers: for each example the probability, of the first seed's model, that the arrangement is right.
    """

    name: str
    parameters: int
    sees: int
    accuracies: Mapping[str, tuple[float, ...]]
    seconds: tuple[float, ...]
    answers: tuple[float, ...]

    def interval(self, kind: str) -> Interval:
        """Mean accuracy on a kind of test and its 95 % t-interval over the seeds, of which one tells none."""
        found = estimate(self.accuracies[kind])
        if found.half_width is None:
            return Interval(found.mean)
        return Interval(found.mean, found.mean - found.half_width, found.mean + found.half_width)


@dataclass(frozen=True)
class Faces:
    """The faces task: is the arrangement of a drawn face's parts right or wrong?

    Attributes:
        seeds: one a training run of each model.
        steps: of training.
        batch_size: images of a step.
        test_images: for each kind of test, half of them right.
        kinds_seen: displacements in training.
        kinds_unseen: displacements only in the test.
        example_seed: draws the examples again.
        example_kinds: for each example "right", or its displacement.
        models: one an architecture.
        provenance: version, torch, machine, date, threads.
    """

    seeds: tuple[int, ...]
    steps: int
    batch_size: int
    test_images: int
    kinds_seen: tuple[str, ...]
    kinds_unseen: tuple[str, ...]
    example_seed: int
    example_kinds: tuple[str, ...]
    models: tuple[FacesModel, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Faces:
        """What `to_dict` made, also after a journey through JSON."""
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        models = tuple(
            FacesModel(
                **{
                    **model,
                    "accuracies": {kind: tuple(shares) for kind, shares in model["accuracies"].items()},
                    "seconds": tuple(model["seconds"]),
                    "answers": tuple(model["answers"]),
                }
            )
            for model in values["models"]
        )
        return cls(**{**plain, "models": models})


@dataclass(frozen=True)
class Arrangement:
    """What several models make of the same parts in another place.

    Attributes:
        data: the images' name.
        images: how many were looked at.
        has_labels: whether accuracies could be told.
        class_names: of the labels; of the models where there are none.
        seed: of every permutation, shift and resample.
        resamples: of the bootstrap that makes the intervals.
        rollout_of: the model whose rollout ordered the patches that were hidden; None where no model has attention.
        models: in the order in which they were named.
        effects: the table.
        notes: what was left out or done in another way, each a sentence.
        provenance: version, torch, device, threads, date, seconds; each model's source and file hash.
    """

    data: str
    images: int
    has_labels: bool
    class_names: tuple[str, ...]
    seed: int
    resamples: int
    rollout_of: str | None
    models: tuple[ModelArrangement, ...]
    effects: tuple[Effect, ...]
    notes: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON; numbers that are names become text there."""
        return asdict(self)
