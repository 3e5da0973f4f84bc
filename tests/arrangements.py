"""Made-up results of the experiments on arrangement, of sizes and shapes that real ones have."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vitreous.arrangement.result import Answers, Arrangement, Effect, Faces, FacesModel, Interval, ModelArrangement

FACE_KINDS = ("right", "displaced", "swapped", "upside down", "turned", "mouth above nose")


def interval(value: float, half: float | None = 0.02, least: float = 0.0) -> Interval:
    """Around the value, not quite in the middle."""
    return Interval(value) if half is None else Interval(value, max(value - half, least), value + 0.8 * half)


def answers(left: float, *, labels: bool = True, half: float | None = 0.02) -> Answers:
    """Of a model that keeps this share of what it knew: 1 unchanged, 0 nothing."""
    own = None if not left < 1 else half
    return Answers(
        accuracy=interval(0.1 + 0.72 * left, half) if labels else None,
        agreement=interval(0.1 + 0.9 * left, own),
        divergence=interval(3 * (1 - left), own and 3 * own),
        cosine=interval(0.2 + 0.8 * left, own),
    )


def model(
    name: str, kind: str = "ViT", *, strength: float = 1.0, labels: bool = True, half: float | None = 0.02
) -> ModelArrangement:
    """One of seven layers; `strength` scales what every change does to it."""

    def kept(change: float) -> Answers:
        return answers(math.exp(-strength * change), labels=labels, half=half)

    layers = (
        tuple(f"unit {layer}" for layer in range(6))
        if kind == "CNN"
        else ("embedding", *(f"layer {i}" for i in range(6)))
    )
    if kind == "hybrid":
        layers = ("unit 0", "unit 1", *layers)
    without = "no zero padding" if kind == "CNN" else "no positions"
    depths = [place / (len(layers) - 1) for place in range(len(layers))]
    shares = (0.0, 0.125, 0.25, 0.5, 0.75, 0.875)
    orders = {"random": 1.4, "centre first": 2.0, "rollout": 2.6}
    return ModelArrangement(
        name=name,
        kind=kind,  # type: ignore[arg-type]
        parameters=2_697_610,
        image_size=(32, 32),
        patch_size=(4, 4),
        shuffled={k: kept(0.8 * math.log2(k)) for k in (1, 2, 4, 8)},
        layers=layers,
        read_out={
            "images as they are": tuple(0.95 - 0.5 * depth for depth in depths),
            "rolled images": tuple(0.9 - 0.6 * depth for depth in depths),
            f"rolled images, {without}": tuple(-0.02 - 0.01 * depth for depth in depths),
        },
        positions={} if kind == "CNN" else {"zeroed": kept(1.0), "shuffled": kept(1.6), "transplanted": kept(0.7)},
        shifted={pixels: kept(0.03 * pixels) for pixels in (1, 2, 4)},
        equivariance={
            pixels: tuple((0.6 if pixels < 4 else 0.1) * strength * (0.4 + 0.5 * depth) for depth in depths)
            for pixels in (1, 2, 4)
        },
        occluded={order: {share: kept(speed * share) for share in shares} for order, speed in orders.items()},
        areas={order: interval(0.6 / speed + 0.2, half) for order, speed in orders.items()},
    )


def arrangement(
    models: Sequence[ModelArrangement] | None = None, *, labels: bool = True, **more: object
) -> Arrangement:
    """Of a ViT and a CNN, if not told otherwise."""
    both = [model("cifar10-ti4", labels=labels), model("cifar10-resnet", "CNN", strength=1.5, labels=labels)]
    shuffle, change = "grid shuffle 4 x 4", "change of accuracy"
    effects = (
        Effect(shuffle, "cifar10-ti4", change, "points", Interval(-42.3, -44.1, -40.2)),
        Effect(shuffle, "cifar10-resnet", change, "points", Interval(-65.5, -67.1, -63.2)),
        Effect(shuffle, "cifar10-ti4 minus cifar10-resnet", change, "points", Interval(23.2, 20.9, 25.4)),
        Effect("position embeddings zeroed", "cifar10-ti4", "divergence", "nats", Interval(1.234)),
        Effect("occlusion, random", "cifar10-ti4", "area under accuracy", "points", Interval(52.25, 0.5, 53)),
    )
    values: dict[str, object] = {
        "data": "cifar10",
        "images": 2000,
        "has_labels": labels,
        "class_names": ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        "seed": 0,
        "resamples": 1000,
        "rollout_of": "cifar10-ti4",
        "models": tuple(both if models is None else models),
        "effects": effects,
        "notes": ("k = 3 does not divide the image; 4 was used",),
        "provenance": {"vitreous": "0.5.0", "date": "2026-11-22", "models": {"cifar10-ti4": {"sha256": "0" * 64}}},
    }
    return Arrangement(**(values | more))  # type: ignore[arg-type]


def faces(*, seeds: int = 5, examples: int = 2, names: Sequence[str] | None = None) -> Faces:
    """Of five architectures; every second answer on kinds unseen is wrong."""
    tests = ("seen kinds", "upside down", "turned", "mouth above nose")
    given = names or ("CNN", "CNN without padding", "BagNet", "ViT, 1-D positions", "ViT, no positions")
    kinds = FACE_KINDS * examples
    models = tuple(
        FacesModel(
            name=name,
            parameters=150_000 + 1000 * place,
            sees=(48, 48, 9, 48, 48)[place % 5],
            accuracies={
                test: tuple(max(0.95 - 0.12 * place - 0.06 * nth + 0.01 * seed, 0.5) for seed in range(seeds))
                for nth, test in enumerate(tests)
            },
            seconds=tuple(40.0 + seed for seed in range(seeds)),
            answers=tuple(
                min(max(0.97 if kind == "right" else 0.03 + 0.15 * place * (at % 2), 0.0), 1.0)
                for at, kind in enumerate(kinds)
            ),
        )
        for place, name in enumerate(given)
    )
    return Faces(
        seeds=tuple(range(seeds)),
        steps=1500,
        batch_size=128,
        test_images=1000,
        kinds_seen=("displaced", "swapped"),
        kinds_unseen=tests[1:],
        example_seed=7,
        example_kinds=kinds,
        models=models,
        provenance={"vitreous": "0.5.0", "machine": "2 cores", "date": "2026-11-22"},
    )
