"""Looking inside a model: one pass over the images, every measure at once, in constant memory."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitreous.capture.watch import watch_attention
from vitreous.data.fingerprints import hash_weights
from vitreous.data.inputs import Images, Inputs, open_inputs, short_names, thumbnails
from vitreous.data.loading import Batch
from vitreous.data.preprocess import Preprocess
from vitreous.errors import ConfigError, InputError, NumericError, WorkerError
from vitreous.inspecting.partial import Partial, from_bytes, partial_path, to_bytes
from vitreous.inspecting.predictions import likely_classes
from vitreous.inspecting.ranks import gather_bytes, rank_and_world
from vitreous.inspecting.seen import ModelFacts, Seen, see
from vitreous.inspection import Inspection
from vitreous.measures.flow import columns_warning
from vitreous.measures.flow_solver import INTERIOR
from vitreous.measures.similarity import position_structure
from vitreous.model.forward import run_model
from vitreous.progress import progress_bar
from vitreous.tokens import TokenLayout


def inspect_model(
    model: nn.Module,
    images: Images,
    *,
    batch_size: int = 16,
    shown: int = 8,
    layout: TokenLayout | None = None,
    preprocess: Preprocess | None = None,
    class_names: Sequence[str] = (),
    names: Sequence[str] = (),
    name: str | None = None,
    progress: bool | str = False,
    workers: int | None = None,
    strict: bool = False,
    resume: str | Path | None = None,
    flow: Mapping[str, Any] | None = None,
) -> Inspection:
    """Looks inside a model on some images, with all of the paper's measures, in about the time of the forward pass.

    A data set may have any length: of its images only the names are kept, of a million about 200 MB. Where
    `torch.distributed` is initialised, its processes share the images, and each gets the whole result.

    Args:
        model: any PyTorch ViT, in eval mode (it is run as it is, without gradients, on its own device).
        images: (batch, channels, image_height, image_width) float, already preprocessed; or files and folders, the
            name of a built-in data set, or what `data.gather` makes of them.
        batch_size: images in a forward pass.
        shown: images whose maps by layer and head are kept; the averages are over all.
        layout: which token is which, where it cannot be seen.
        preprocess: for pictures: what the model wants done to them; None takes what the model was loaded with. For
            tensors: how to undo their colours in thumbnails.
        class_names: of the logits; none takes what the model was loaded with.
        names: of the images in a tensor.
        name: of the model, in titles.
        progress: whether to draw a bar on standard error, or its title.
        workers: processes that decode pictures ahead of the model; 0 decodes in this one, None chooses, see
            `data.loading.workers_for`. The numbers do not depend on it.
        strict: whether to stop at the first picture that cannot be read, which else is left out and listed.
        resume: a file for the sums so far, written every minute and when the run is interrupted. The same call goes on
            from there and ends with the same numbers. Delete it when the inspection is saved.
        flow: options of `measures.flow.attention_flow`, such as {"layers": slice(-4, None)}, to have it made of the
            shown images; None makes none. It takes about half a second an image of 196 patches.

    Raises:
        CaptureError: if no attention is seen, or it cannot be told which token is which, or a proof fails.
        ConfigError: if the model is in training mode, pictures come without a preprocessing, a number is out of
            range, or `resume` is of a run with other settings.
        MemoryLimitError: if the maps that the flow needs are too large; nothing else makes any.
        InputError: if no image can be read or, where `strict`, one cannot; or if `resume` is damaged.
        KeyboardInterrupt: after saving, with a message that says how far the run came.
        NumericError: if attention is NaN, with the layer and the image.
        OutputError: if `resume` cannot be written.
        ShapeError: if a tensor of images does not have four axes, or the model refuses its size.
        WorkerError: if a worker process, or another process of the run, is lost.

    Source: Dosovitskiy et al. 2021, figures 6, 7 and 11; Abnar & Zuidema 2020, equation 1. Each measure cites its own.
    """
    known: Mapping[str, Any] = getattr(model, "provenance", None) or {}
    if preprocess is None and "preprocess" in known:
        preprocess = Preprocess.from_dict(known["preprocess"])
    for option, number, least in (("batch_size", batch_size, 1), ("shown", shown, 1), ("workers", workers or 0, 0)):
        if number < least:
            raise ConfigError(f"{option} is {number}; it must be at least {least}")
    inputs = open_inputs(images, preprocess, tuple(names))
    if model.training:
        raise ConfigError(
            "the model is in training mode, where dropout and batch statistics vary\ncall model.eval() first"
        )
    rank, world = rank_and_world()
    run = _Run(
        model, inputs, batch_size, shown, layout, tuple(class_names or known.get("class_names", ())), world, flow
    )
    partial = Partial(None if resume is None else partial_path(Path(resume), rank, world), run.settings)
    seen = _see_all(run, partial, rank, workers=workers, strict=strict, progress=progress if not rank else False)
    if seen.first is None:
        raise InputError(_nothing_read(seen))
    return _inspection(seen, inputs, _provenance(model, known, preprocess, name), flow)


@dataclass(frozen=True)
class _Run:
    """What is the same for all batches."""

    model: nn.Module
    inputs: Inputs
    batch_size: int
    shown: int
    layout: TokenLayout | None
    class_names: tuple[str, ...]
    world: int
    flow: Mapping[str, Any] | None

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next((parameter.device for parameter in self.model.parameters()), torch.device("cpu"))

    def settings(self) -> dict[str, str]:
        """All that the numbers depend on, in words or hashes."""
        preprocess = self.inputs.preprocess
        return {
            "images": self.inputs.fingerprint(),
            "model": f"{type(self.model).__qualname__} {hash_weights(self.model)}",
            "preprocess": str(preprocess),
            "batch size": str(self.batch_size),
            "images shown": str(self.shown),
            "layout": str(self.layout),
            "class names": str(self.class_names),
            "processes": str(self.world),
            "flow": str(self.flow),
            "versions": f"vitreous {version('vitreous')}, torch {version('torch')}",
        }

    def look(self, batch: Batch, before: Seen) -> Seen:
        """What is kept of one batch more."""
        if not batch.indices:
            return Seen(batches=1, unread=batch.unread)
        images = self.inputs.of_batch(batch, self.device)
        wanted = before.wanted(self.shown)
        try:
            with watch_attention(self.model, layout=self.layout) as watched:
                output = run_model(self.model, images)
            predictions = likely_classes(self.model, output, self.class_names) if wanted else ()
            found = see(watched, images, batch.indices, predictions, wanted, self.flow)
        except NumericError as error:
            raise _with_name(error, batch, self.inputs.names) from error
        return replace(found, unread=batch.unread, facts=before.facts or ModelFacts.of(watched))


def _see_all(
    run: _Run, partial: Partial, rank: int, *, workers: int | None, strict: bool, progress: bool | str
) -> Seen:
    """All images, also those of the other processes; what was seen is saved when the work is interrupted."""
    total = len(run.inputs.names)
    mine = run.inputs.batches(run.batch_size)[rank :: run.world]
    in_mine = sum(map(len, mine))
    title = progress if isinstance(progress, str) else "inspecting images"

    def of_all(images: int) -> int:
        """How many images all processes have done about when this one has done so many; exact for one process."""
        return images * total // max(1, in_mine)

    seen = partial.read()
    try:
        with (
            run.inputs.loaded(mine[seen.batches :], workers, run.device, run.world) as loaded,
            progress_bar(title, total, shown=bool(progress), done=of_all(seen.done), unit="images") as advance,
        ):
            for batch in loaded:
                if strict and (unread := (*seen.unread, *batch.unread)):
                    raise InputError(unread[0][1])
                done = seen.done
                seen = seen.merge(run.look(batch, seen), run.shown)
                partial.keep(seen)
                advance(of_all(seen.done) - of_all(done), "")
        partial.finish(seen)
        return _of_all_processes(seen, run, partial)
    except (KeyboardInterrupt, WorkerError) as stop:
        if partial.write(seen):
            how_far = f"after {of_all(seen.done):,} of {total:,} images; run the same command again to go on"
            stop.args = (f"interrupted {how_far}" if isinstance(stop, KeyboardInterrupt) else f"{stop}\n{how_far}",)
        raise


def _of_all_processes(seen: Seen, run: _Run, partial: Partial) -> Seen:
    if run.world == 1:
        return seen
    parts = gather_bytes(to_bytes(seen, partial.settings))
    others = [from_bytes(part, partial.settings, f"process {rank}") for rank, part in enumerate(parts)]
    together = reduce(lambda one, other: one.merge(other, run.shown), others)
    return replace(together, unread=tuple(sorted(together.unread)))


def _with_name(error: NumericError, batch: Batch, names: Sequence[str]) -> NumericError:
    """The same error, with the image's name for its place in the batch."""
    if error.image is None:
        first, last = names[batch.indices[0]], names[batch.indices[-1]]
        return NumericError(f"{error}\nin the batch from {first} to {last}")
    name = names[batch.indices[error.image]]
    return NumericError(str(error).replace(f"image {error.image} of the batch", name), image=batch.indices[error.image])


def _nothing_read(seen: Seen) -> str:
    first = seen.unread[0][1]
    return (
        first if len(seen.unread) == 1 else f"none of the {len(seen.unread):,} images can be read, the first:\n{first}"
    )


def _inspection(seen: Seen, inputs: Inputs, provenance: dict[str, Any], flow: Mapping[str, Any] | None) -> Inspection:
    assert seen.first is not None and seen.facts is not None
    first, facts, layout = seen.first, seen.facts, seen.facts.layout
    mean = {name: moments.mean().float() for name, moments in seen.moments.items()}
    spread = {name: moments.spread().float() for name, moments in seen.moments.items()}
    counts = {name: moments.histogram() for name, moments in seen.moments.items()}
    notes = [*provenance.pop("notes"), *facts.notes]
    if inputs.preprocess is None:
        notes.append("thumbnails: the preprocessing is not known, so colours are stretched for each image")
    if seen.unread:
        notes.append(f"images: {len(seen.unread):,} of {len(inputs.names):,} cannot be read and are left out")
    if first.flow_cut is not None:
        provenance["flow"] = ", ".join(f"{name} {value}" for name, value in (flow or {}).items()) or "all layers"
        notes += filter(None, [columns_warning(float((first.flow_cut != INTERIOR).double().mean()))])
    similarity = facts.tables.get("position_similarity")
    return Inspection(
        layout=layout,
        images=seen.images,
        attention_distance=mean["attention_distance"],
        attention_distance_spread=spread["attention_distance"],
        attention_distance_histogram=counts["attention_distance"],
        attention_distance_renormalized=mean["attention_distance_renormalized"],
        attention_entropy=mean["attention_entropy"],
        attention_entropy_spread=spread["attention_entropy"],
        attention_entropy_histogram=counts["attention_entropy"],
        prefix_mass=mean["prefix_mass"],
        prefix_mass_spread=spread["prefix_mass"],
        prefix_mass_histogram=counts["prefix_mass"],
        rollout_mean=(seen.rollout_sum / seen.images).float(),
        rollout=first.rollout,
        class_attention=first.class_attention,
        thumbnails=thumbnails(first.inputs, inputs.preprocess),
        image_names=short_names(inputs.names, first.indices),
        skipped=tuple((inputs.names[index], _cause(cause, inputs.names[index])) for index, cause in seen.unread),
        predictions=first.predictions,
        flow=first.flow,
        flow_cut=first.flow_cut,
        filters=facts.tables.get("filters"),
        filters_variance=facts.tables.get("filters_variance"),
        position_similarity=similarity,
        position_structure={} if similarity is None else position_structure(similarity),
        provenance=provenance
        | {
            "largest_proof_error": seen.largest_error,
            "rollout": "mean of heads, residual 0.5, "
            + ("class token" if layout.class_token is not None else "mean of patches"),
            "skipped": len(seen.unread),
            "notes": notes,
        },
    )


def _cause(message: str, name: str) -> str:
    """An error's message without the image's name in front, on one line."""
    return " ".join(message.removeprefix(f"{name}: ").split())


def _provenance(
    model: nn.Module, known: Mapping[str, Any], preprocess: Preprocess | None, name: str | None
) -> dict[str, Any]:
    kind = type(model)
    return {
        "model": name or known.get("name") or kind.__name__,
        "class": f"{kind.__module__}.{kind.__qualname__}",
        "source": known.get("source", "a module in memory"),
        "file_hash": known.get("file_hash", "not read from a file"),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "precision": str(next((parameter.dtype for parameter in model.parameters()), torch.float32)).removeprefix(
            "torch."
        ),
        "preprocess": "done by the caller" if preprocess is None else preprocess.to_dict(),
        "versions": {"vitreous": version("vitreous"), "torch": version("torch"), "python": platform.python_version()},
        "notes": list(known.get("notes", ())),
    }
