"""The settings that fix a Vision Transformer: numbers only, so that they are read without torch."""

from __future__ import annotations

import difflib
import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from vitreous.errors import ConfigError

Pooling = Literal["class", "mean", "class+mean", "map"]
PositionsAt = Literal["stem", "layers", "layers-shared"]
Positions = Literal["learned", "learned-2d", "sincos-2d", "rope", "relative", "relative-bias", "none"]
StemConstants = Literal["google", "timm"]
StemRoot = Literal["imagenet", "small"]
Activation = Literal["gelu", "gelu-tanh", "quick-gelu"]
Resampling = Literal[
    "timm", "timm-npz", "open_clip", "google", "flexivit", "transformers", "transformers-registers", "siglip2",
    "torchvision", "dino", "dinov2", "dinov2-registers", "msn", "deit", "mae", "beit",
]  # fmt: skip


@dataclass(frozen=True)
class ViTConfig:
    """One architecture; the defaults are ViT-B/16 of the paper, as fine-tuned on ImageNet at 224 pixels.

    Attributes:
        image_size: (image_height, image_width) in pixels that the positions are made for.
        patch_size: (patch_height, patch_width) in pixels that one token stands for; divides the image. A stem's own
            stride is part of it, and divides it.
        channels: of the image.
        stem: blocks in each stage of a ResNet before the patches, such as (3, 4, 9) for R50+ViT-B/16; () for its
            root alone, None for no ResNet (section 3.1, hybrid architecture).
        stem_width: channels that the stem's root makes.
        stem_root: how the stem begins: `imagenet`, 7x7 at stride 2 and a maximum at stride 2; `small`, 3x3 at stride
            1, as for CIFAR's images (He et al. 2016, arXiv 1512.03385, section 4.2).
        stem_constants: whose small constants the stem's norms have: the paper's code's or timm's.
        patch_norms: a LayerNorm over the pixels of each patch, and one over each embedded patch, as vit-pytorch has.
        patch_bias: whether the patch embedding adds a bias, as the paper's code does.
        width: of a token.
        depth: number of blocks. With a stem it may be 0: a ResNet whose map is averaged, the CNN of equal size.
        heads: of each block's attention.
        attention_width: length of all heads' queries together, a multiple of heads; None for the width.
        qkv_bias: whether queries, keys and values have one, as the paper's code does.
        qk_norm: a LayerNorm over each head's queries and keys. Source: arXiv 2302.05442, section 2.1.
        mlp_ratio: width of the MLP's hidden layer, as a multiple of the token's.
        activation: of the MLP: the exact GELU, its tanh approximation (the paper's code), or x * sigmoid(1.702 x)
            (OpenAI's CLIP).
        gated_mlp: SwiGLU in place of the MLP: silu of one hidden layer times another. Source: arXiv 2002.05202.
        layer_scale: first value of a learned factor on each block's two branches, or None for no such factor.
            Source: arXiv 2103.17239, equation 3.
        class_token: whether there is one; a mean-pooled model may keep it.
        distillation: a second token that learns from a teacher, with a head of its own; logits are the mean of both.
            Source: arXiv 2012.12877, section 4.
        registers: tokens without a place in the image, after the class token. Source: arXiv 2309.16588.
        positions: `learned`, a vector for each token (equation 1); `learned-2d`, one for each row beside one for each
            column; `sincos-2d`, fixed (arXiv 2205.01580); `rope`, queries and keys turned by their place (arXiv
            2104.09864, as in DINOv3); `relative`, a key for each distance along the sequence (appendix D.4);
            `relative-bias`, a score for each offset of patches (BEiT); `none`: the model sees a bag of patches.
        positions_at: where learned ones are added to the tokens: `stem`, once, before the first block (equation 1);
            `layers`, at the start of every block, each with tables of its own; `layers-shared`, there from the same
            tables (table 8).
        rope_base: ratio of the longest to the shortest period of `rope`.
        resampling: whose rule moves positions to another grid; see `vitreous.model.positions`.
        norm_before_blocks: a LayerNorm over the tokens before the first block, as CLIP has.
        norm_after_pooling: whether the last LayerNorm comes after the pooling, not before. None follows timm:
            after for the mean, before for all others.
        norm_eps: added to the variance in every LayerNorm.
        pooling: what the head reads: the class token (equation 4); the mean of the patch tokens; one behind the
            other; or `map`, an attention of one learned query over the patch tokens (arXiv 2106.04560).
        hidden_head: the pre-training head, with one hidden tanh layer of the token's width (section 3.1).
        classes: outputs of the head; 0 is a model without a head, which returns its pooled features.
        dropout: after the positions, after each attention and after both layers of each MLP, while training.
        drop_path: share of images that skip the last block while training; earlier blocks are skipped less,
            the first never. Source: stochastic depth, arXiv 1603.09382, equation 4.

    Raises:
        ConfigError: if a value, or two values together, cannot be.
    """

    image_size: tuple[int, int] = (224, 224)
    patch_size: tuple[int, int] = (16, 16)
    channels: int = 3
    stem: tuple[int, ...] | None = None
    stem_width: int = 64
    stem_root: StemRoot = "imagenet"
    stem_constants: StemConstants = "google"
    patch_norms: bool = False
    patch_bias: bool = True
    width: int = 768
    depth: int = 12
    heads: int = 12
    attention_width: int | None = None
    qkv_bias: bool = True
    qk_norm: bool = False
    mlp_ratio: float = 4.0
    activation: Activation = "gelu"
    gated_mlp: bool = False
    layer_scale: float | None = None
    class_token: bool = True
    distillation: bool = False
    registers: int = 0
    positions: Positions = "learned"
    positions_at: PositionsAt = "stem"
    rope_base: float = 100.0
    resampling: Resampling = "timm"
    norm_before_blocks: bool = False
    norm_after_pooling: bool | None = None
    norm_eps: float = 1e-6
    pooling: Pooling = "class"
    hidden_head: bool = False
    classes: int = 1000
    dropout: float = 0.0
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size"):
            _check_pair(name, getattr(self, name))
        for name, least in _LEAST.items():
            _check_count(name, getattr(self, name), least)
        for name in _FLAGS:
            _check_flag(name, getattr(self, name))
        for name, choices in _CHOICES.items():
            _check_choice(name, getattr(self, name), get_args(choices))
        self._check_optional()
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
        """Tokens before the patches: class token, distillation token, registers."""
        return int(self.class_token) + int(self.distillation) + self.registers

    @property
    def tokens(self) -> int:
        """All tokens: prefix and patches."""
        return self.prefix + self.rows * self.columns

    @property
    def head_dim(self) -> int:
        """Length of one head's queries, keys and values."""
        return self.all_heads // self.heads

    @property
    def all_heads(self) -> int:
        """Length of all heads' queries together."""
        return self.width if self.attention_width is None else self.attention_width

    @property
    def layer_tables(self) -> int:
        """Sets of position tables that are added at the start of blocks; 0 where they are added at the stem."""
        return {"stem": 0, "layers": self.depth, "layers-shared": 1}[self.positions_at]

    @property
    def mlp_width(self) -> int:
        """Length of the MLP's hidden layer."""
        return round(self.width * self.mlp_ratio)

    @property
    def has_norm_after_pooling(self) -> bool:
        """What `norm_after_pooling` says, or what follows from the pooling."""
        return self.pooling == "mean" if self.norm_after_pooling is None else self.norm_after_pooling

    @property
    def features(self) -> int:
        """Length of the vector that the head reads."""
        return self.width * (2 if self.pooling == "class+mean" else 1)

    @property
    def stem_stride(self) -> int:
        """Pixels that one position of the stem's output stands for; 1 without a stem."""
        if self.stem is None:
            return 1
        return (4 if self.stem_root == "imagenet" else 1) * 2 ** max(len(self.stem) - 1, 0)

    @property
    def stem_channels(self) -> int:
        """Channels that the patch embedding reads."""
        if self.stem is None:
            return self.channels
        return self.stem_width * (4 * 2 ** (len(self.stem) - 1) if self.stem else 1)

    @property
    def patch_kernel(self) -> tuple[int, int]:
        """(height, width) of the patch embedding's kernel: pixels, or positions of the stem's output."""
        return self.patch_size[0] // self.stem_stride, self.patch_size[1] // self.stem_stride

    @property
    def parameters(self) -> int:
        """Numbers to learn, counted in closed form."""
        width, hidden, heads = self.width, self.mlp_width, self.all_heads
        inputs = math.prod(self.patch_kernel) * self.stem_channels
        patch = inputs * width + width * self.patch_bias + 2 * (inputs + width) * self.patch_norms
        attention = 4 * width * heads + width + 3 * heads * self.qkv_bias + 4 * self.head_dim * self.qk_norm
        mlp = (2 + self.gated_mlp) * width * hidden + (1 + self.gated_mlp) * hidden + width
        scales = 0 if self.layer_scale is None else 2 * width
        norms = 2 * 2 * width
        block = attention + mlp + scales + norms + self._positions_of_a_block
        pool = 0
        if self.pooling == "map":
            pool = width + 4 * width * width + 4 * width + 2 * width + mlp
        last = 2 * self.features if self.has_norm_after_pooling else 2 * width
        hidden_head = (self.features * width + width) * self.hidden_head
        head = ((width if self.hidden_head else self.features) + 1) * self.classes * (1 + self.distillation)
        before = self._stem_parameters + patch + self.prefix * width + self._position_parameters
        return before + 2 * width * self.norm_before_blocks + self.depth * block + last + pool + hidden_head + head

    @property
    def _position_parameters(self) -> int:
        tables = {"learned": self.tokens * self.width, "learned-2d": (self.rows + self.columns) * self.width // 2}
        return tables.get(self.positions, 0) * (self.layer_tables or 1)

    @property
    def _positions_of_a_block(self) -> int:
        tables = {
            "relative": (2 * self.tokens - 1) * self.all_heads,
            "relative-bias": ((2 * self.rows - 1) * (2 * self.columns - 1) + 3 * (self.prefix > 0)) * self.heads,
        }
        return tables.get(self.positions, 0)

    @property
    def _stem_parameters(self) -> int:
        if self.stem is None:
            return 0
        inputs = self.stem_width
        count = (7 * 7 if self.stem_root == "imagenet" else 3 * 3) * self.channels * inputs + 2 * inputs
        for stage, blocks in enumerate(self.stem):
            middle = self.stem_width * 2**stage
            outputs = 4 * middle
            for block in range(blocks):
                count += inputs * middle + 9 * middle * middle + middle * outputs + 4 * middle + 2 * outputs
                count += (inputs * outputs + 2 * outputs) * (block == 0)
                inputs = outputs
        return count

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

    def _check_optional(self) -> None:
        if self.attention_width is not None:
            _check_count("attention_width", self.attention_width, 1)
        stem = self.stem
        if stem is not None and (not isinstance(stem, tuple) or not all(_is_count(n) and n >= 1 for n in stem)):
            raise ConfigError(f"stem is {stem!r}; it is the number of blocks in each stage, such as (3, 4, 9), or None")
        if stem is not None and len(stem) > _MOST_STAGES:
            raise ConfigError(f"stem has {len(stem)} stages; each halves the image, {_MOST_STAGES} at most")
        if self.layer_scale is not None and not _is_number(self.layer_scale):
            raise ConfigError(f"layer_scale is {self.layer_scale!r}; it is a number, such as 1e-5, or None")

    def _check_numbers(self) -> None:
        for name in ("dropout", "drop_path"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 <= value < 1:
                raise ConfigError(f"{name} is {value!r}; it is a share of at least 0 and below 1")
        for name in ("mlp_ratio", "norm_eps", "rope_base"):
            value = getattr(self, name)
            if not _is_number(value) or value <= 0:
                raise ConfigError(f"{name} is {value!r}; it is a finite number above 0")
        if not 0.5 < self.width * self.mlp_ratio <= _WIDEST:
            raise ConfigError(
                f"mlp_ratio is {self.mlp_ratio!r}; times the width {self.width} it is the MLP's hidden layer, "
                f"from 1 to {_WIDEST}"
            )

    def _check_together(self) -> None:
        if self.all_heads % self.heads:
            which = "width" if self.attention_width is None else "attention_width"
            raise ConfigError(
                f"{which} {self.all_heads} is not a multiple of heads {self.heads}; heads share it evenly"
            )
        for side, image, patch in zip(("height", "width"), self.image_size, self.patch_size, strict=True):
            if image % patch:
                raise ConfigError(
                    f"the image's {side} of {image} pixels is not a multiple of the patch's {patch}; "
                    f"nearest are {image // patch * patch or patch} and {(image // patch + 1) * patch}"
                )
            if patch % self.stem_stride:
                raise ConfigError(
                    f"the patch's {side} of {patch} pixels is not a multiple of the stem's stride {self.stem_stride}"
                )
        if not self.depth and (self.stem is None or self.prefix or self.positions != "none" or self.pooling != "mean"):
            raise ConfigError(
                "depth is 0: without blocks a model is a stem whose map is averaged; "
                "give it a stem, no class token or registers, positions 'none' and pooling 'mean'"
            )
        if "class" in self.pooling and not self.class_token:
            raise ConfigError(f"pooling is {self.pooling!r}, but class_token is False; use pooling 'mean'")
        if self.distillation and not (self.class_token and self.pooling == "class"):
            raise ConfigError("distillation is True; it needs a class token, and pooling 'class'")
        if self.hidden_head and not self.classes:
            raise ConfigError("hidden_head is True, but classes is 0; a head without outputs has no hidden layer")
        if self.hidden_head and self.distillation:
            raise ConfigError("hidden_head and distillation are both True; no model has both")
        if self.pooling == "map" and self.width % self.heads:
            raise ConfigError(f"pooling is 'map'; its heads share the width {self.width} evenly, {self.heads} do not")
        if self.patch_norms and self.stem is not None:
            raise ConfigError("patch_norms is True, but there is a stem; norms of pixels need a plain patch embedding")
        if self.positions_at != "stem" and self.positions not in ("learned", "learned-2d"):
            raise ConfigError(
                f"positions_at is {self.positions_at!r}, but positions is {self.positions!r}; "
                "only 'learned' and 'learned-2d' are added before layers"
            )
        divisor = {"learned-2d": (2, self.width), "sincos-2d": (4, self.width), "rope": (4, self.head_dim)}
        least, length = divisor.get(self.positions, (1, 1))
        if length % least or (self.positions == "sincos-2d" and length < 8):
            raise ConfigError(f"positions is {self.positions!r}, which needs a multiple of {least}, not {length}")


_LEAST = {"channels": 1, "classes": 0, "width": 1, "depth": 0, "heads": 1, "registers": 0, "stem_width": 1}
_FLAGS = (
    "patch_norms", "patch_bias", "qkv_bias", "qk_norm", "gated_mlp", "class_token", "distillation",
    "norm_before_blocks", "hidden_head",
)  # fmt: skip
_CHOICES = {
    "pooling": Pooling, "positions": Positions, "activation": Activation, "resampling": Resampling,
    "positions_at": PositionsAt, "stem_root": StemRoot, "stem_constants": StemConstants,
}  # fmt: skip
_MOST_STAGES = 5
_WIDEST = 2**31  # beyond it no matrix of the MLP can be indexed


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
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) <= _WIDEST  # larger ones do not even become a float
    return isinstance(value, float) and math.isfinite(value)
