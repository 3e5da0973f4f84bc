"""Names without what training scripts wrap them in: `state_dict`, `model`, `teacher`, `module`, `_orig_mod`, ...

A file is searched for names that only the first layer of a Vision Transformer has. What stands before them is the
wrapper. Where several models lie in one file, the one that the project's own evaluation takes is taken:

    teacher, target_encoder     before student, encoder           DINO, iBOT, DINOv2; MSN, I-JEPA
    state_dict_ema              before state_dict                 timm
    model                       before model_ema                  DeiT, MAE, BEiT
    base_encoder                before momentum_encoder           MoCo v3
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vitreous.checkpoints.containers.contract import Shapes, shown_name
from vitreous.checkpoints.loaded import Decision
from vitreous.errors import CheckpointError

_MOST_SHOWN = 6
_MOST_MODELS = 64

_WHOLE = (
    "patch_embed.proj.weight", "conv_proj.weight", "visual.conv1.weight", "visual.trunk.patch_embed.proj.weight",
    "to_patch_embedding.1.weight",
)  # fmt: skip
"""First layers whose model has no name of its own before them: all that stands there is a wrapper."""

_NAMED = (
    "embeddings.patch_embeddings.projection.weight", "embeddings.patch_embeddings.weight",
    "embeddings.patch_embedding.weight", "class_embedding",
)  # fmt: skip
"""First layers whose model may be called `vit.` or `vision_model.` beside its head: only known wrappers are one."""

_WRAPPERS = {
    "model", "models", "state_dict", "model_state_dict", "model_ema", "state_dict_ema", "model_state", "ema",
    "ema_model", "averaged_model", "teacher", "student", "target_encoder", "encoder", "online_encoder", "base_encoder",
    "momentum_encoder", "module", "backbone", "base_model", "_orig_mod", "net", "network", "_forward_module",
    "_fsdp_wrapped_module", "params", "weights", "checkpoint",
}  # fmt: skip
_BETTER = {"teacher": -2, "target_encoder": -2, "state_dict_ema": -1}
_WORSE = {"student": 1, "model_ema": 1, "ema": 1, "ema_model": 1, "momentum_encoder": 1, "averaged_model": 1}
_TRAINING = {
    "optimizer", "optimizers", "optimizer_state", "optimizer_state_dict", "optimizer_states", "opt", "optim",
    "lr_scheduler", "lr_schedulers", "scheduler", "sched", "scaler", "loss_scaler", "grad_scaler", "amp", "loops",
    "callbacks", "dino_loss", "ibot_loss", "ibot_patch_loss", "koleo_loss", "epoch", "args",
}  # fmt: skip


@dataclass(frozen=True)
class Stripped:
    """One model's names, as its own library has them.

    Attributes:
        prefix: what stood before each, such as "teacher.backbone."; empty where nothing did.
        shapes: by the name without it.
        names: the name in the file of each.
        alternatives: prefixes of other models in the same file.
        ignored: names in the file that are not this model's, and why each is left out.
        decisions: which model was taken, where there was a choice.
    """

    prefix: str
    shapes: Shapes
    names: dict[str, str]
    alternatives: tuple[str, ...] = ()
    ignored: Mapping[str, str] = field(default_factory=dict)
    decisions: tuple[Decision, ...] = ()

    @classmethod
    def whole(cls, shapes: Shapes) -> Stripped:
        """All names as they are."""
        return cls("", shapes, {name: name for name in shapes})


def strip(shapes: Shapes, weights: str | None = None) -> Stripped:
    """The names of the Vision Transformer in a file, without wrappers.

    Names with slashes are Google's, whose formats know their own prefixes: they stay as they are. So do names among
    which no first layer is found.

    Args:
        shapes: by the names in the file, nested dictionaries flattened with dots.
        weights: a part of the prefix to take, such as "student"; None chooses as the head of this file says.

    Raises:
        CheckpointError: if no model lies under what `weights` asks for, or there are too many.
    """
    prefixes = list(dict.fromkeys(p for name in shapes if "/" not in name and (p := _prefix(name)) is not None))
    if not prefixes and weights is None:
        return Stripped.whole(shapes)
    if len(prefixes) > _MOST_MODELS:
        raise CheckpointError(
            f"the file holds {len(prefixes)} models; {_MOST_MODELS} are the most that vitreous looks at"
        )
    prefixes.sort(key=_rank)  # stable: among equals the file's own order
    prefix = _asked(prefixes, weights) if weights is not None else prefixes[0]
    others = tuple(other for other in prefixes if other != prefix and not (prefix and other.startswith(prefix)))
    names = _projection_head(shapes, prefix)
    beside = set(names.values())
    ignored = {}
    for name in shapes:
        if name in beside:
            continue
        if reason := _why_not(name, prefix, others):
            ignored[name] = reason
        else:
            names[name.removeprefix(prefix)] = name
    kept = {short: shapes[name] for short, name in names.items()}
    return Stripped(prefix, kept, names, others, ignored, _decisions(prefix, others, weights))


def _prefix(name: str) -> str | None:
    """What stands before a first layer; None for any other name."""
    for anchor in _WHOLE:
        if name == anchor or name.endswith(f".{anchor}"):
            before = name.removesuffix(anchor)
            return before.removesuffix("visual.trunk.")
    for anchor in _NAMED:
        if name == anchor or name.endswith(f".{anchor}"):
            words = name.removesuffix(anchor).split(".")[:-1]
            count = next((place for place, word in enumerate(words) if word not in _WRAPPERS), len(words))
            return "".join(f"{word}." for word in words[:count])
    return None


def _projection_head(shapes: Shapes, prefix: str) -> dict[str, str]:
    """The head that DINO and iBOT keep beside a backbone, under its own name: it tells whose the backbone is."""
    parent = prefix.removesuffix("backbone.")
    if parent == prefix or not any(name.startswith(f"{parent}head.last_layer.") for name in shapes):
        return {}
    beside = (name for name in shapes if name.startswith(f"{parent}head."))
    return {name.removeprefix(parent): name for name in beside if f"{prefix}{name.removeprefix(parent)}" not in shapes}


def _rank(prefix: str) -> int:
    return sum(_BETTER.get(word, 0) + _WORSE.get(word, 0) for word in prefix.split("."))


def _asked(prefixes: list[str], weights: str) -> str:
    wanted = weights.strip(".").split(".")
    for prefix in prefixes:
        words = prefix.split(".")[:-1]
        if any(words[place : place + len(wanted)] == wanted for place in range(len(words))):
            return prefix
    there = ", ".join(repr(shown_name(prefix) or "no prefix at all") for prefix in prefixes[:_MOST_SHOWN])
    found = f"there are models under {there}" if prefixes else "no Vision Transformer's first layer was found"
    raise CheckpointError(f"weights={weights[:60]!r} was asked for; {found}")


def _why_not(name: str, prefix: str, others: tuple[str, ...]) -> str | None:
    """Why a name in the file is not the model's; None where it is."""
    if name.partition(".")[0] in _TRAINING and "." in name:
        return "state of the optimizer or of the training loop"
    other = next((other for other in others if other and name.startswith(other)), None)
    if other is not None and len(other) > len(prefix):
        return f"another copy of the model, under {shown_name(other)}"
    if not name.startswith(prefix):
        beside = "another copy of the model" if other is not None else "beside the model: a head or another network"
        return f"{beside}, not under {shown_name(prefix)}"
    return None


def _decisions(prefix: str, others: tuple[str, ...], weights: str | None) -> tuple[Decision, ...]:
    if weights is not None:
        return (Decision("weights", shown_name(prefix), "as asked"),)
    if not others:
        return ()
    listed = ", ".join(shown_name(other) for other in others[:_MOST_SHOWN])
    word = next((word for word in others[0].split(".") if word not in prefix.split(".")), others[0].strip("."))
    settle = f"the file has {listed} too; say weights={shown_name(word)!r} for that"
    if _rank(prefix) < _rank(others[0]):
        return (Decision("weights", shown_name(prefix), f"what its project evaluates; {settle}"),)
    return (Decision("weights", shown_name(prefix), f"the first in the file; {settle}", guessed=True),)
