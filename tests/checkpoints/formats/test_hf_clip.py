from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from vitreous.checkpoints.containers.contract import Shapes
from vitreous.checkpoints.formats import hf_clip
from vitreous.checkpoints.reading import Found
from vitreous.errors import CheckpointError

DENSE = {"self_attn.q_proj": (8, 8), "self_attn.k_proj": (8, 8), "self_attn.v_proj": (8, 8),
         "self_attn.out_proj": (8, 8), "mlp.fc1": (20, 8), "mlp.fc2": (8, 20)}  # fmt: skip
CLIP = {"model_type": "clip", "vision_config": {"num_attention_heads": 2, "image_size": 16}}
SIGLIP = {"model_type": "siglip", "vision_config": {"num_attention_heads": 2, "image_size": 16}}

TABLE_OF_THREE_AXES = {"vision_model.embeddings.position_embedding.weight": (17, 8, 1)}


def layers(before: str, named: dict[str, tuple[int, ...]]) -> Shapes:
    weights = {f"{before}{name}.weight": shape for name, shape in named.items()}
    return weights | {f"{before}{name}.bias": shape[:1] for name, shape in named.items()}


def tower(before: str = "vision_model.", *, is_clip: bool) -> Shapes:
    norms = dict.fromkeys(("layer_norm1", "layer_norm2"), (8,))
    shapes = layers(f"{before}encoder.layers.0.", norms | DENSE)
    shapes |= layers(before, {"post_layernorm": (8,)})
    shapes[f"{before}embeddings.patch_embedding.weight"] = (8, 3, 4, 4)
    shapes[f"{before}embeddings.position_embedding.weight"] = (16 + is_clip, 8)
    if is_clip:
        return shapes | layers(before, {"pre_layrnorm": (8,)}) | {f"{before}embeddings.class_embedding": (8,)}
    pooling = {"layernorm": (8,), "attention.out_proj": (8, 8), "mlp.fc1": (20, 8), "mlp.fc2": (8, 20)}
    shapes |= layers(f"{before}head.", pooling)
    shapes |= {f"{before}head.attention.in_proj_weight": (24, 8), f"{before}head.attention.in_proj_bias": (24,)}
    shapes[f"{before}head.probe"] = (1, 1, 8)
    return shapes | {f"{before}embeddings.patch_embedding.bias": (8,)}


def test_the_projection_is_a_head_that_gives_an_embedding_not_classes() -> None:
    named = CLIP | {"id2label": {"0": "a name of no use here"}}
    found = Found(tower(is_clip=True) | {"visual_projection.weight": (6, 8)}, described=named)
    reading = hf_clip.read(found)
    assert (reading.config.classes, reading.class_names) == (6, ())
    reason = next(decision.reason for decision in reading.decisions if decision.setting == "classes")
    assert "an embedding" in reason and "not classes" in reason
    assert torch.equal(reading.plan["head.bias"].make(), torch.zeros(6))


def test_numbers_of_positions_and_the_text_encoder_are_left_out() -> None:
    more = {
        "vision_model.embeddings.position_ids": (1, 17),
        "text_model.final_layer_norm.weight": (8,),
        "logit_scale": (),
    }
    reading = hf_clip.read(Found(tower(is_clip=True) | more, described=CLIP))
    assert reading.ignored.keys() == more.keys()


def test_the_attention_pooling_is_read_or_left_out_for_a_classifier() -> None:
    pooled = hf_clip.read(Found(tower(is_clip=False), described=SIGLIP))
    assert (pooled.config.pooling, pooled.ignored) == ("map", {})
    classified = hf_clip.read(Found(tower(is_clip=False) | layers("", {"classifier": (5, 8)}), described=SIGLIP))
    assert (classified.config.pooling, classified.config.classes) == ("mean", 5)
    assert all(name.startswith("vision_model.head.") for name in classified.ignored) and classified.ignored


def test_the_queries_of_the_pooling_are_the_first_third() -> None:
    plan = hf_clip.read(Found(tower(is_clip=False), described=SIGLIP)).plan
    whole = torch.arange(24 * 8.0).reshape(24, 8)
    queries, rest = plan["attn_pool.q.weight"].make(whole), plan["attn_pool.kv.weight"].make(whole)
    assert torch.equal(torch.cat([queries, rest]), whole) and len(queries) == 8
    assert queries.untyped_storage().nbytes() == 8 * 8 * 4  # not the whole tensor's


@pytest.mark.parametrize(
    ("shapes", "described", "message"),
    [
        (tower(is_clip=True) | layers("", {"classifier": (5, 8)}), CLIP, "CLIPForImageClassification cannot be read"),
        (tower(is_clip=True) | layers("", {"classifier": (5, 8)}), {}, "CLIPForImageClassification cannot be read"),
        (tower(is_clip=False), {"model_type": "siglip2"}, "NaFlex"),
        (tower(is_clip=False) | {"vision_model.embeddings.patch_embedding.weight": (8, 48)}, {}, "NaFlex"),
        (tower(is_clip=False), CLIP, "but there is no vision_model.embeddings.class_embedding"),
        (tower(is_clip=True), SIGLIP, "but there is vision_model.embeddings.class_embedding"),
        (tower(is_clip=True) | TABLE_OF_THREE_AXES, CLIP, "it has 2 axes"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_refused_with_a_remedy(shapes: Shapes, described: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        hf_clip.read(Found(shapes, described=described))


def test_models_of_other_types_are_not_recognised() -> None:
    shapes = tower(is_clip=True)
    assert hf_clip.recognises(Found(shapes)) and hf_clip.recognises(Found(shapes, described=CLIP))
    assert not hf_clip.recognises(Found(shapes, described={"model_type": "blip"}))
    assert not hf_clip.recognises(Found({"text_model.embeddings.token_embedding.weight": (9, 8)}, described=CLIP))


def test_a_vision_config_that_says_nothing_has_the_defaults_of_transformers() -> None:
    """As in google/siglip-base-patch16-224."""
    with torch.device("meta"):
        model = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(num_hidden_layers=1))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    described = {"model_type": "siglip", "vision_config": {"model_type": "siglip_vision_model"}}
    reading = hf_clip.read(Found(shapes, described=described))
    assert (reading.config.heads, reading.config.norm_eps, reading.config.activation) == (12, 1e-6, "gelu-tanh")
    assert (reading.config.image_size, reading.config.patch_size, reading.config.mlp_width) == (
        (224, 224),
        (16, 16),
        3072,
    )
    assert reading.config.parameters == sum(tensor.numel() for tensor in model.parameters())
    reasons = {decision.setting: decision.reason for decision in reading.decisions}
    assert reasons["heads"].startswith("transformers' default for siglip_vision_model")


@pytest.mark.parametrize(("width", "heads"), [(768, 12), (1280, 16), (1408, 16), (1664, 16)])
def test_without_config_json_heads_are_those_of_released_models(width: int, heads: int) -> None:
    scaled = {8: width, 20: 4 * width, 24: 3 * width}
    shapes = {name: tuple(scaled.get(n, n) for n in shape) for name, shape in tower(is_clip=True).items()}
    reading = hf_clip.read(Found(shapes))
    assert reading.config.heads == heads
    reason = next(decision.reason for decision in reading.decisions if decision.setting == "heads")
    assert f"{width // heads} numbers a head" in reason and "say heads=..." in reason


def test_a_width_that_nothing_tells_the_heads_of_is_refused_until_they_are_given() -> None:
    with pytest.raises(CheckpointError, match=r"how many heads a width of 8 is shared by; say heads=N"):
        hf_clip.read(Found(tower(is_clip=True)))
    assert hf_clip.read(Found(tower(is_clip=True), asked={"heads": 4})).config.heads == 4
