"""Flax's arrays in our shapes and back, for the two formats of Google's code: a plan to read, arrays to write.

dense kernel        (inputs, outputs)                           weight (outputs, inputs)
convolution         (height, width, inputs, outputs)            weight (outputs, inputs, height, width)
query, key, value   kernel (width, heads, head_dim)             one qkv.weight (3 * heads * head_dim, width)
out                 kernel (heads, head_dim, width)             proj.weight (width, heads * head_dim)
norm                scale, bias (width), or (1, 1, 1, width)    weight, bias (width)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitreous.checkpoints.containers.contract import Shapes
from vitreous.checkpoints.reading import Part, Plan, layers_of, same, shape_of, transposed
from vitreous.errors import CheckpointError

Arrays = dict[str, Tensor]

BLOCKS = "Transformer/encoderblock"
_PREFIXES = ("", "opt/target/", "params/", "params/img/", "img/")
_TRAINING = "the optimiser's state, or the training's clock"
_OTHER_TOWER = "of the text tower, or of the loss that joins both towers"


class BlockNames(NamedTuple):
    """What the parts of a block are called."""

    norm1: str
    attention: str
    norm2: str
    mlp: str


PUBLISHED = BlockNames("LayerNorm_0", "MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3")
"""All parts of a block counted together, as Flax did when the ViT paper's files were made."""

LINEN = BlockNames("LayerNorm_0", "MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")
"""Each kind of part counted for itself, as Flax has done since."""


class Encoder(NamedTuple):
    """How a file holds the blocks.

    Attributes:
        depth: number of blocks.
        names: of a block's parts.
        is_scanned: whether all blocks lie stacked in arrays with a leading axis for the block.
    """

    depth: int
    names: BlockNames
    is_scanned: bool


def prefix_of(shapes: Shapes) -> str | None:
    """What stands before the names of the vision model in a file; None if there is none from Google's code.

    Optimiser checkpoints have "opt/target/" or "params/", models of images and text "params/img/" or "img/".
    """
    found = (prefix for prefix in _PREFIXES if f"{prefix}embedding/kernel" in shapes)
    return next((prefix for prefix in found if any(name.startswith(prefix + BLOCKS) for name in shapes)), None)


def without_prefix(shapes: Shapes, prefix: str) -> Shapes:
    """The vision model's own names and shapes."""
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}


def with_prefix(plan: Plan, prefix: str) -> Plan:
    """A plan on the vision model's own names, made one on the whole file's."""
    return {ours: Part(tuple(prefix + name for name in part.sources), part.make) for ours, part in plan.items()}


def beside_the_model(prefix: str) -> dict[str, str]:
    """Beginnings of names that lie beside the vision model, and why each may be left out."""
    state = "opt/state/" if prefix.startswith("opt/") else "opt/"
    reasons = dict.fromkeys((state, "extra/", "chrono/"), _TRAINING)
    if prefix.endswith("img/"):
        outer = prefix.removesuffix("img/")
        reasons |= {outer + name: _OTHER_TOWER for name in ("txt/", "t", "b")}
    return reasons


def find_encoder(shapes: Shapes) -> Encoder:
    """How the blocks lie in a file.

    Raises:
        CheckpointError: if they are not numbered from 0 on, or their parts have unknown names.
    """
    is_scanned = f"{BLOCKS}/LayerNorm_0/scale" in shapes
    first = BLOCKS if is_scanned else f"{BLOCKS}_0"
    depth = shape_of(shapes, f"{BLOCKS}/LayerNorm_0/scale", 2)[0] if is_scanned else layers_of(shapes, f"{BLOCKS}_")
    for names in (PUBLISHED, LINEN):
        if f"{first}/{names.attention}/query/kernel" in shapes:
            return Encoder(depth, names, is_scanned)
    raise CheckpointError(
        f"{first} has no {PUBLISHED.attention} and no {LINEN.attention}; "
        "vitreous reads the names of Google's published files and of big_vision"
    )


def encoder_settings(shapes: Shapes, encoder: Encoder) -> dict[str, Any]:
    """What names and shapes tell of patches and blocks: fields of `ViTConfig`, but for `patch_size`.

    Raises:
        CheckpointError: if an array is missing, or the heads' lengths do not add up to the width.
    """
    channels, width = shape_of(shapes, "embedding/kernel", 4)[2:]
    first = BLOCKS if encoder.is_scanned else f"{BLOCKS}_0"
    stacked = int(encoder.is_scanned)
    query = f"{first}/{encoder.names.attention}/query/kernel"
    heads, head_dim = shape_of(shapes, query, 3 + stacked)[-2:]
    if heads * head_dim != width:
        raise CheckpointError(
            f"{query} has {heads} heads of {head_dim}, which do not add up to the width {width}; "
            "copy or download the file again"
        )
    hidden = shape_of(shapes, f"{first}/{encoder.names.mlp}/Dense_0/kernel", 2 + stacked)[-1]
    return {"width": width, "channels": channels, "depth": encoder.depth, "heads": heads, "mlp_ratio": hidden / width}


def encoder_plan(encoder: Encoder) -> Plan:
    """Every block, and the norm behind them as `norm`."""
    plan = norm("norm", "Transformer/encoder_norm")
    for layer in range(encoder.depth):
        theirs = BLOCKS if encoder.is_scanned else f"{BLOCKS}_{layer}"
        block = _block(f"blocks.{layer}", theirs, encoder.names)
        plan |= {ours: _of_layer(part, layer) for ours, part in block.items()} if encoder.is_scanned else block
    return plan


def head_settings(shapes: Shapes) -> dict[str, Any]:
    """What names and shapes tell of the head: `classes` and `hidden_head`.

    Raises:
        CheckpointError: if the hidden layer is not as wide as a token.
    """
    classes = shape_of(shapes, "head/kernel", 2)[1] if "head/kernel" in shapes else 0
    if has_hidden := "pre_logits/kernel" in shapes:
        inputs, outputs = shape_of(shapes, "pre_logits/kernel", 2)
        if inputs != outputs:
            raise CheckpointError(
                f"pre_logits/kernel is ({inputs}, {outputs}); a hidden head as wide as a token was expected\n"
                "take the head out of the file, or open it with Google's code"
            )
    return {"classes": classes, "hidden_head": has_hidden and classes > 0}


def head_plan(settings: Mapping[str, Any]) -> Plan:
    """The layers that `head_settings` found."""
    hidden = dense("pre_logits", "pre_logits") if settings["hidden_head"] else {}
    return hidden | (dense("head", "head") if settings["classes"] else {})


def convolution(kernel: str) -> Part:
    """A convolution's weight."""
    return Part((kernel,), lambda tensor: tensor.permute(3, 2, 0, 1))


def vector(name: str) -> Part:
    """All numbers in a row; Flax's GroupNorm had (1, 1, 1, channels) once."""
    return Part((name,), lambda tensor: tensor.reshape(-1))


def dense(ours: str, theirs: str) -> Plan:
    """A linear layer."""
    return {f"{ours}.weight": transposed(f"{theirs}/kernel"), f"{ours}.bias": same(f"{theirs}/bias")}


def norm(ours: str, theirs: str) -> Plan:
    """A LayerNorm or GroupNorm."""
    return {f"{ours}.weight": vector(f"{theirs}/scale"), f"{ours}.bias": vector(f"{theirs}/bias")}


def projections(ours: str, theirs: str, *which: str) -> Plan:
    """One linear layer made of several: query, key and value, one behind the other."""
    kernels = tuple(f"{theirs}/{name}/kernel" for name in which)
    biases = tuple(f"{theirs}/{name}/bias" for name in which)
    return {
        f"{ours}.weight": Part(kernels, lambda *tensors: torch.cat([tensor.flatten(1).T for tensor in tensors])),
        f"{ours}.bias": Part(biases, lambda *tensors: torch.cat([tensor.reshape(-1) for tensor in tensors])),
    }


def gathering(ours: str, theirs: str) -> Plan:
    """The linear layer that mixes all heads' values."""
    kernel = Part((f"{theirs}/out/kernel",), lambda tensor: tensor.flatten(0, 1).T)
    return {f"{ours}.weight": kernel, f"{ours}.bias": same(f"{theirs}/out/bias")}


def mlp(ours: str, theirs: str) -> Plan:
    """Both layers of an MLP."""
    return dense(f"{ours}.fc1", f"{theirs}/Dense_0") | dense(f"{ours}.fc2", f"{theirs}/Dense_1")


def write_dense(tensors: Mapping[str, Tensor], ours: str, theirs: str) -> Arrays:
    """What `dense` reads."""
    return {f"{theirs}/kernel": tensors[f"{ours}.weight"].T, f"{theirs}/bias": tensors[f"{ours}.bias"]}


def write_norm(tensors: Mapping[str, Tensor], ours: str, theirs: str) -> Arrays:
    """What `norm` reads."""
    return {f"{theirs}/scale": tensors[f"{ours}.weight"], f"{theirs}/bias": tensors[f"{ours}.bias"]}


def write_convolution(tensors: Mapping[str, Tensor], ours: str, kernel: str) -> Arrays:
    """What `convolution` reads."""
    return {kernel: tensors[ours].permute(2, 3, 1, 0)}


def write_block(tensors: Mapping[str, Tensor], layer: int, heads: int) -> Arrays:
    """One block under its published names. Missing biases of queries, keys and values are written as zeros."""
    ours, theirs = f"blocks.{layer}", f"{BLOCKS}_{layer}"
    attention = f"{theirs}/{PUBLISHED.attention}"
    weight = tensors[f"{ours}.attn.qkv.weight"]
    bias = tensors.get(f"{ours}.attn.qkv.bias", weight.new_zeros(len(weight)))
    arrays = write_norm(tensors, f"{ours}.norm1", f"{theirs}/{PUBLISHED.norm1}")
    for name, kernel, shift in zip(("query", "key", "value"), weight.chunk(3), bias.chunk(3), strict=True):
        arrays[f"{attention}/{name}/kernel"] = kernel.T.unflatten(1, (heads, -1))  # (width, heads, head_dim)
        arrays[f"{attention}/{name}/bias"] = shift.unflatten(0, (heads, -1))  # (heads, head_dim)
    arrays[f"{attention}/out/kernel"] = tensors[f"{ours}.attn.proj.weight"].T.unflatten(0, (heads, -1))
    arrays[f"{attention}/out/bias"] = tensors[f"{ours}.attn.proj.bias"]
    arrays |= write_norm(tensors, f"{ours}.norm2", f"{theirs}/{PUBLISHED.norm2}")
    arrays |= write_dense(tensors, f"{ours}.mlp.fc1", f"{theirs}/{PUBLISHED.mlp}/Dense_0")
    return arrays | write_dense(tensors, f"{ours}.mlp.fc2", f"{theirs}/{PUBLISHED.mlp}/Dense_1")


def _block(ours: str, theirs: str, names: BlockNames) -> Plan:
    attention = f"{theirs}/{names.attention}"
    return (
        norm(f"{ours}.norm1", f"{theirs}/{names.norm1}")
        | projections(f"{ours}.attn.qkv", attention, "query", "key", "value")
        | gathering(f"{ours}.attn.proj", attention)
        | norm(f"{ours}.norm2", f"{theirs}/{names.norm2}")
        | mlp(f"{ours}.mlp", f"{theirs}/{names.mlp}")
    )


def _of_layer(part: Part, layer: int) -> Part:
    """The same of one layer, from arrays that hold all layers; a copy, so that the others can be let go."""
    return Part(part.sources, lambda *stacked: part.make(*(tensor[layer].clone() for tensor in stacked)))
