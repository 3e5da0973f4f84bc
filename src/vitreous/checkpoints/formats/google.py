"""Google's .npz of the ViT paper and of AugReg: plain, hybrid, mean-pooled, with or without the pre-training head.

Source: google-research/vision_transformer, vit_jax/models_vit.py, models_resnet.py and checkpoint.py.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from vitreous.checkpoints.containers.contract import Shapes
from vitreous.checkpoints.dialects import flax
from vitreous.checkpoints.dialects.settled import about_classes, about_images, config_of
from vitreous.checkpoints.loaded import Decision
from vitreous.checkpoints.reading import Found, Plan, Reading, asked_or, same, shape_of, square_grid, unused
from vitreous.data import pipelines
from vitreous.errors import ConfigError
from vitreous.model.config import ViTConfig

TITLE = "Google vision_transformer"

NORM_EPS = 1e-6
"""Flax's default for LayerNorm and GroupNorm, which Google's code keeps."""

ACTIVATION = "gelu-tanh"
"""What Flax's `nn.gelu` computes unless told otherwise, and Google's code does not tell."""

_POSITIONS = "Transformer/posembed_input/pos_embedding"
_USUAL_SIDE = 224  # pixels


def recognises(found: Found) -> bool:
    """Whether blocks are numbered as in the published files, or positions or a ResNet lie where this code has them."""
    prefix = flax.prefix_of(found.shapes)
    if prefix is None:
        return False
    attention = f"{flax.BLOCKS}_0/{flax.PUBLISHED.attention}/query/kernel"
    return any(prefix + name in found.shapes for name in (attention, _POSITIONS, "conv_root/kernel"))


def read(found: Found) -> Reading:
    """Architecture and plan; see `reading`.

    Raises:
        CheckpointError: if the architecture cannot be, or an array has no place in it.
    """
    prefix = flax.prefix_of(found.shapes) or ""
    shapes = flax.without_prefix(found.shapes, prefix)
    encoder = flax.find_encoder(shapes)
    settings = flax.encoder_settings(shapes, encoder) | flax.head_settings(shapes)
    settings |= {"class_token": "cls" in shapes, "stem": _stem(shapes), "norm_after_pooling": False}
    if settings["stem"] is not None:
        settings["channels"], settings["stem_width"] = shape_of(shapes, "conv_root/kernel", 4)[2:]
    patch_size = patch_pixels(shapes, settings["stem"])
    decisions = [*google_decisions(), _pooling(settings["class_token"])]
    if _POSITIONS in shapes:
        patches = shape_of(shapes, _POSITIONS, 3)[1] - settings["class_token"]
        decisions.append(square_grid(patches, found.asked, patch_size)[0])
    else:
        decisions += [Decision("positions", "none", "there is no table of positions"), usual_size(found, patch_size)]
    settings |= {"patch_size": patch_size} | {decision.setting: decision.value for decision in decisions}
    config = config_of(settings)
    plan = flax.encoder_plan(encoder) | _embedding_plan(shapes, config) | flax.head_plan(settings)
    plan = flax.with_prefix(plan, prefix)
    preprocess = pipelines.google(config.image_size)
    decisions += (*about_classes(config), *about_images(preprocess, "what Google's code does for every model"))
    ignored = unused(found, plan, flax.beside_the_model(prefix) | headless(prefix, config))
    return Reading(config, plan, preprocess, tuple(decisions), ignored)


def write(config: ViTConfig, tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """The arrays of an .npz that Google's code loads and that gives the same logits there.

    Args:
        config: the architecture.
        tensors: by our names, as in `VisionTransformer.state_dict()`.

    Returns:
        Arrays by their published names, in the tensors' own type; bfloat16 as float32.

    Raises:
        ConfigError: if Google's code has no word for a part of the architecture; all are listed.
    """
    if differences := google_differences(config):
        raise ConfigError(f"Google's code has no word for: {'; '.join(differences)}\nsave it with to='timm', which has")
    arrays = _write_stem(config, tensors) | _write_embedding(config, tensors)
    for layer in range(config.depth):
        arrays |= flax.write_block(tensors, layer, config.heads)
    last = "fc_norm" if config.has_norm_after_pooling else "norm"
    arrays |= flax.write_norm(tensors, last, "Transformer/encoder_norm")
    if config.hidden_head:
        arrays |= flax.write_dense(tensors, "pre_logits", "pre_logits")
    if config.classes:
        arrays |= flax.write_dense(tensors, "head", "head")
    return {name: _as_numpy(tensor) for name, tensor in arrays.items()}


def google_differences(config: ViTConfig) -> list[str]:
    """What of an architecture Google's code has no word for; empty when it computes the same logits."""
    unlike = {
        "registers": config.registers > 0,
        "a distillation token": config.distillation,
        "timm's constants in the stem": config.stem is not None and config.stem_constants != "google",
        "a 3x3 root in the stem": config.stem is not None and config.stem_root != "imagenet",
        "a stem without blocks behind it": not config.depth,
        "norms of patches": config.patch_norms,
        "a norm before the blocks": config.norm_before_blocks,
        "norms of queries and keys": config.qk_norm,
        f"heads of {config.head_dim}, which do not add up to the width": config.all_heads != config.width,
        "a gated MLP": config.gated_mlp,
        "layer scale": config.layer_scale is not None,
        f"positions {config.positions!r}": config.positions not in ("learned", "sincos-2d", "none"),
        "positions before every layer": config.positions_at != "stem",
        f"pooling {config.pooling!r}": config.pooling not in ("class", "mean"),
        "a class token beside pooling 'mean'": config.pooling == "mean" and config.class_token,
        "a LayerNorm after pooling 'mean'": config.pooling == "mean" and config.has_norm_after_pooling,
        f"a LayerNorm epsilon of {config.norm_eps:g}; it has {NORM_EPS:g}": config.norm_eps != NORM_EPS,
        f"activation {config.activation!r}; it has {ACTIVATION!r}, which activation={ACTIVATION} accepts": (
            config.activation != ACTIVATION
        ),
    }
    return [what for what, differs in unlike.items() if differs]


def google_decisions() -> list[Decision]:
    """What no file of Google's tells, because their code has it fixed."""
    return [
        Decision("activation", ACTIVATION, "Flax's gelu, which Google's code runs, is the tanh approximation"),
        Decision("norm_eps", NORM_EPS, "Flax's default, which Google's code keeps"),
        Decision("resampling", "google", "Google's code moves positions to other grids by its own rule"),
    ]


def patch_pixels(shapes: Shapes, stem: tuple[int, ...] | None) -> tuple[int, int]:
    """(height, width) in pixels that one token stands for: of the embedding's kernel, times the stem's stride."""
    stride = 1 if stem is None else 4 * 2 ** max(len(stem) - 1, 0)
    height, width = shape_of(shapes, "embedding/kernel", 4)[:2]
    return height * stride, width * stride


def usual_size(found: Found, patch_size: tuple[int, int]) -> Decision:
    """The image size of a model without a table of positions: as asked, or about 224 pixels."""
    size = [max(_USUAL_SIDE // side, 1) * side for side in patch_size]
    reason = "the usual size, because there is no table of positions"
    return asked_or("image_size", found.asked, size, reason, guessed=True)


def headless(prefix: str, config: ViTConfig) -> dict[str, str]:
    """The reason to leave out the hidden layer of a head that is not in the file."""
    reason = "the hidden layer of a head that is not in the file"
    return {} if config.classes else {f"{prefix}pre_logits/": reason}


def _pooling(has_class_token: bool) -> Decision:
    if has_class_token:
        return Decision("pooling", "class", "there is a class token")
    return Decision("pooling", "mean", "there is no class token; Google's code then takes the mean of all tokens")


def _stem(shapes: Shapes) -> tuple[int, ...] | None:
    """Units in each stage of the ResNet; () for a root alone, None for no ResNet."""
    if "conv_root/kernel" not in shapes:
        return None
    stages: list[int] = []
    while f"block{len(stages) + 1}/unit1/conv1/kernel" in shapes:
        units = 1
        while f"block{len(stages) + 1}/unit{units + 1}/conv1/kernel" in shapes:
            units += 1
        stages.append(units)
    return tuple(stages)


def _embedding_plan(shapes: Shapes, config: ViTConfig) -> Plan:
    """Everything before the first block."""
    plan = {
        "patch_embed.proj.weight": flax.convolution("embedding/kernel"),
        "patch_embed.proj.bias": same("embedding/bias"),
    }
    for ours, theirs in _stem_convolutions(config.stem):
        plan[f"{ours}.weight"] = flax.convolution(f"{theirs}/kernel")
    for ours, theirs in _stem_norms(config.stem):
        plan |= flax.norm(ours, theirs)
    if config.class_token:
        plan["cls_token"] = same("cls")
    if _POSITIONS in shapes:
        plan["pos_embed"] = same(_POSITIONS)
    return plan


def _write_embedding(config: ViTConfig, tensors: Mapping[str, Tensor]) -> flax.Arrays:
    arrays = flax.write_convolution(tensors, "patch_embed.proj.weight", "embedding/kernel")
    no_bias = tensors["patch_embed.proj.weight"].new_zeros(config.width)
    arrays["embedding/bias"] = tensors.get("patch_embed.proj.bias", no_bias)
    if config.class_token:
        arrays["cls"] = tensors["cls_token"]
    if config.positions != "none":
        arrays[_POSITIONS] = tensors["pos_embed"]
    return arrays


def _write_stem(config: ViTConfig, tensors: Mapping[str, Tensor]) -> flax.Arrays:
    arrays: flax.Arrays = {}
    for ours, theirs in _stem_convolutions(config.stem):
        arrays |= flax.write_convolution(tensors, f"{ours}.weight", f"{theirs}/kernel")
    for ours, theirs in _stem_norms(config.stem):
        arrays |= flax.write_norm(tensors, ours, theirs)
    return arrays


def _stem_convolutions(stem: tuple[int, ...] | None) -> list[tuple[str, str]]:
    """Our name and theirs of every convolution in the ResNet."""
    return _stem_layers(stem, ("conv", "conv_root"), ("conv", "conv"), ("downsample.conv", "conv_proj"))


def _stem_norms(stem: tuple[int, ...] | None) -> list[tuple[str, str]]:
    """Our name and theirs of every GroupNorm in the ResNet."""
    return _stem_layers(stem, ("norm", "gn_root"), ("norm", "gn"), ("downsample.norm", "gn_proj"))


def _stem_layers(
    stem: tuple[int, ...] | None, root: tuple[str, str], numbered: tuple[str, str], shortcut: tuple[str, str]
) -> list[tuple[str, str]]:
    """Layers of one kind: the root's, three in each unit, and the shortcut's in the first unit of each stage."""
    if stem is None:
        return []
    layers = [(f"patch_embed.backbone.{'stem.' if stem else ''}{root[0]}", root[1])]  # timm's names for a root alone
    for stage, units in enumerate(stem):
        for unit in range(units):
            ours, theirs = f"patch_embed.backbone.stages.{stage}.blocks.{unit}", f"block{stage + 1}/unit{unit + 1}"
            layers += [(f"{ours}.{numbered[0]}{place}", f"{theirs}/{numbered[1]}{place}") for place in (1, 2, 3)]
            if unit == 0:
                layers.append((f"{ours}.{shortcut[0]}", f"{theirs}/{shortcut[1]}"))
    return layers


def _as_numpy(tensor: Tensor) -> np.ndarray:
    plain = tensor.detach().cpu()
    plain = plain.float() if plain.dtype == torch.bfloat16 else plain
    return np.array(plain.numpy(), order="C")  # a copy: the arrays outlive the model
