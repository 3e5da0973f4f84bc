"""Our settings in the words of timm's config.json.

timm opens a folder by its architecture's name, which fixes what its arguments cannot say: LayerNorm's epsilon, a gated
MLP, a second class token. So the name is that of a family with the same, and the arguments put all sizes right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vitreous.checkpoints.formats.timm import ACTIVATIONS, POOLING, class_names_from_timm
from vitreous.checkpoints.timm_preprocess import preprocess_to_timm
from vitreous.data.preprocess import Preprocess
from vitreous.model.config import ViTConfig
from vitreous.model.presets import SIZES

__all__ = ["FORMAT", "class_names_from_timm", "timm_differences", "to_timm"]

FORMAT = 1
"""Number of the "vitreous" entry's layout; a reader refuses a higher one."""

_SIZE_WORDS = {"Ti": "tiny", "S": "small", "B": "base", "L": "large", "H": "huge"}
_CLIP_EPS = 1e-5
_HYBRIDS: dict[tuple[int, ...] | None, str] = {
    (): "vit_tiny_r_s16_p8_224",
    (2, 2, 2, 2): "vit_small_r26_s32_224",
    (3, 4, 9): "vit_base_r50_s16_224",
    (3, 4, 6, 3): "vit_large_r50_s32_224",
}
_EXPRESSED = ("learned", "sincos-2d", "none")  # sines and cosines are a table like any other


def to_timm(
    config: ViTConfig, preprocess: Preprocess, class_names: Sequence[str], saved: dict[str, Any]
) -> dict[str, Any]:
    """The config.json that timm and transformers open; our own settings stand whole under "vitreous"."""
    described: dict[str, Any] = {
        "architecture": _nearest_name(config),
        "num_classes": config.classes,
        "num_features": config.width,
        "global_pool": _timm_pooling(config),
        "model_args": _model_arguments(config, preprocess),
        "pretrained_cfg": _input_description(config, preprocess),
        "vitreous": {
            "format": FORMAT,
            "config": config.to_dict(),
            "preprocess": preprocess.to_dict(),
            "provenance": saved,
        },
    }
    if class_names:
        described["label_names"] = list(class_names)
    return described


def timm_differences(config: ViTConfig) -> list[str]:
    """What of an architecture timm has no word for; empty when timm computes the same logits."""
    differences = [what for what, differs in _without_a_word(config).items() if differs]
    families = [what for what, needed in _families(config).items() if needed]
    if len(families) > 1:
        differences.append(f"{families[0]} together with {families[1]}")
    return differences


def _without_a_word(config: ViTConfig) -> dict[str, bool]:
    return {
        "the hidden layer of the pre-training head": config.hidden_head,
        "a patch embedding without bias": not config.patch_bias and not config.norm_before_blocks,
        "a patch embedding with bias before a LayerNorm": config.patch_bias and config.norm_before_blocks,
        "LayerNorms around the patch embedding": config.patch_norms,
        "a ResNet with Google's small constants": config.stem is not None and config.stem_constants != "timm",
        "a ResNet of other stages than R50's or R26's": config.stem is not None and config.stem not in _HYBRIDS,
        "a ResNet of another width than 64": config.stem is not None and config.stem_width != ViTConfig.stem_width,
        "a 3x3 root in the ResNet": config.stem is not None and config.stem_root != "imagenet",
        "a ResNet without blocks behind it": not config.depth,
        f"{config.positions} positions": config.positions not in _EXPRESSED,
        "positions before every layer": config.positions_at != "stem",
        f"pooling {config.pooling!r}": config.pooling not in POOLING.values(),
        "heads that are wider or narrower than the tokens": config.all_heads != config.width,
        f"a LayerNorm epsilon of {config.norm_eps:g}": config.norm_eps not in (ViTConfig.norm_eps, _CLIP_EPS),
        "attention pooling with a gated MLP": config.pooling == "map" and config.gated_mlp,
        "registers beside a distillation token": config.distillation and config.registers > 0,
        "a LayerNorm after pooling beside a distillation token": config.distillation and config.has_norm_after_pooling,
    }


def _families(config: ViTConfig) -> dict[str, bool]:
    """What an architecture's name alone can say, and so one of them at a time."""
    return {
        f"a LayerNorm epsilon of {_CLIP_EPS:g}": config.norm_eps == _CLIP_EPS,
        "a gated MLP": config.gated_mlp,
        "a distillation token": config.distillation,
        "a ResNet before the patches": config.stem is not None,
    }


def _nearest_name(config: ViTConfig) -> str:
    """A name of the family that computes alike; sizes are nearest, and stand exactly in model_args, which win."""
    if config.stem in _HYBRIDS:
        return _HYBRIDS[config.stem]
    if config.gated_mlp:
        return "vit_giant_patch14_dinov2"
    word = next((_SIZE_WORDS[size] for size, numbers in SIZES.items() if numbers.width == config.width), "base")
    if config.distillation:
        return f"deit_{word if word in ('tiny', 'small') else 'base'}_distilled_patch16_224"
    if config.norm_eps == _CLIP_EPS:
        large = {"large": "vit_large_patch14_clip_224", "huge": "vit_huge_patch14_clip_224"}
        return large.get(word, "vit_base_patch16_clip_224")
    return f"vit_{word}_patch{14 if word == 'huge' else 16}_224"


def _timm_pooling(config: ViTConfig) -> str:
    return next((word for word, pooling in POOLING.items() if pooling == config.pooling), "token")


def _model_arguments(config: ViTConfig, preprocess: Preprocess) -> dict[str, Any]:
    """Arguments of timm's VisionTransformer, without the class count: transformers would see it twice."""
    arguments = {
        "img_size": list(config.image_size),
        "patch_size": list(config.patch_kernel),
        "in_chans": config.channels,
        "embed_dim": config.width,
        "depth": config.depth,
        "num_heads": config.heads,
        "mlp_ratio": _timm_ratio(config),
        "global_pool": _timm_pooling(config),
        "class_token": config.class_token,
        "reg_tokens": config.registers,
        "pos_embed": "none" if config.positions == "none" else "learn",
        "qkv_bias": config.qkv_bias,
        "init_values": config.layer_scale,
        "fc_norm": config.has_norm_after_pooling,
        "pos_drop_rate": config.dropout,
        "proj_drop_rate": config.dropout,
        "drop_path_rate": config.drop_path,
    }
    words = {ours: word for word, ours in ACTIVATIONS.items()}
    if config.qk_norm:
        arguments["qk_norm"] = True
    if config.norm_before_blocks or config.norm_eps == _CLIP_EPS:  # CLIP's family has it unless told otherwise
        arguments["pre_norm"] = config.norm_before_blocks
    if config.activation != "gelu" and not config.gated_mlp:
        arguments["act_layer"] = words[config.activation]
    if preprocess.image_size != config.image_size:
        arguments["dynamic_img_size"] = True
    return arguments


def _timm_ratio(config: ViTConfig) -> float:
    """What timm rounds down to our MLP's width; a gated one counts both halves there."""
    hidden = config.mlp_width * (2 if config.gated_mlp else 1)
    ratio = hidden / config.width
    return ratio if int(config.width * ratio) == hidden else (hidden + 0.5) / config.width


def _first_convolution(config: ViTConfig) -> str:
    if config.stem is None:
        return "patch_embed.proj"
    return "patch_embed.backbone.stem.conv" if config.stem else "patch_embed.backbone.conv"


def _input_description(config: ViTConfig, preprocess: Preprocess) -> dict[str, Any]:
    described, _ = preprocess_to_timm(preprocess)
    return described | {
        "input_size": [config.channels, *preprocess.image_size],
        "fixed_input_size": preprocess.image_size == config.image_size,
        "num_classes": config.classes,
        "first_conv": _first_convolution(config),
        "classifier": ["head", "head_dist"] if config.distillation else "head",
    }
