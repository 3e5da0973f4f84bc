"""A model as it was opened: with its preprocessing, its class names, and the reason of each setting."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from vitreous.data.preprocess import Preprocess


@dataclass(frozen=True)
class Decision:
    """One setting that was settled while opening a model.

    Attributes:
        setting: what was settled, such as "heads".
        value: plain data.
        reason: where the value comes from.
        guessed: whether nothing in the source says so; the user should check it.
    """

    setting: str
    value: Any
    reason: str
    guessed: bool = False


@dataclass(frozen=True)
class LoadedModel:
    """A model, ready to look at images.

    Attributes:
        model: in eval mode; its attribute `provenance` is a dict with all that follows, and every decision.
        name: short, for titles.
        preprocess: what an image goes through before the model.
        class_names: one for each logit; empty where they are not known.
        kind: the format's title for files that we read ourselves, such as "vitreous" or "timm folder"; else "timm",
            "transformers", "torchvision" or "function".
        file_hash: "sha256:..." of the weights file, or "weights-sha256:..." of the weights in memory, for
            models that another library or the user loads.
        notes: every guess, in one sentence with its reason; empty when all was known.
    """

    model: nn.Module
    name: str
    preprocess: Preprocess
    class_names: tuple[str, ...]
    kind: str
    file_hash: str
    notes: tuple[str, ...] = ()


def loaded(
    source: str,
    kind: str,
    model: nn.Module,
    preprocess: Preprocess,
    *,
    name: str,
    file_hash: str,
    class_names: tuple[str, ...] = (),
    decisions: tuple[Decision, ...] = (),
    saved: dict[str, Any] | None = None,
    keys: dict[str, Any] | None = None,
) -> LoadedModel:
    """The model in eval mode, with its provenance attached.

    Args:
        source: what the user asked for.
        kind: see `LoadedModel`.
        model: changed in place: put in eval mode, given the attribute `provenance`.
        preprocess: what an image goes through.
        name: short, for titles.
        file_hash: see `LoadedModel`.
        class_names: one for each logit.
        decisions: all that was settled, guesses marked.
        saved: the provenance that the file itself carries.
        keys: the file's tensors, "used", "renamed" and "ignored"; None where another library read them.
    """
    notes = tuple(_note(decision) for decision in decisions if decision.guessed)
    model.eval()
    model.__dict__["provenance"] = {  # nn.Module would type an attribute as a tensor or a module
        "name": name,
        "source": source,
        "format": kind,
        "file_hash": file_hash,
        "preprocess": preprocess.to_dict(),
        "class_names": list(class_names),
        "decisions": [asdict(decision) for decision in decisions],
        "notes": list(notes),
        "keys": keys,
        "saved": saved or {},
    }
    return LoadedModel(model, name, preprocess, class_names, kind, file_hash, notes)


def _note(guess: Decision) -> str:
    if isinstance(guess.value, dict):
        return f"{guess.setting}: {guess.reason}"
    return f"{guess.setting}: {guess.value} ({guess.reason})"
