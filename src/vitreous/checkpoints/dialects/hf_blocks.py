"""The blocks of transformers' encoders: all compute the same, each under names of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vitreous.checkpoints.containers.contract import Shapes
from vitreous.checkpoints.reading import Part, Plan, joined, layers_of, same, shape_of, zeros
from vitreous.errors import CheckpointError

LAYERS = ("encoder.layer.", "encoder.layers.", "layers.", "layer.", "model.layer.")
"""What may stand before a layer's number; files and models in memory differ, and so do versions."""

_NORMS: dict[str, tuple[str, ...]] = {
    "norm1": ("layernorm_before", "norm1", "layer_norm1"),
    "norm2": ("layernorm_after", "norm2", "layer_norm2"),
}
_DENSE: dict[str, tuple[str, ...]] = {
    "attn.proj": ("attention.output.dense", "attention.o_proj", "self_attn.out_proj"),
    "mlp.fc1": ("intermediate.dense", "mlp.fc1", "mlp.weights_in", "mlp.up_proj"),
    "mlp.fc2": ("output.dense", "mlp.fc2", "mlp.weights_out", "mlp.down_proj"),
}
_ATTENTION: dict[str, tuple[str, ...]] = {
    "queries": ("attention.attention.query", "attention.q_proj", "self_attn.q_proj"),
    "keys": ("attention.attention.key", "attention.k_proj", "self_attn.k_proj"),
    "values": ("attention.attention.value", "attention.v_proj", "self_attn.v_proj"),
}
_SCALES: dict[str, tuple[str, ...]] = {
    "ls1.gamma": ("layer_scale1.lambda1", "lambda_1"),
    "ls2.gamma": ("layer_scale2.lambda1", "lambda_2"),
}
_GATE = "mlp.gate_proj"
_BOTH_HALVES = "mlp.weights_in"  # of a gated MLP's hidden layer; the one that goes through silu first

DENSE = (*_ATTENTION, *_DENSE)
"""What the dense layers of a block are called here."""


@dataclass(frozen=True)
class Blocks:
    """What the tensors tell of an encoder's blocks.

    Attributes:
        path: what stands before a layer's number.
        plan: of our tensors of all blocks.
        depth: number of blocks.
        attention_width: length of all heads' queries together.
        mlp_width: length of the MLP's hidden layer.
        gated_mlp: whether the hidden layer is the product of two.
        has_layer_scale: whether each branch has a learned factor.
        biases: which of `DENSE` have one.
    """

    path: str
    plan: Plan
    depth: int
    attention_width: int
    mlp_width: int
    gated_mlp: bool
    has_layer_scale: bool
    biases: frozenset[str]

    @property
    def qkv_bias(self) -> bool:
        """Whether queries, keys or values have one."""
        return not self.biases.isdisjoint(_ATTENTION)


def read_blocks(shapes: Shapes, before: str, may_lack: Collection[str] = ()) -> Blocks:
    """The blocks under names that begin with `before`, or with nothing, as ViT-MSN writes them.

    What the first block has, all have.

    Args:
        shapes: of the file.
        before: of the model's name, such as "vit.".
        may_lack: which of `DENSE` may have no bias; queries, keys and values may always lack all three.

    Raises:
        CheckpointError: if there are none, or a layer is missing or of another shape than its like.
    """
    path = _path(shapes, before)
    first = f"{path}0."
    words = {ours: _one_of(shapes, first, names) for ours, names in (_NORMS | _ATTENTION | _DENSE).items()}
    biases = frozenset(name for name in DENSE if f"{first}{words[name]}.bias" in shapes)
    biases |= {name for name in _DENSE if name not in may_lack}
    if not biases.isdisjoint(_ATTENTION):
        biases |= {name for name in _ATTENTION if name not in may_lack}
    gated = first + _GATE + ".weight" in shapes
    fused = words["mlp.fc1"] == _BOTH_HALVES
    hidden = shape_of(shapes, f"{first}{words['mlp.fc1']}.weight", 2)[0]
    scales = {ours: name for ours, names in _SCALES.items() for name in names if first + name in shapes}
    depth = layers_of(shapes, path)
    plan: Plan = {}
    for layer in range(depth):
        plan |= _block(shapes, f"{path}{layer}.", f"blocks.{layer}.", words, biases)
        plan |= {f"blocks.{layer}.{ours}": same(f"{path}{layer}.{theirs}") for ours, theirs in scales.items()}
    return Blocks(
        path,
        plan,
        depth,
        attention_width=shape_of(shapes, f"{first}{words['queries']}.weight", 2)[0],
        mlp_width=hidden // 2 if fused else hidden,
        gated_mlp=gated or fused,
        has_layer_scale=bool(scales),
        biases=biases,
    )


def dense(theirs: str, ours: str) -> Plan:
    """A dense layer, or a norm."""
    return {f"{ours}.{kind}": same(f"{theirs}.{kind}") for kind in ("weight", "bias")}


def dense_without_bias(shapes: Shapes, theirs: str, ours: str) -> Plan:
    """A dense layer whose bias is zeros here, which is exact."""
    name = f"{theirs}.weight"
    return {f"{ours}.weight": same(name), f"{ours}.bias": zeros(shape_of(shapes, name, 2)[0])}


def _path(shapes: Shapes, before: str) -> str:
    for path in (*(before + layers for layers in LAYERS), *LAYERS):
        if any(f"{path}0.{norm}.weight" in shapes for norm in _NORMS["norm1"]):
            return path
    raise CheckpointError(f"there is no {before}{LAYERS[0]}0.{_NORMS['norm1'][0]}.weight; the encoder has no blocks")


def _block(shapes: Shapes, theirs: str, ours: str, words: Mapping[str, str], biases: frozenset[str]) -> Plan:
    plan: Plan = {}
    for name in _NORMS:
        plan |= dense(theirs + words[name], ours + name)
    for name in _DENSE:
        layer = theirs + words[name]
        plan |= dense(layer, ours + name) if name in biases else dense_without_bias(shapes, layer, ours + name)
    thirds = [theirs + words[name] for name in _ATTENTION]
    plan[f"{ours}attn.qkv.weight"] = _weights(shapes, thirds)
    if not biases.isdisjoint(_ATTENTION):
        plan[f"{ours}attn.qkv.bias"] = _biases(shapes, thirds, [name in biases for name in _ATTENTION])
    if f"{theirs}{_GATE}.weight" in shapes:
        halves = [theirs + _GATE, theirs + words["mlp.fc1"]]
        plan[f"{ours}mlp.fc1.weight"] = _weights(shapes, halves)
        plan[f"{ours}mlp.fc1.bias"] = _biases(shapes, halves, ["mlp.fc1" in biases] * 2)
    return plan


def _weights(shapes: Shapes, layers: Sequence[str]) -> Part:
    """Of dense layers, one behind the other."""
    names = [f"{layer}.weight" for layer in layers]
    _check_alike({name: shape_of(shapes, name, 2) for name in names})
    return joined(*names)


def _biases(shapes: Shapes, layers: Sequence[str], has_bias: Sequence[bool]) -> Part:
    """Of dense layers, one behind the other, zeros for one without; where keys have none, softmax would cancel any."""
    names = tuple(f"{layer}.bias" for layer, has in zip(layers, has_bias, strict=True) if has)
    _check_alike({name: shapes[name] for name in names if name in shapes})
    length = shape_of(shapes, f"{layers[0]}.weight", 2)[0]

    def make(*biases: Tensor) -> Tensor:
        left, like = iter(biases), biases[0] if biases else torch.empty(0)
        return torch.cat([next(left) if has else like.new_zeros(length) for has in has_bias])

    return Part(names, make)


def _check_alike(layers: Mapping[str, tuple[int, ...]]) -> None:
    """Refuses layers of different shapes, which joined could pass for others."""
    if len(set(layers.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in layers.items())
        raise CheckpointError(f"these are of one shape in a ViT: {listed}; copy or download the file again")


def _one_of(shapes: Shapes, theirs: str, words: Sequence[str]) -> str:
    for word in words:
        if f"{theirs}{word}.weight" in shapes:
            return word
    raise CheckpointError(f"{theirs}{words[0]}.weight is missing; copy or download the file again")
