"""timm's config.json and ours, in each other's words; plain data in, plain data out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from vitreous.checkpoints.loaded import Decision
from vitreous.checkpoints.weights import Shapes
from vitreous.data.preprocess import Preprocess
from vitreous.errors import CheckpointError, ConfigError
from vitreous.model.config import ViTConfig
from vitreous.model.presets import SIZES

FORMAT = 1
"""Number of the "vitreous" entry's layout; a reader refuses a higher one."""

_POOLING = {"token": "class", "avg": "mean"}
_SIZE_WORDS = {"tiny": "Ti", "small": "S", "base": "B", "large": "L", "huge": "H"}
_NAME = re.compile(r"(?:vit|deit|deit3)_(tiny|small|base|large|huge)_patch\d+((?:_[a-z0-9]+)*)")
_PLAIN_WORD = re.compile(r"\d+|reg\d*|gap|dino|dinov2|mae|in21k|in21ft1k|miil|augreg")
_IGNORED = {"num_classes", "dynamic_img_size", "strict_img_size", "weight_init", "fix_init", "no_embed_class"}
_TRANSLATED = {
    "img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "global_pool", "class_token",
    "reg_tokens", "init_values", "qkv_bias", "fc_norm", "in_chans", "pos_embed", "drop_rate", "pos_drop_rate",
    "proj_drop_rate", "attn_drop_rate", "drop_path_rate",
}  # fmt: skip


def to_timm(
    config: ViTConfig, preprocess: Preprocess, class_names: Sequence[str], saved: dict[str, Any]
) -> dict[str, Any]:
    """The config.json that timm and transformers open; our own settings stand whole under "vitreous"."""
    described: dict[str, Any] = {
        "architecture": _nearest_name(config),
        "num_classes": config.classes,
        "num_features": config.width,
        "global_pool": _timm_pooling(config),
        "model_args": _model_arguments(config),
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
    differences = []
    if config.hidden_head:
        differences.append("the hidden layer of the pre-training head")
    if not config.patch_bias:
        differences.append("a patch embedding without bias")
    if config.norm_eps != ViTConfig.norm_eps:
        differences.append(f"a LayerNorm epsilon of {config.norm_eps:g}")
    return differences


def config_from_timm(described: dict[str, Any], shapes: Shapes) -> tuple[ViTConfig, tuple[Decision, ...]]:
    """Our settings for a plain ViT that timm saved; what the tensors tell is taken from them.

    Args:
        described: the content of timm's config.json.
        shapes: of the tensors beside it.

    Returns:
        The architecture, and for each setting that the tensors do not tell where it comes from.

    Raises:
        CheckpointError: if it is another architecture, or one that cannot be told with certainty.
    """
    arguments = _mapping(described, "model_args")
    size_word = _plain_name(described)
    told = _told_by_tensors(shapes)
    _check_arguments(arguments, told)
    heads = _heads(arguments, size_word, described)
    pooling = _pooling(described, arguments)
    image_size = _image_size(described, arguments)
    scale = _layer_scale(arguments, shapes)
    eps = Decision("norm_eps", ViTConfig.norm_eps, "timm's default for this family")
    settings = {name: value for name, value in told.items() if name != "mlp_width"}
    settings["mlp_ratio"] = told["mlp_width"] / told["width"]
    decisions = (heads, pooling, image_size, *scale, eps)
    settings |= {decision.setting: decision.value for decision in decisions}
    try:
        config = ViTConfig.from_dict(settings)
    except ConfigError as cause:
        raise CheckpointError(f"config.json and the weights do not make a ViT: {cause}") from cause
    table = shapes.get("pos_embed")
    if table is not None and config.prefix and table[1:2] == (config.tokens - config.prefix,):
        decisions += (Decision("positions of the prefix", 0, "the table has patches only; adding 0 is exact"),)
    return config, decisions


def class_names_from_timm(described: dict[str, Any], classes: int) -> tuple[str, ...]:
    """The label names, at the root or under pretrained_cfg, a list or {"0": name}; empty where none are.

    Raises:
        CheckpointError: if there are more or fewer than classes.
    """
    names = described.get("label_names") or _mapping(described, "pretrained_cfg").get("label_names") or []
    if isinstance(names, dict):
        names = [names.get(str(index), "") for index in range(min(len(names), classes))]
    if not isinstance(names, list):
        raise CheckpointError(f"config.json has label_names {names!r}; expected a list of names")
    if names and len(names) != classes:
        raise CheckpointError(
            f"config.json has {len(names)} label_names, the head {classes} classes; give one name for each"
        )
    return tuple(str(name) for name in names)


def _nearest_name(config: ViTConfig) -> str:
    """The word that timm has for this width; the exact sizes stand in model_args, which win."""
    patch = {"H": 14}
    for word, size in _SIZE_WORDS.items():
        if SIZES[size].width == config.width:
            return f"vit_{word}_patch{patch.get(size, 16)}_224"
    return "vit_base_patch16_224"


def _timm_pooling(config: ViTConfig) -> str:
    return next(word for word, pooling in _POOLING.items() if pooling == config.pooling)


def _model_arguments(config: ViTConfig) -> dict[str, Any]:
    """Arguments of timm's VisionTransformer, without the class count: transformers would see it twice."""
    ratio = config.mlp_width / config.width
    if int(config.width * ratio) != config.mlp_width:  # timm rounds down
        ratio = (config.mlp_width + 0.5) / config.width
    return {
        "img_size": list(config.image_size),
        "patch_size": list(config.patch_size),
        "in_chans": config.channels,
        "embed_dim": config.width,
        "depth": config.depth,
        "num_heads": config.heads,
        "mlp_ratio": ratio,
        "global_pool": _timm_pooling(config),
        "class_token": config.class_token,
        "reg_tokens": config.registers,
        "pos_embed": "learn" if config.positions == "learned" else "none",
        "qkv_bias": config.qkv_bias,
        "init_values": config.layer_scale,
        "fc_norm": config.has_norm_after_pooling,
        "pos_drop_rate": config.dropout,
        "proj_drop_rate": config.dropout,
        "drop_path_rate": config.drop_path,
    }


def _input_description(config: ViTConfig, preprocess: Preprocess) -> dict[str, Any]:
    return {
        "input_size": [config.channels, *preprocess.image_size],
        "fixed_input_size": True,
        "interpolation": preprocess.interpolation,
        "crop_pct": preprocess.crop_fraction,
        "crop_mode": "squash" if preprocess.resize == "squash" else "center",
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "num_classes": config.classes,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }


def _plain_name(described: dict[str, Any]) -> str:
    """The size word in timm's architecture name, such as "base"; names of models that differ are refused."""
    name = described.get("architecture")
    match = _NAME.fullmatch(name) if isinstance(name, str) else None
    words = match[2].split("_")[1:] if match else []
    strange = [word for word in words if not _PLAIN_WORD.fullmatch(word)]
    if match is None or strange:
        why = f"its {strange[0]!r} may change the computation" if strange else "plain ViTs are vit_SIZE_patchN_..."
        raise CheckpointError(
            f"config.json's architecture {name!r} is not one that vitreous rebuilds: {why}; "
            "open it with timm itself: timm:local-dir:FOLDER"
        )
    return match[1]


def _told_by_tensors(shapes: Shapes) -> dict[str, Any]:
    """All settings that can be read off the tensors' names and shapes."""
    width, channels, patch_height, patch_width = _shape(shapes, "patch_embed.proj.weight", 4)
    blocks = {name.split(".")[1] for name in shapes if name.startswith("blocks.")}
    return {
        "width": width,
        "channels": channels,
        "patch_size": [patch_height, patch_width],
        "depth": len(blocks),
        "mlp_width": _shape(shapes, "blocks.0.mlp.fc1.weight", 2)[0],
        "class_token": "cls_token" in shapes,
        "registers": _shape(shapes, "reg_token", 3)[1] if "reg_token" in shapes else 0,
        "positions": "learned" if "pos_embed" in shapes else "none",
        "classes": _shape(shapes, "head.weight", 2)[0] if "head.weight" in shapes else 0,
        "patch_bias": "patch_embed.proj.bias" in shapes,
        "qkv_bias": "blocks.0.attn.qkv.bias" in shapes,
        "norm_after_pooling": "fc_norm.weight" in shapes,
    }


def _check_arguments(arguments: dict[str, Any], told: dict[str, Any]) -> None:
    """Refuses arguments that vitreous has no word for, and those that the tensors contradict."""
    for name, value in arguments.items():
        if name not in _TRANSLATED | _IGNORED and value not in (None, False, 0, ""):
            raise CheckpointError(
                f"config.json's model_args has {name}={value!r}, which vitreous has no word for; "
                "open it with timm itself: timm:local-dir:FOLDER"
            )
    same = {"embed_dim": "width", "depth": "depth", "in_chans": "channels", "reg_tokens": "registers",
            "class_token": "class_token", "qkv_bias": "qkv_bias"}  # fmt: skip
    for name, setting in same.items():
        if name in arguments and arguments[name] != told[setting]:
            raise CheckpointError(
                f"config.json's model_args has {name}={arguments[name]!r}, the weights {told[setting]!r}; "
                "use the config.json that was saved with these weights"
            )


def _heads(arguments: dict[str, Any], size_word: str, described: dict[str, Any]) -> Decision:
    if "num_heads" in arguments:
        return Decision("heads", arguments["num_heads"], "num_heads in model_args")
    heads = SIZES[_SIZE_WORDS[size_word]].heads
    return Decision("heads", heads, f"timm's architecture {described['architecture']}")


def _pooling(described: dict[str, Any], arguments: dict[str, Any]) -> Decision:
    value = arguments.get("global_pool", described.get("global_pool"))
    if value is None:
        return Decision("pooling", "class", "timm's default, because config.json has no global_pool", guessed=True)
    if not isinstance(value, str) or value not in _POOLING:
        raise CheckpointError(
            f"config.json's global_pool is {value!r}; vitreous has token and avg; "
            "open it with timm itself: timm:local-dir:FOLDER"
        )
    return Decision("pooling", _POOLING[value], "global_pool in config.json")


def _image_size(described: dict[str, Any], arguments: dict[str, Any]) -> Decision:
    if (size := arguments.get("img_size")) is not None:
        return Decision("image_size", [size, size] if isinstance(size, int) else size, "img_size in model_args")
    size = _mapping(described, "pretrained_cfg").get("input_size")
    if isinstance(size, list) and len(size) == 3:
        return Decision("image_size", size[1:], "input_size in pretrained_cfg")
    return Decision("image_size", [224, 224], "timm's default, because config.json does not say", guessed=True)


def _layer_scale(arguments: dict[str, Any], shapes: Shapes) -> tuple[Decision, ...]:
    if "blocks.0.ls1.gamma" not in shapes:
        return ()
    if (value := arguments.get("init_values")) is not None:
        return (Decision("layer_scale", value, "init_values in model_args"),)
    return (Decision("layer_scale", 1e-5, "timm's usual first value; the weights replace it"),)


def _mapping(described: dict[str, Any], name: str) -> dict[str, Any]:
    value = described.get(name) or {}
    if not isinstance(value, dict):
        raise CheckpointError(f"config.json's {name} is {value!r}; it is an object of settings")
    return value


def _shape(shapes: Shapes, name: str, axes: int) -> tuple[int, ...]:
    shape = shapes.get(name)
    if shape is None or len(shape) != axes or 0 in shape:
        have = "is missing" if shape is None else f"is {shape}"
        raise CheckpointError(f"the weights are not those of a timm ViT: {name} {have}, it has {axes} axes there")
    return shape
