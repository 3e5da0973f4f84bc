from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vitreous.checkpoints.containers.contract import Shapes
from vitreous.checkpoints.dialects.hf_blocks import Blocks, read_blocks
from vitreous.errors import CheckpointError

LEGACY = {
    "layernorm_before": (8,), "layernorm_after": (8,), "attention.attention.query": (8, 8),
    "attention.attention.key": (8, 8), "attention.attention.value": (8, 8), "attention.output.dense": (8, 8),
    "intermediate.dense": (20, 8), "output.dense": (8, 20),
}  # fmt: skip


def block(path: str, layers: dict[str, tuple[int, ...]] = LEGACY) -> Shapes:
    shapes: Shapes = {}
    for name, shape in layers.items():
        shapes |= {f"{path}{name}.weight": shape, f"{path}{name}.bias": shape[:1]}
    return shapes


def made(blocks: Blocks, ours: str, tensors: dict[str, Tensor]) -> Tensor:
    part = blocks.plan[ours]
    return part.make(*(tensors[source] for source in part.sources))


def drawn(shapes: Shapes) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_the_tensors_tell_depth_and_widths() -> None:
    shapes = block("vit.encoder.layer.0.") | block("vit.encoder.layer.1.")
    blocks = read_blocks(shapes, "vit.")
    assert (blocks.path, blocks.depth, blocks.attention_width, blocks.mlp_width) == ("vit.encoder.layer.", 2, 8, 20)
    assert (blocks.qkv_bias, blocks.gated_mlp, blocks.has_layer_scale) == (True, False, False)
    assert {source for part in blocks.plan.values() for source in part.sources} == shapes.keys()


def test_queries_come_before_keys_before_values() -> None:
    shapes = block("layers.0.")
    tensors = drawn(shapes)
    blocks = read_blocks(shapes, "")
    for kind in ("weight", "bias"):
        thirds = [tensors[f"layers.0.attention.attention.{word}.{kind}"] for word in ("query", "key", "value")]
        assert torch.equal(made(blocks, f"blocks.0.attn.qkv.{kind}", tensors), torch.cat(thirds))


def test_keys_that_may_lack_a_bias_have_zeros() -> None:
    shapes = block("layers.0.")
    del shapes["layers.0.attention.attention.key.bias"]
    tensors = drawn(shapes)
    bias = made(read_blocks(shapes, "", ("keys",)), "blocks.0.attn.qkv.bias", tensors)
    assert torch.equal(bias[8:16], torch.zeros(8))
    assert torch.equal(bias[16:], tensors["layers.0.attention.attention.value.bias"])


def test_keys_that_may_not_lack_a_bias_are_asked_for_it() -> None:
    shapes = block("layers.0.")
    del shapes["layers.0.attention.attention.key.bias"]
    assert "layers.0.attention.attention.key.bias" in read_blocks(shapes, "").plan["blocks.0.attn.qkv.bias"].sources


@pytest.mark.parametrize("name", ["attention.output.dense", "intermediate.dense", "output.dense"])
def test_a_layer_that_may_not_lack_its_bias_is_asked_for_it(name: str) -> None:
    shapes = block("layers.0.")
    del shapes[f"layers.0.{name}.bias"]
    plan = read_blocks(shapes, "", ("keys",)).plan
    assert f"layers.0.{name}.bias" in {source for part in plan.values() for source in part.sources}


def test_a_block_must_have_the_biases_of_the_first() -> None:
    shapes = block("layers.0.") | block("layers.1.")
    del shapes["layers.1.attention.attention.key.bias"]
    plan = read_blocks(shapes, "", ("keys",)).plan
    assert "layers.1.attention.attention.key.bias" in plan["blocks.1.attn.qkv.bias"].sources


def test_without_any_bias_of_queries_keys_and_values_ours_has_none() -> None:
    shapes = {name: shape for name, shape in block("layers.0.").items() if "attention.attention" not in name}
    shapes |= {name: shape for name, shape in block("layers.0.").items() if name.endswith(("y.weight", "e.weight"))}
    blocks = read_blocks(shapes, "")
    assert not blocks.qkv_bias and "blocks.0.attn.qkv.bias" not in blocks.plan


@pytest.mark.parametrize("has_bias", [True, False])
def test_of_a_gated_mlp_the_half_that_goes_through_silu_comes_first(has_bias: bool) -> None:
    layers = {name: shape for name, shape in LEGACY.items() if "dense" not in name or "attention" in name}
    layers |= {"mlp.gate_proj": (20, 8), "mlp.up_proj": (20, 8), "mlp.down_proj": (8, 20)}
    shapes = block("layer.0.", layers)
    if not has_bias:
        shapes = {name: shape for name, shape in shapes.items() if not (".mlp." in name and name.endswith("bias"))}
    tensors = drawn(shapes)
    blocks = read_blocks(shapes, "", ("mlp.fc1", "mlp.fc2"))
    assert (blocks.gated_mlp, blocks.mlp_width) == (True, 20)
    expected = torch.cat([tensors["layer.0.mlp.gate_proj.weight"], tensors["layer.0.mlp.up_proj.weight"]])
    assert torch.equal(made(blocks, "blocks.0.mlp.fc1.weight", tensors), expected)
    assert made(blocks, "blocks.0.mlp.fc1.bias", tensors).any() == has_bias
    assert made(blocks, "blocks.0.mlp.fc1.bias", tensors).shape == (40,)


def test_parts_are_made_on_the_meta_device_too() -> None:
    shapes = block("layers.0.")
    del shapes["layers.0.attention.attention.key.bias"]
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    bias = made(read_blocks(shapes, "", ("keys",)), "blocks.0.attn.qkv.bias", tensors)
    assert bias.is_meta and bias.shape == (24,)


@pytest.mark.parametrize(
    ("name", "shape"), [("key.weight", (4, 8)), ("query.bias", (4,)), ("value.weight", (8, 4)), ("value.weight", (8,))]
)
def test_queries_keys_and_values_of_different_shapes_are_refused(name: str, shape: tuple[int, ...]) -> None:
    shapes = block("layers.0.") | {f"layers.0.attention.attention.{name}": shape}
    with pytest.raises(CheckpointError, match=r"are of one shape in a ViT|it has 2 axes"):
        read_blocks(shapes, "")


def test_an_encoder_without_blocks_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"no vit\.encoder\.layer\.0\.layernorm_before\.weight"):
        read_blocks({"vit.layernorm.weight": (8,)}, "vit.")


def test_a_block_without_one_of_its_layers_is_refused() -> None:
    for name in LEGACY:
        if name != "layernorm_before":
            shapes = block("layers.0.")
            del shapes[f"layers.0.{name}.weight"]
            with pytest.raises(CheckpointError, match="is missing"):
                read_blocks(shapes, "")


def test_blocks_that_are_not_numbered_from_0_on_are_refused() -> None:
    with pytest.raises(CheckpointError, match="not numbered from 0"):
        read_blocks(block("layers.0.") | block("layers.2."), "")
