"""transformers' config.json in our words: heads, epsilon, activation, sizes, class names, and the reason of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vitreous.checkpoints.dialects.settled import about_images
from vitreous.checkpoints.hf_preprocess import preprocess_from_hf
from vitreous.checkpoints.loaded import Decision
from vitreous.checkpoints.reading import Found
from vitreous.data import pipelines
from vitreous.data.images import shown
from vitreous.data.preprocess import HALF_MEAN, HALF_STD, Preprocess
from vitreous.errors import CheckpointError, ConfigError

Size = tuple[int, int]

ACTIVATIONS = {
    "gelu": "gelu", "gelu_python": "gelu", "gelu_pytorch_tanh": "gelu-tanh", "gelu_new": "gelu-tanh",
    "gelu_fast": "gelu-tanh", "quick_gelu": "quick-gelu",
}  # fmt: skip
"""What transformers' `hidden_act` is called here."""

CLASSIFIER = "classifier"
"""How the name of a head ends whose outputs are classes."""

_MOST = 1_000_000  # more than any model has of anything


def _squashed(size: Size) -> Preprocess:
    """What `ViTImageProcessor` and `BeitImageProcessor` do, but for their interpolation."""
    return Preprocess(size, "squash", 1.0, "bilinear", HALF_MEAN, HALF_STD)


def _dinov2(size: Size) -> Preprocess:
    """At 224 pixels, as it is tested, though released models have positions for 518."""
    return pipelines.dinov2((224, 224) if size == (518, 518) else size)


@dataclass(frozen=True)
class Defaults:
    """What a config class of transformers takes where config.json is silent.

    Attributes:
        eps: `layer_norm_eps`.
        activation: `hidden_act`.
        heads: `num_attention_heads`.
        head_dims: numbers a head of released models, by width, where they are not 64.
        images: the preprocessing of released models, by image size.
    """

    eps: float = 1e-12
    activation: str = "gelu"
    heads: int = 12
    head_dims: Mapping[int, int] = field(default_factory=dict)
    images: Callable[[Size], Preprocess] = _squashed


_WIDE = {1280: 80, 1408: 88, 1664: 104}  # of H/14, g/14 and bigG/14

DEFAULTS = {
    "vit": Defaults(head_dims=_WIDE),
    "deit": Defaults(images=pipelines.deit),
    "vit_mae": Defaults(head_dims=_WIDE, images=pipelines.mae),
    "vit_msn": Defaults(1e-6, images=pipelines.timm_default),
    "ijepa": Defaults(head_dims=_WIDE, images=pipelines.timm_default),
    "dinov2": Defaults(1e-6, images=_dinov2),
    "dinov2_with_registers": Defaults(1e-6, images=_dinov2),
    "dinov3_vit": Defaults(1e-5, heads=6, head_dims={4096: 128}, images=pipelines.dinov3),
    "clip_vision_model": Defaults(1e-5, "quick_gelu", head_dims=_WIDE, images=pipelines.clip),
    "siglip_vision_model": Defaults(1e-6, "gelu_pytorch_tanh", head_dims={1152: 72, 1536: 96}, images=pipelines.siglip),
    "beit": Defaults(),
    "data2vec-vision": Defaults(),
}
"""By `model_type`. Source: the configuration files of transformers 5.23."""


@dataclass(frozen=True)
class Described:
    """A checkpoint of one of transformers' model types.

    Attributes:
        found: the checkpoint.
        model_type: of the image encoder: config.json's, or the one that the names are like.
        settings: of the image encoder: config.json itself, or its part "vision_config".
        known: whether config.json says the model type; else all that it would say is a guess.
    """

    found: Found
    model_type: str
    settings: Mapping[str, Any]
    known: bool

    @property
    def defaults(self) -> Defaults:
        """Of its config class."""
        return DEFAULTS[self.model_type]

    def settle(
        self, setting: str, theirs: str, default: Any, translate: Callable[[str, Any], Any], value: Any = None
    ) -> Decision:
        """What was asked for; else what config.json has under `theirs`, translated; else the class's default.

        Args:
            setting: our name.
            theirs: transformers' name.
            default: in our words, where config.json is silent.
            translate: from `theirs` and config.json's value to ours.
            value: what released models have, where there is no config.json; the default if None.
        """
        if setting in self.found.asked:
            return Decision(setting, self.found.asked[setting], "as asked")
        said = self.settings.get(theirs)
        if said is not None:
            return Decision(setting, translate(theirs, said), f"{theirs} in config.json")
        if self.known:
            reason = f"transformers' default for {self.model_type}, because config.json has no {theirs}"
            return Decision(setting, default, reason)
        reason = f"usual for {self.model_type}; no config.json says it; say {setting}=... to settle it"
        return Decision(setting, default if value is None else value, reason, guessed=True)


def model_type_of(found: Found) -> str | None:
    """What config.json calls the model; None where there is none, or no word in it."""
    word = found.described.get("model_type")
    return word if isinstance(word, str) else None


def describe(found: Found, like: str) -> Described:
    """The checkpoint with its settings; `like` is the model type where config.json does not say."""
    model_type = model_type_of(found)
    settings = found.described
    if model_type == "clip":  # where an old file has both, transformers takes the second alone
        settings = _part(found.described, "vision_config_dict") or _part(found.described, "vision_config")
    if model_type == "siglip":
        settings = _part(found.described, "vision_config")
    if model_type in ("clip", "siglip"):
        model_type += "_vision_model"
    return Described(found, model_type or like, settings, model_type is not None)


def refuse(what: str, why: str) -> CheckpointError:
    """The error for a model that transformers has and this package cannot say."""
    return CheckpointError(f"{what} cannot be read: {why}\nopen it with transformers itself: hf:FOLDER")


def quoted(value: object) -> str:
    """A value of config.json on one short line, for a message."""
    text = shown(repr(value))
    return text if len(text) <= 60 else text[:60] + "..."


def preprocess_of(described: Described, size: Size, patch_size: Size) -> tuple[Preprocess, tuple[Decision, ...]]:
    """What preprocessor_config.json says; without one what released models of the type go through, as a guess.

    Args:
        described: the checkpoint.
        size: that its positions are made for.
        patch_size: of the model; the result's image size is a multiple of it.

    Raises:
        CheckpointError: if a value cannot be.
    """
    processor, kind = described.found.processor, described.model_type
    try:
        if processor:
            known = kind if described.known else None
            preprocess, decisions = preprocess_from_hf(dict(processor), list(size), model_type=known)
        else:
            preprocess = described.defaults.images(size)
            reason = f"how {kind} models are tested, because there is no preprocessor_config.json"
            decisions = about_images(preprocess, reason, guessed=True)
        sides = zip(preprocess.image_size, patch_size, strict=True)
        height, width = (max(side // patch, 1) * patch for side, patch in sides)
        if (height, width) != preprocess.image_size:
            reason = f"preprocessor_config.json has {preprocess.image_size}, which fills no whole number of patches"
            decisions += (Decision("preprocess.image_size", [height, width], reason, guessed=True),)
        return replace(preprocess, image_size=(height, width)), decisions
    except ConfigError as cause:
        raise CheckpointError(f"the preprocessing cannot be: {shown(str(cause))[:300]}") from cause


def class_names_of(root: Mapping[str, Any], classes: int) -> tuple[str, ...]:
    """One name for each class; none where config.json has only the LABEL_0, LABEL_1 that stand for no names.

    Args:
        root: the content of config.json.
        classes: of the head.

    Raises:
        CheckpointError: if there are other names than classes.
    """
    names = root.get("id2label") or {}
    if not isinstance(names, Mapping):
        raise CheckpointError(f"config.json's id2label is {quoted(names)}; it is an object of names by number")
    if not names:
        return ()
    if len(names) != classes or any(str(label) not in names for label in range(classes)):
        raise CheckpointError(
            f"config.json has {len(names)} names in id2label, the head {classes} classes; "
            "number one name for each, from 0 on"
        )
    listed = tuple(str(names[str(label)]) for label in range(classes))
    return () if listed == tuple(f"LABEL_{label}" for label in range(classes)) else listed


def whole_number(theirs: str, value: Any) -> int:
    """A count in config.json, at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST:
        raise CheckpointError(f"config.json's {theirs} is {quoted(value)}; it is a whole number from 1 to {_MOST}")
    return value


def pair(theirs: str, value: Any) -> list[int]:
    """[height, width] of one side or of both in config.json."""
    sides = [value, value] if not isinstance(value, list) else value
    if len(sides) != 2:
        raise CheckpointError(f"config.json's {theirs} is {quoted(value)}; it is one number of pixels, or two")
    return [whole_number(theirs, side) for side in sides]


def number(theirs: str, value: Any) -> float:
    """A number in config.json; neither infinite nor NaN."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) <= _MOST:
        raise CheckpointError(f"config.json's {theirs} is {quoted(value)}; it is a number of at most {_MOST}")
    return float(value)


def _part(root: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = root.get(name) or {}
    if not isinstance(value, dict):
        raise CheckpointError(f"config.json's {name} is {quoted(value)}; it is an object of settings")
    return value
