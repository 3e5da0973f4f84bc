from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from vitreous.checkpoints.dialects import hf_encoder
from vitreous.checkpoints.formats import hf_beit, hf_clip, hf_dino, hf_vit
from vitreous.checkpoints.reading import Found, Reading
from vitreous.checkpoints.sources import open_model
from vitreous.errors import CheckpointError
from vitreous.model.vit import VisionTransformer

FORMATS = (hf_clip, hf_dino, hf_beit, hf_vit)  # in the order of `known`
SQUARE, WIDE = (32, 32), (16, 48)

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
MLP = {"intermediate_size": 56}
CLASSES = {"num_labels": 5}
IMAGES = {"mean and std", "resize", "interpolation"}
TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 20}
MAE = {"mask_ratio": 0.0, "decoder_num_hidden_layers": 1, "decoder_hidden_size": 32, "decoder_num_attention_heads": 4}
GATED = {"use_gated_mlp": True, "hidden_act": "silu"}
BARE = {"query_bias": False, "proj_bias": False, "mlp_bias": False}
FREE = {"use_shared_relative_position_bias": True, "vocab_size": 9}

Output = Callable[[Any, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """A model of transformers, and which of its outputs ours are.

    Attributes:
        name: of its class.
        config: of its config class.
        output: from the model and images to what our model must give.
        sizes: of the images.
        guessed: settings that its files do not tell, beside the preprocessing.
        options: of the class.
    """

    name: str
    config: Any
    output: Output
    sizes: tuple[tuple[int, int], ...] = (SQUARE,)
    guessed: frozenset[str] = frozenset()
    options: Mapping[str, Any] | None = None

    def make(self) -> Any:
        """The model, each weight random and not small."""
        model = getattr(transformers, self.name)(self.config, **(self.options or {}))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.3, generator=generator)
        return model.eval()


def logits(model: Any, images: Tensor) -> Tensor:
    return model(images).logits


def moved_logits(model: Any, images: Tensor) -> Tensor:
    return model(images, interpolate_pos_encoding=True).logits


def class_token(model: Any, images: Tensor) -> Tensor:
    return model(images).last_hidden_state[:, 0]


def pooled(model: Any, images: Tensor) -> Tensor:
    return model(images).pooler_output


def moved_pooled(model: Any, images: Tensor) -> Tensor:
    return model(images, interpolate_pos_encoding=True).pooler_output


def mean_of_patches(model: Any, images: Tensor) -> Tensor:
    return model(images, interpolate_pos_encoding=True).last_hidden_state.mean(dim=1)


def unmasked(model: Any, images: Tensor) -> Tensor:
    in_order = torch.arange(16.0).expand(len(images), -1)
    return model.vit(images, noise=in_order).last_hidden_state[:, 0]


def clip(**vision: Any) -> Any:
    both = {"vision_config": SIZES | MLP | vision, "text_config": TEXT}
    return transformers.CLIPConfig(**both, projection_dim=24)


def siglip(**more: Any) -> Any:
    return transformers.SiglipConfig(vision_config=SIZES | MLP, text_config=TEXT, **more)


def vit(kind: str = "ViT", **changes: Any) -> Any:
    return getattr(transformers, f"{kind}Config")(**{**SIZES, **MLP, **changes})


def dino(kind: str, **changes: Any) -> Any:
    return getattr(transformers, f"{kind}Config")(**{**SIZES, **changes})


POOLING = frozenset({"pooling"})
BOTH = (SQUARE, WIDE)
CASES = {
    "vit": Case("ViTForImageClassification", vit(**CLASSES), moved_logits, BOTH),
    "vit of its own eps": Case(
        "ViTForImageClassification", vit(**CLASSES, qkv_bias=False, layer_norm_eps=0.1), logits
    ),
    "vit, wide": Case("ViTForImageClassification", vit(**CLASSES, image_size=[16, 48]), logits, (WIDE,)),
    "vit, flat patches": Case("ViTForImageClassification", vit(**CLASSES, patch_size=[4, 8]), logits),
    "vit, grey": Case("ViTForImageClassification", vit(**CLASSES, num_channels=1), logits),
    "vit without head": Case("ViTModel", vit(), class_token),
    "vit before training": Case(
        "ViTForMaskedImageModeling", vit(encoder_stride=8), lambda model, images: class_token(model.vit, images)
    ),
    "deit with its teacher": Case("DeiTForImageClassificationWithTeacher", vit("DeiT", **CLASSES), moved_logits, BOTH),
    "deit": Case("DeiTForImageClassification", vit("DeiT", **CLASSES), moved_logits, BOTH),
    "deit without head": Case("DeiTModel", vit("DeiT"), class_token),
    "mae": Case("ViTMAEForPreTraining", vit("ViTMAE", **MAE), unmasked, guessed=POOLING),
    "msn": Case("ViTMSNForImageClassification", vit("ViTMSN", **CLASSES), moved_logits, BOTH),
    "msn without head": Case("ViTMSNModel", vit("ViTMSN"), class_token),
    "i-jepa": Case("IJepaForImageClassification", vit("IJepa", **CLASSES), moved_logits, BOTH),
    "i-jepa without head": Case("IJepaModel", vit("IJepa"), mean_of_patches, BOTH, POOLING),
    "dinov2": Case("Dinov2ForImageClassification", dino("Dinov2", **CLASSES), logits, BOTH),
    "dinov2 without head": Case("Dinov2Model", dino("Dinov2", use_swiglu_ffn=True), class_token, BOTH),
    "dinov2 with registers": Case(
        "Dinov2WithRegistersForImageClassification", dino("Dinov2WithRegisters", **CLASSES), logits, BOTH
    ),
    "dinov2 with registers, without head": Case(
        "Dinov2WithRegistersModel",
        dino("Dinov2WithRegisters", use_swiglu_ffn=True, num_register_tokens=2), class_token, BOTH,
    ),
    "dinov3": Case("DINOv3ViTModel", vit("DINOv3ViT", num_register_tokens=4), class_token, BOTH),
    "dinov3, gated": Case(
        "DINOv3ViTModel", vit("DINOv3ViT", num_register_tokens=4, **GATED), class_token, BOTH
    ),
    "dinov3, gated, without biases": Case(
        "DINOv3ViTModel", vit("DINOv3ViT", **GATED, **BARE), class_token, BOTH
    ),
    "dinov3 of its own periods": Case("DINOv3ViTModel", vit("DINOv3ViT", rope_theta=7.0), class_token, BOTH),
    "clip": Case(
        "CLIPModel", clip(),
        lambda model, images: model.visual_projection(moved_pooled(model.vision_model, images)), BOTH,
    ),
    "clip's image encoder": Case(
        "CLIPVisionModelWithProjection", vit("CLIPVision", projection_dim=24),
        lambda model, images: model(images, interpolate_pos_encoding=True).image_embeds, BOTH,
    ),
    "clip without head": Case("CLIPVisionModel", vit("CLIPVision", hidden_act="gelu"), moved_pooled, BOTH),
    "siglip": Case("SiglipModel", siglip(), lambda model, images: moved_pooled(model.vision_model, images), BOTH),
    "siglip's image encoder": Case("SiglipVisionModel", vit("SiglipVision"), moved_pooled, BOTH),
    "siglip without pooling": Case(
        "SiglipVisionModel", vit("SiglipVision", vision_use_head=False), mean_of_patches, BOTH, POOLING
    ),
    "siglip's classifier": Case("SiglipForImageClassification", siglip(**CLASSES), moved_logits, BOTH),
    "beit": Case("BeitForImageClassification", vit("Beit", **CLASSES, use_relative_position_bias=True), logits, BOTH),
    "beit, shared positions": Case(
        "BeitModel", vit("Beit", use_shared_relative_position_bias=True, use_mean_pooling=False), class_token, BOTH
    ),
    "beit, shared and own positions": Case(
        "BeitModel", vit("Beit", use_shared_relative_position_bias=True, use_relative_position_bias=True), pooled, BOTH
    ),
    "beit, absolute positions": Case(
        "BeitModel", vit("Beit", use_absolute_position_embeddings=True, use_mask_token=True), pooled, BOTH
    ),
    "beit before fine-tuning": Case(
        "BeitForMaskedImageModeling", vit("Beit", **FREE, use_mask_token=True),
        lambda model, images: model.layernorm(class_token(model.beit, images)), BOTH, POOLING,
    ),
    "beit before fine-tuning, normed twice": Case(
        "BeitForMaskedImageModeling", vit("Beit", **FREE, use_mean_pooling=False),
        lambda model, images: class_token(model.beit, images), BOTH, POOLING,
    ),
    "data2vec": Case(
        "Data2VecVisionForImageClassification",
        vit("Data2VecVision", **CLASSES, use_relative_position_bias=True), logits, BOTH,
    ),
    "data2vec without positions or scales": Case(
        "Data2VecVisionModel", vit("Data2VecVision", layer_scale_init_value=0.0), pooled, BOTH,
        options={"add_pooling_layer": True},
    ),
}  # fmt: skip

PLAIN = {"hidden_size": 128, "num_attention_heads": 2, "num_hidden_layers": 1, "image_size": 32, "patch_size": 8}
NAMELESS = {
    "vit": Case("ViTForImageClassification", vit(**PLAIN), logits),
    "deit": Case("DeiTForImageClassificationWithTeacher", vit("DeiT", **PLAIN), logits),
    "mae": Case("ViTMAEForPreTraining", vit("ViTMAE", **MAE, **PLAIN), unmasked),
    "i-jepa": Case("IJepaForImageClassification", vit("IJepa", **PLAIN), logits),
    "dinov2": Case("Dinov2ForImageClassification", dino("Dinov2", **PLAIN), logits, BOTH),
    "dinov2 with registers": Case("Dinov2WithRegistersModel", dino("Dinov2WithRegisters", **PLAIN), class_token, BOTH),
    "dinov3": Case("DINOv3ViTModel", vit("DINOv3ViT", **PLAIN), class_token, BOTH),
    "clip": Case("CLIPVisionModelWithProjection", vit("CLIPVision", **PLAIN), lambda m, images: m(images).image_embeds),
    "siglip": Case("SiglipVisionModel", vit("SiglipVision", **PLAIN), pooled),
    "beit": Case("BeitForImageClassification", vit("Beit", **PLAIN, use_relative_position_bias=True), logits, BOTH),
}  # fmt: skip


@dataclass(frozen=True)
class Saved:
    """What transformers wrote for a case, and the model that wrote it."""

    model: nn.Module
    arrays: dict[str, np.ndarray]
    described: dict[str, Any]

    def found(self, **asked: Any) -> Found:
        return Found(shapes(self.arrays), described=self.described, asked=asked)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], Saved]:
    made: dict[int, Saved] = {}

    def save(case: Case) -> Saved:
        if id(case) not in made:
            folder = tmp_path_factory.mktemp("case")
            model = case.make()
            model.save_pretrained(folder)
            arrays = load_file(folder / "model.safetensors")
            made[id(case)] = Saved(model, arrays, json.loads((folder / "config.json").read_text()))
        return made[id(case)]

    return save


def shapes(arrays: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(array.shape) for name, array in arrays.items()}


def images_of(size: tuple[int, int], channels: int = 3) -> Tensor:
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(1))


def read(found: Found) -> Reading:
    """By the first format that says the names are its own."""
    return next(form for form in FORMATS if form.recognises(found)).read(found)


def difference(case: Case, kept: Saved, ours: VisionTransformer, size: tuple[int, int]) -> float:
    images = images_of(size, ours.config.channels)
    with torch.no_grad():
        expected, came = case.output(kept.model, images), ours(images)
    assert came.shape == expected.shape
    assert expected.std() > 0.1
    return (came - expected).abs().max().item()


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_those_of_transformers(name: str, saved: Any, build: Any) -> None:
    case, kept = CASES[name], saved(CASES[name])
    ours = build(read(kept.found()), kept.arrays)
    for size in case.sizes:
        assert difference(case, kept, ours, size) <= 1e-5


@pytest.mark.parametrize("name", CASES)
def test_all_but_the_preprocessing_is_told_by_the_folder(name: str, saved: Any) -> None:
    reading = read(saved(CASES[name]).found())
    guessed = {decision.setting for decision in reading.decisions if decision.guessed}
    assert guessed - {"resampler"} == CASES[name].guessed | IMAGES
    assert all(decision.reason for decision in reading.decisions)


@pytest.mark.parametrize("name", CASES)
def test_names_of_models_in_memory_are_read_too(name: str, saved: Any, build: Any) -> None:
    kept = saved(CASES[name])
    arrays = {key: tensor.numpy() for key, tensor in kept.model.state_dict().items()}
    ours = build(read(Found(shapes(arrays), described=kept.described)), arrays)
    same = build(read(kept.found()), kept.arrays)
    assert all(torch.equal(one, other) for one, other in zip(ours.parameters(), same.parameters(), strict=True))


@pytest.mark.parametrize("name", NAMELESS)
def test_weights_without_config_json_are_read_as_released_models_are(name: str, saved: Any, build: Any) -> None:
    case, kept = NAMELESS[name], saved(NAMELESS[name])
    reading = read(Found(shapes(kept.arrays)))
    for size in case.sizes:
        assert difference(case, kept, build(reading, kept.arrays), size) <= 1e-5
    guessed = {decision.setting for decision in reading.decisions if decision.guessed}
    assert guessed >= {"norm_eps", "activation"} | IMAGES
    assert ("heads" in guessed) != (name == "beit")  # the table of scores has a column for each head


@pytest.mark.parametrize("name", ["vit", "siglip's image encoder", "dinov3"])
def test_what_was_asked_for_wins_over_the_folder(name: str, saved: Any) -> None:
    asked = {"heads": 2, "norm_eps": 1e-3, "activation": "quick-gelu", "image_size": (32, 32), "rope_base": 9.0}
    reading = read(saved(CASES[name]).found(**asked))
    assert {setting: getattr(reading.config, setting) for setting in asked} == asked
    reasons = {decision.setting: decision.reason for decision in reading.decisions}
    assert {reasons[setting] for setting in ("heads", "norm_eps", "activation", "image_size")} == {"as asked"}


def test_the_mean_that_was_asked_for_is_of_normed_patches(saved: Any, build: Any) -> None:
    kept = saved(CASES["vit without head"])
    ours = build(read(kept.found(pooling="mean")), kept.arrays)
    images = images_of(SQUARE)
    with torch.no_grad():
        expected = kept.model(images).last_hidden_state[:, 1:].mean(dim=1)
        assert (ours(images) - expected).abs().max() <= 1e-5


def test_a_norm_after_pooling_that_was_asked_for_is_the_last_norm(saved: Any) -> None:
    reading = read(saved(CASES["vit"]).found(pooling="mean", norm_after_pooling=True))
    assert "fc_norm.weight" in reading.plan and "norm.weight" not in reading.plan


def test_tensors_that_are_left_out_have_a_reason(saved: Any) -> None:
    assert read(saved(CASES["vit without head"]).found()).ignored.keys() == {"pooler.dense.weight", "pooler.dense.bias"}
    clip_left_out = read(saved(CASES["clip"]).found()).ignored
    assert clip_left_out["logit_scale"] == "scales similarities of images and texts"
    assert {reason for name, reason in clip_left_out.items() if name.startswith("text_model.")} == {"the text encoder"}
    mae_left_out = read(saved(CASES["mae"]).found()).ignored
    assert mae_left_out and all(name.startswith("decoder.") for name in mae_left_out)
    assert read(saved(CASES["vit"]).found()).ignored == {}


def test_a_tensor_that_transformers_does_not_write_is_refused(saved: Any) -> None:
    found = saved(CASES["vit"]).found()
    found.shapes["vit.embeddings.surprise"] = (3,)
    with pytest.raises(CheckpointError, match=r"no place for 'vit.embeddings.surprise' \(3,\)"):
        read(found)


@pytest.mark.parametrize("missing", ["vit.layernorm.bias", "vit.encoder.layer.1.layernorm_before.bias"])
def test_a_missing_tensor_is_named(missing: str, saved: Any, tmp_path: Path) -> None:
    kept = saved(CASES["vit"])
    save_file({name: array for name, array in kept.arrays.items() if name != missing}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(kept.described))
    with pytest.raises(CheckpointError, match=f"'{missing}' is missing"):
        open_model(tmp_path)


def test_pixels_that_fill_no_patch_are_left_out_as_transformers_does(saved: Any, build: Any) -> None:
    case = Case("SiglipVisionModel", vit("SiglipVision", image_size=38, patch_size=8), pooled)  # so400m: 384 of 14
    kept = saved(case)
    reading = read(kept.found())
    assert reading.config.image_size == reading.preprocess.image_size == (32, 32)
    assert "38 x 38, no multiple of the patch" in next(d.reason for d in reading.decisions if d.setting == "image_size")
    images = images_of((38, 38))
    with torch.no_grad():
        ours = build(reading, kept.arrays)(images[..., :32, :32])
        assert (ours - pooled(kept.model, images)).abs().max() <= 1e-5


def test_a_processors_size_is_cut_to_whole_patches(saved: Any) -> None:
    kept = saved(CASES["vit"])
    processor = {"size": {"height": 38, "width": 35}, "do_center_crop": False, "resample": 2}
    reading = read(Found(shapes(kept.arrays), described=kept.described, processor=processor))
    assert reading.preprocess.image_size == (32, 32)
    assert "preprocess.image_size" in {decision.setting for decision in reading.decisions if decision.guessed}


def test_the_image_size_is_taken_from_the_table_where_config_json_does_not_fit(saved: Any) -> None:
    kept = saved(CASES["vit"])
    described = {name: value for name, value in kept.described.items() if name != "image_size"}
    reading = read(Found(shapes(kept.arrays), described=described))
    assert reading.config.image_size == (32, 32)  # not 224, transformers' default
    assert "taken as 4 x 4" in next(d.reason for d in reading.decisions if d.setting == "image_size")


def test_a_table_without_patches_is_refused(saved: Any) -> None:
    found = saved(CASES["deit"]).found()
    found.shapes["deit.embeddings.position_embeddings"] = (1, 1, 32)
    with pytest.raises(CheckpointError, match="no row for a patch"):
        read(found)


def test_names_that_are_no_names_of_modules_are_refused() -> None:
    shapes = {f"\x1b[2J{hf_encoder.PATCHES}": (32, 3, 8, 8), "layernorm_before": (32,)}
    with pytest.raises(CheckpointError) as raised:
        hf_vit.read(Found(shapes))
    assert "\x1b" not in str(raised.value)
