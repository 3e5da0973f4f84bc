"""The faces task: can a model tell a face from the same parts in other places? Trained and tested over several seeds.

Half of all faces are right. Training draws new ones at every step and shows none twice; its wrong ones are displaced
or swapped. The test has these, and arrangements that no training step has shown.
"""

from __future__ import annotations

import json
import math
import platform
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitreous.arrangement.face_models import LEARNING_RATES, MODELS, make_model, pixels_seen
from vitreous.arrangement.face_places import RIGHT
from vitreous.arrangement.faces import draw_faces, standardised
from vitreous.arrangement.result import Faces, FacesModel
from vitreous.atomic import check_writable, write_atomically
from vitreous.checking import check_choice, check_count
from vitreous.data.order import keyed_seed
from vitreous.errors import ConfigError, InputError, NumericError
from vitreous.progress import progress_bar, say
from vitreous.training.config import Optim
from vitreous.training.optimizer import learning_rate, make_optimizers, set_learning_rate
from vitreous.training.reproducible import reproducible

KINDS_SEEN = ("displaced", "swapped")
KINDS_UNSEEN = ("upside down", "turned", "mouth above nose")
SEEN = "seen kinds"
EXAMPLES = tuple(kind for kind in (RIGHT, *KINDS_SEEN, *KINDS_UNSEEN) for _ in range(2))
"""Kinds of the faces that are shown with each model's answers."""

STEPS = 1600
BATCH_SIZE = 48
TEST_IMAGES = 1000

MEASURED = Path(__file__).with_name("faces.json")
"""What `run_faces` gave with five seeds when vitreous was released."""

_TRAINED = (RIGHT, "displaced", RIGHT, "swapped", RIGHT, "swapped")  # swaps are harder to learn, and so come twice
_TEST_SEED, _EXAMPLE_SEED = 2**40, 2**40 + 1  # no seed of a run
_WEIGHTS, _FACES = 1, 2  # what a run's seed draws
_WARMUP = 0.1  # share of the steps
_TESTED_AT_ONCE = 250


@dataclass(frozen=True)
class Settings:
    """What fixes the numbers of one run.

    Attributes:
        model: a key of `MODELS`.
        seed: of its first weights and of the faces that it learns from.
        steps: of training.
        batch_size: images of a step.
        test_images: for each kind of test; half of them are right.
    """

    model: str
    seed: int
    steps: int = STEPS
    batch_size: int = BATCH_SIZE
    test_images: int = TEST_IMAGES

    def __post_init__(self) -> None:
        check_choice("model", self.model, tuple(MODELS))
        check_count("seed", self.seed, least=0)
        check_count("steps", self.steps, least=1)
        for name, kinds in (("batch_size", _TRAINED), ("test_images", 2 * KINDS_SEEN)):
            value, least = getattr(self, name), len(kinds)
            check_count(name, value, least=least)
            if value % least:
                raise ConfigError(f"{name} is {value}; give a multiple of {least}, for as many faces of every kind")


def run_faces(
    seeds: int = 5,
    *,
    steps: int = STEPS,
    batch_size: int = BATCH_SIZE,
    test_images: int = TEST_IMAGES,
    models: Sequence[str] = tuple(MODELS),
    folder: Path | None = None,
    threads: int | None = None,
    progress: bool = True,
) -> Faces:
    """Trains every model with every seed, one after the other, and tests each on the same faces.

    A run is a function of its seed: the same bits with the same libraries, processor and threads. With a folder each
    finished run leaves its numbers there, and a later call does not make it again.

    Args:
        seeds: runs of each model, with seeds 0, 1, 2 and so on.
        steps: of training.
        batch_size: images of a step, a multiple of 6.
        test_images: for each kind of test, a multiple of 4.
        models: keys of `MODELS`.
        folder: where runs are kept; None keeps none.
        threads: of the processor; None for as many as torch takes.
        progress: whether to say on standard error which run it is, and to draw its bar.

    Raises:
        ConfigError: if a number or a model's name is wrong.
        InputError: if a file in the folder is of another run, or is no run.
        OutputError: if the folder cannot be written.
        NumericError: if a loss is NaN or infinite.
    """
    check_count("seeds", seeds, least=1)
    if not models:
        raise ConfigError(f"models is empty; name some of {', '.join(MODELS)}")
    threads = torch.get_num_threads() if threads is None else threads
    check_count("threads", threads, least=1)
    names = tuple(dict.fromkeys(models))
    planned = [  # a whole table after the first seed
        Settings(name, seed, steps, batch_size, test_images) for seed in range(seeds) for name in names
    ]
    places = [None if folder is None else folder / _file_name(settings) for settings in planned]
    found = [_kept(place, settings) for place, settings in zip(places, planned, strict=True)]
    for number, (settings, place) in enumerate(zip(planned, places, strict=True)):
        if found[number] is not None:
            continue
        if progress:
            say(f"run {number + 1} of {len(planned)}: {settings.model}, seed {settings.seed}")
        if place is not None:
            check_writable(place)
        with reproducible(threads):
            made = _make(settings, progress=progress)
        if place is not None:
            write_atomically(place, json.dumps(asdict(settings) | {"result": made}, indent=2) + "\n")
        found[number] = made
    runs = [result for result in found if result is not None]
    return Faces(
        seeds=tuple(range(seeds)),
        steps=steps,
        batch_size=batch_size,
        test_images=test_images,
        kinds_seen=KINDS_SEEN,
        kinds_unseen=KINDS_UNSEEN,
        example_seed=_EXAMPLE_SEED,
        example_kinds=EXAMPLES,
        models=tuple(_together(name, runs[first :: len(names)]) for first, name in enumerate(names)),
        provenance=_provenance(threads, math.fsum(result["seconds"] for result in runs)),
    )


def train_on_faces(settings: Settings, *, progress: bool = False) -> nn.Module:
    """A model, in eval mode, after training on faces that its seed draws.

    AdamW with binary cross-entropy; the learning rate rises in a straight line, then falls as a cosine does.

    Raises:
        NumericError: if the loss becomes NaN or infinite; with the step.
    """
    model = make_model(settings.model, keyed_seed(settings.seed, _WEIGHTS)).train()
    warmup = max(round(_WARMUP * settings.steps), 1)
    optim = Optim(learning_rate=LEARNING_RATES[settings.model], betas=(0.9, 0.98), warmup=warmup)
    optimizers = make_optimizers(model, optim)
    faces, batch = keyed_seed(settings.seed, _FACES), settings.batch_size
    title = f"{settings.model}, seed {settings.seed}"
    with progress_bar(title, settings.steps, shown=progress, unit="steps") as advance:
        for step in range(settings.steps):
            images, kinds = draw_faces(faces, step * batch, batch, _TRAINED)
            logits = model(standardised(images))[:, 0]
            loss = F.binary_cross_entropy_with_logits(logits, _is_right(kinds, _TRAINED).float())
            if not loss.isfinite():
                raise NumericError(f"{title}: the loss of step {step + 1} is {loss.item()}; choose a smaller rate")
            model.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            set_learning_rate(optimizers, learning_rate(step, settings.steps, optim))
            for optimizer in optimizers:
                optimizer.step()
            advance(1, f"loss {loss.item():.3f}")
    return model.eval()


def face_accuracy(model: nn.Module, wrong: Sequence[str], images: int) -> float:
    """Share of test faces of which a model tells whether they are right; in [0, 1].

    Each face comes twice, right and wrong: a model that does not see the arrangement gets exactly 0.5. The faces are
    the same for every model; none has learned from one of them.

    Args:
        model: in eval mode; a logit above 0 says right.
        wrong: kinds of the wrong ones, in turn.
        images: an even number, half of them right.
    """
    hits = 0
    for first in range(0, images // 2, _TESTED_AT_ONCE):
        count = min(_TESTED_AT_ONCE, images // 2 - first)
        for kinds, is_right in (((RIGHT,), True), (wrong, False)):
            faces, _ = draw_faces(_TEST_SEED, first, count, kinds)
            hits += int(((_probabilities(model, faces) > 0.5) == is_right).sum())
    return hits / images


def example_images(faces: Faces) -> Tensor:
    """The faces that each model of a result has answered: (examples, 3, 48, 48) in [0, 1]."""
    images, _ = draw_faces(faces.example_seed, 0, len(faces.example_kinds), faces.example_kinds)
    return images


def measured_faces() -> Faces | None:
    """What is in `MEASURED`; None where it was never measured."""
    if not MEASURED.exists():
        return None
    return Faces.from_dict(json.loads(MEASURED.read_text("utf-8")))


def _make(settings: Settings, *, progress: bool) -> dict[str, Any]:
    """Trains and tests; plain data, ready for JSON."""
    begun = time.perf_counter()
    model = train_on_faces(settings, progress=progress)
    seconds = time.perf_counter() - begun
    tests = {SEEN: KINDS_SEEN} | {kind: (kind,) for kind in KINDS_UNSEEN}
    examples, _ = draw_faces(_EXAMPLE_SEED, 0, len(EXAMPLES), EXAMPLES)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "sees": pixels_seen(model),
        "accuracies": {name: face_accuracy(model, kinds, settings.test_images) for name, kinds in tests.items()},
        "seconds": seconds,
        "answers": _probabilities(model, examples).tolist(),
    }


@torch.inference_mode()
def _probabilities(model: nn.Module, faces: Tensor) -> Tensor:
    """That each arrangement is right: (batch, 3, 48, 48) in [0, 1] -> (batch,)."""
    return model(standardised(faces))[:, 0].sigmoid()


def _is_right(chosen: Tensor, kinds: Sequence[str]) -> Tensor:
    """Whether each face's kind is the right one: places in `kinds`, (batch,) -> (batch,) bool."""
    return torch.tensor([kind == RIGHT for kind in kinds])[chosen]


def _together(name: str, results: Sequence[dict[str, Any]]) -> FacesModel:
    """A model's runs, first seed first."""
    first = results[0]
    return FacesModel(
        name=name,
        parameters=first["parameters"],
        sees=first["sees"],
        accuracies={test: tuple(result["accuracies"][test] for result in results) for test in first["accuracies"]},
        seconds=tuple(result["seconds"] for result in results),
        answers=tuple(first["answers"]),
    )


def _file_name(settings: Settings) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", settings.model.lower())
    return f"{words}_seed-{settings.seed}.json"


def _kept(place: Path | None, settings: Settings) -> dict[str, Any] | None:
    """What an earlier call left of a run; None if there is nothing."""
    if place is None or not place.exists():
        return None
    try:
        values = json.loads(place.read_text("utf-8"))
        result: dict[str, Any] = values.pop("result")
        is_whole = set(result) == {"parameters", "sees", "accuracies", "seconds", "answers"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
        raise InputError(f"{place} is no finished run of the faces task; remove it, or name another folder") from cause
    if not is_whole or values != asdict(settings):
        raise InputError(f"{place} is a run with other settings; remove it, or name another folder")
    return result


def _provenance(threads: int, seconds: float) -> dict[str, Any]:
    from vitreous import __version__

    return {
        "vitreous": __version__,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "threads": threads,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "seconds": seconds,
    }
