"""What an architecture name of timm's says that the tensors do not: heads, LayerNorm's epsilon, activation."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vitreous.model.config import Activation

_HEADS = {
    "tiny": 3, "xsmall": 4, "wee": 4, "little": 5, "small": 6, "medium": 8, "mediumd": 8, "betwixt": 10, "base": 12,
    "so150m": 14, "so150m2": 13, "large": 16, "huge": 16, "giant": 16, "gigantic": 16, "so400m": 16, "giantopt": 16,
}  # fmt: skip
_SIZE = "|".join(sorted(_HEADS, key=len, reverse=True))
_PLAIN = re.compile(rf"(?:vit|deit|deit3|eva)_({_SIZE})(?:_distilled)?_patch(\d+)((?:_[a-z0-9]+)*)")
_HYBRID = re.compile(rf"vit_({_SIZE})_r\d*_s\d+(?:_p\d+)?(_\d+)*")
_FLEXI = re.compile(rf"flexivit_({_SIZE})")
_TEST = {"test_vit": 2, "test_vit2": 2, "test_vit3": 3}
_KNOWN_WORD = re.compile(
    r"\d+|reg\d*|gap|map|plus|clip|quickgelu|siglip|dino|dinov2|tipsv2|mae|in21k|in21ft1k|miil|augreg|36x1"
)


@dataclass(frozen=True)
class Family:
    """What all models of one architecture name share.

    Attributes:
        heads: of each block's attention.
        norm_eps: of each LayerNorm.
        activation: of the MLP.
        gated_mlp: whether the MLP is SwiGLU.
    """

    heads: int
    norm_eps: float
    activation: Activation
    gated_mlp: bool


def family_of(name: object) -> Family | None:
    """What timm's registry says of an architecture; None for one that `ViTConfig` does not describe.

    Source: timm 1.0.31, models/vision_transformer.py, vision_transformer_hybrid.py, deit.py.
    """
    if not isinstance(name, str):
        return None
    if name in _TEST:
        return Family(_TEST[name], 1e-6, "gelu", False)
    if match := _FLEXI.fullmatch(name) or _HYBRID.fullmatch(name):
        return Family(_HEADS[match[1]], 1e-6, "gelu", False)
    match = _PLAIN.fullmatch(name)
    if match is None or strange_word(name):
        return None
    size, patch, words = match[1], int(match[2]), set(match[3].split("_")[1:])
    gated = size == "giant" and bool(words & {"dinov2", "tipsv2"})
    return Family(_heads(size, words, gated), 1e-5 if "clip" in words else 1e-6, _activation(size, patch, words), gated)


def strange_word(name: object) -> str:
    """The word in a name that may change the computation, such as "rope"; empty if there is none."""
    match = _PLAIN.fullmatch(name) if isinstance(name, str) else None
    words = match[3].split("_")[1:] if match else []
    return next((word for word in words if not _KNOWN_WORD.fullmatch(word)), "")


def _heads(size: str, words: set[str], gated: bool) -> int:
    if size == "base" and "plus" in words:
        return 14
    if size == "base" and words == {"gap", "224"}:  # I-JEPA's, which timm gives 16 heads of 48
        return 16
    return 24 if gated else _HEADS[size]


def _activation(size: str, patch: int, words: set[str]) -> Activation:
    if "quickgelu" in words:
        return "quick-gelu"
    tanh = size == "giantopt" or (size, patch) in {("so400m", 16), ("base", 32)} or (size == "large" and "512" in words)
    return "gelu-tanh" if "siglip" in words and tanh else "gelu"
