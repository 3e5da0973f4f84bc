"""The settings that fix a Vision Transformer: numbers only, so that they are read without torch."""

from __future__ import annotations

import difflib
import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from vitreous.errors import ConfigError

Pooling = Literal["class", "mean"]
Positions = Literal["learned", "none"]


@dataclass(frozen=True)
class ViTConfig:
    """One architecture; the defaults are ViT-B/16 of the paper, as fine-tuned on ImageNet at 224 pixels.

    Attributes:
        image_size: (image_height, image_width) in pixels that the positions are made for.
        patch_size: (patch_height, patch_width) in pixels; divides the image.
        channels: of the image.
        classes: outputs of the head; 0 is a model without a head, which returns its pooled features.
        width: of a token.
        depth: number of blocks.
        heads: of each block's attention; divides the width.
        mlp_ratio: width of the MLP's hidden layer, as a multiple of the token's.
        pooling: what the head reads: the class token (equation 4), or the mean of the patch tokens.
        class_token: whether there is one; a mean-pooled model may keep it.
        registers: tokens without a place in the image, after the class token. Source: arXiv 2309.16588.
        positions: a learned vector for each token (equation 1), or none: the model sees a bag of patches.
        patch_bias: whether the patch embedding adds a bias, as the paper's code does.
        qkv_bias: whether queries, keys and values have one, as the paper's code does.
        layer_scale: first value of a learned factor on each block's two branches, or None for no such factor.
            Source: arXiv 2103.17239, equation 3.
        dropout: after the positions, after each attention and after both layers of each MLP, while training.
        drop_path: share of images that skip the last block while training; earlier blocks are skipped less,
            the first never. Source: stochastic depth, arXiv 1603.09382, equation 4.
        hidden_head: the pre-training head, with one hidden tanh layer of the token's width (section 3.1).
        norm_after_pooling: whether the last LayerNorm comes after the pooling, not before. None follows timm:
            after for the mean, before for the class token (where both give the same).
        norm_eps: added to the variance in every LayerNorm.

    Raises:
        ConfigError: if a value, or two values together, cannot be.
    """

    image_size: tuple[int, int] = (224, 224)
    patch_size: tuple[int, int] = (16, 16)
    channels: int = 3
    classes: int = 1000
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    pooling: Pooling = "class"
    class_token: bool = True
    registers: int = 0
    positions: Positions = "learned"
    patch_bias: bool = True
    qkv_bias: bool = True
    layer_scale: float | None = None
    dropout: float = 0.0
    drop_path: float = 0.0
    hidden_head: bool = False
    norm_after_pooling: bool | None = None
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size"):
            _check_pair(name, getattr(self, name))
        for name, least in _LEAST.items():
            _check_count(name, getattr(self, name), least)
        for name in ("class_token", "patch_bias", "qkv_bias", "hidden_head"):
            _check_flag(name, getattr(self, name))
        _check_choice("pooling", self.pooling, get_args(Pooling))
        _check_choice("positions", self.positions, get_args(Positions))
        self._check_numbers()
        self._check_together()

    @property
    def rows(self) -> int:
        """Patches from top to bottom."""
        return self.image_size[0] // self.patch_size[0]

    @property
    def columns(self) -> int:
        """Patches from left to right."""
        return self.image_size[1] // self.patch_size[1]

    @property
    def prefix(self) -> int:
        """Tokens before the patches: class token, then registers."""
        return int(self.class_token) + self.registers

    @property
    def tokens(self) -> int:
        """All tokens: prefix and patches."""
        return self.prefix + self.rows * self.columns

    @property
    def head_dim(self) -> int:
        """Length of one head's queries, keys and values."""
        return self.width // self.heads

    @property
    def mlp_width(self) -> int:
        """Length of the MLP's hidden layer."""
        return round(self.width * self.mlp_ratio)

    @property
    def has_norm_after_pooling(self) -> bool:
        """What `norm_after_pooling` says, or what follows from the pooling."""
        return self.pooling == "mean" if self.norm_after_pooling is None else self.norm_after_pooling

    @property
    def parameters(self) -> int:
        """Numbers to learn, counted in closed form."""
        width, hidden = self.width, self.mlp_width
        patch = math.prod(self.patch_size) * self.channels * width + width * self.patch_bias
        positions = self.tokens * width if self.positions == "learned" else 0
        attention = 4 * width * width + width + 3 * width * self.qkv_bias
        mlp = 2 * width * hidden + hidden + width
        scales = 0 if self.layer_scale is None else 2 * width
        norms = 2 * 2 * width
        hidden_head = (width * width + width) * self.hidden_head
        head = width * self.classes + self.classes
        blocks = self.depth * (attention + mlp + scales + norms)
        return patch + self.prefix * width + positions + blocks + 2 * width + hidden_head + head

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ViTConfig:
        """What `to_dict` made; settings left out get their default.

        Raises:
            ConfigError: if a setting is unknown or wrong.
        """
        known = [field.name for field in fields(cls)]
        for name in sorted(set(values) - set(known)):
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
            raise ConfigError(f"a ViT has no setting {name!r}; {hint}")
        settings: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
        return cls(**settings)

    def _check_numbers(self) -> None:
        for name in ("dropout", "drop_path"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 <= value < 1:
                raise ConfigError(f"{name} is {value!r}; it is a share of at least 0 and below 1")
        for name in ("mlp_ratio", "norm_eps"):
            value = getattr(self, name)
            if not _is_number(value) or value <= 0:
                raise ConfigError(f"{name} is {value!r}; it is a finite number above 0")
        if self.mlp_width < 1:
            raise ConfigError(f"mlp_ratio is {self.mlp_ratio!r}, too small: the MLP has no hidden layer left")
        if self.layer_scale is not None and not _is_number(self.layer_scale):
            raise ConfigError(f"layer_scale is {self.layer_scale!r}; it is a number, such as 1e-5, or None")

    def _check_together(self) -> None:
        if self.width % self.heads:
            raise ConfigError(f"width {self.width} is not a multiple of heads {self.heads}; heads share it evenly")
        for side, image, patch in zip(("height", "width"), self.image_size, self.patch_size, strict=True):
            if image % patch:
                raise ConfigError(
                    f"the image's {side} of {image} pixels is not a multiple of the patch's {patch}; "
                    f"nearest are {image // patch * patch or patch} and {(image // patch + 1) * patch}"
                )
        if self.pooling == "class" and not self.class_token:
            raise ConfigError("pooling is 'class', but class_token is False; use pooling 'mean'")
        if self.hidden_head and not self.classes:
            raise ConfigError("hidden_head is True, but classes is 0; a head without outputs has no hidden layer")


_LEAST = {"channels": 1, "classes": 0, "width": 1, "depth": 1, "heads": 1, "registers": 0}


def _check_pair(name: str, value: object) -> None:
    if not isinstance(value, tuple) or len(value) != 2 or not all(_is_count(n) and n >= 1 for n in value):
        raise ConfigError(f"{name} is {value!r}; it is (height, width) in whole pixels, such as (224, 224)")


def _check_count(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} is {value!r}; it is a whole number of at least {least}")


def _check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r}; it is True or False")


def _check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}; choose one of {', '.join(allowed)}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
