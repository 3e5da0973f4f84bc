from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from vitreous.checkpoints.timm_layout import class_names_from_timm, timm_differences, to_timm
from vitreous.data.preprocess import Preprocess
from vitreous.errors import CheckpointError
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer

timm = pytest.importorskip("timm")

MakeModel = Callable[..., VisionTransformer]
PREPROCESS = Preprocess((16, 16))

WORDED: list[dict[str, Any]] = [
    {"qk_norm": True, "activation": "gelu-tanh"},
    {"activation": "quick-gelu", "norm_eps": 1e-5, "norm_before_blocks": True, "patch_bias": False},
    {"norm_eps": 1e-5, "pooling": "mean", "width": 1024, "heads": 8, "depth": 1},
    {"norm_before_blocks": True, "patch_bias": False, "registers": 2},
    {"pooling": "map", "class_token": False, "activation": "gelu-tanh"},
    {"pooling": "map", "registers": 2, "norm_after_pooling": True},
    {"distillation": True, "layer_scale": 0.1},
    {"distillation": True, "qk_norm": True, "classes": 0},
    {"gated_mlp": True, "mlp_ratio": 8 / 3, "registers": 1, "layer_scale": 0.1},
    {"gated_mlp": True, "pooling": "mean", "class_token": False},
    {"positions": "sincos-2d"},
    {"positions": "none", "pooling": "mean"},
    {"stem": (), "stem_constants": "timm", "image_size": (64, 64), "patch_size": (16, 16)},
    {"stem": (3, 4, 9), "stem_constants": "timm", "image_size": (64, 64), "patch_size": (16, 16)},
]


CNN: dict[str, Any] = {
    "stem": (), "stem_constants": "timm", "depth": 0, "class_token": False, "positions": "none", "pooling": "mean",
}  # fmt: skip


def write(folder: Path, model: VisionTransformer, preprocess: Preprocess = PREPROCESS) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(to_timm(model.config, preprocess, [], {})))
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("changes", WORDED)
@torch.no_grad()
def test_timm_computes_the_same_logits(tmp_path: Path, make_model: MakeModel, changes: dict[str, Any]) -> None:
    model = make_model(**changes)
    images = torch.randn(2, 3, *model.config.image_size, generator=torch.Generator().manual_seed(1))
    assert timm_differences(model.config) == []
    theirs = timm.create_model(f"local-dir:{write(tmp_path / 'm', model)}", pretrained=True).eval()
    torch.testing.assert_close(theirs(images), model(images), atol=2e-5, rtol=1e-5)
    norms = {module.eps for module in theirs.modules() if isinstance(module, torch.nn.LayerNorm)}
    assert norms == {model.config.norm_eps}


@pytest.mark.parametrize("changes", [WORDED[1], WORDED[4], WORDED[6], WORDED[8]])
@torch.no_grad()
def test_transformers_computes_the_same_logits(
    tmp_path: Path, make_model: MakeModel, images: Tensor, changes: dict[str, Any]
) -> None:
    from transformers import AutoModelForImageClassification

    model = make_model(**changes)
    theirs = AutoModelForImageClassification.from_pretrained(write(tmp_path / "m", model)).eval()
    torch.testing.assert_close(theirs(images).logits, model(images), atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_images_of_another_size_than_the_positions_open_too(tmp_path: Path, make_model: MakeModel) -> None:
    model = make_model()
    folder = write(tmp_path / "m", model, Preprocess((24, 32)))
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = torch.randn(2, 3, 24, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(theirs(images), model(images), atol=2e-5, rtol=1e-5)
    assert timm.data.resolve_model_data_config(theirs)["input_size"] == (3, 24, 32)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hidden_head": True}, "the hidden layer of the pre-training head"),
        ({"patch_bias": False}, "a patch embedding without bias"),
        ({"norm_before_blocks": True}, "a patch embedding with bias before a LayerNorm"),
        ({"patch_norms": True}, "LayerNorms around the patch embedding"),
        ({"stem": (3, 4, 9)}, "a ResNet with Google's small constants"),
        ({"stem": (1, 1), "stem_constants": "timm"}, "a ResNet of other stages than R50's or R26's"),
        ({"stem": (), "stem_constants": "timm", "stem_width": 32}, "a ResNet of another width than 64"),
        ({"stem": (3, 4, 9), "stem_constants": "timm", "stem_root": "small"}, "a 3x3 root in the ResNet"),
        (CNN, "a ResNet without blocks behind it"),
        ({"positions_at": "layers"}, "positions before every layer"),
        ({"positions_at": "layers-shared"}, "positions before every layer"),
        ({"positions": "rope"}, "rope positions"),
        ({"positions": "relative-bias"}, "relative-bias positions"),
        ({"positions": "learned-2d"}, "learned-2d positions"),
        ({"pooling": "class+mean"}, "pooling 'class+mean'"),
        ({"attention_width": 384}, "heads that are wider or narrower than the tokens"),
        ({"norm_eps": 1e-12}, "a LayerNorm epsilon of 1e-12"),
        ({"pooling": "map", "gated_mlp": True}, "attention pooling with a gated MLP"),
        ({"distillation": True, "registers": 1}, "registers beside a distillation token"),
        ({"distillation": True, "norm_after_pooling": True}, "a LayerNorm after pooling beside a distillation token"),
        ({"norm_eps": 1e-5, "gated_mlp": True}, "a LayerNorm epsilon of 1e-05 together with a gated MLP"),
        ({"distillation": True, "gated_mlp": True}, "a gated MLP together with a distillation token"),
    ],
)
def test_what_timm_has_no_word_for_is_named(changes: dict[str, Any], named: str) -> None:
    assert timm_differences(ViTConfig(**changes)) == [named]


def test_plain_models_have_a_word_for_everything() -> None:
    assert timm_differences(ViTConfig(registers=2, layer_scale=0.1)) == []
    assert timm_differences(ViTConfig(attention_width=768)) == []


def test_class_names_come_as_a_list_or_as_an_object() -> None:
    assert class_names_from_timm({"label_names": ["a", "b"]}, 2) == ("a", "b")
    assert class_names_from_timm({"label_names": {"0": "a", "1": "b"}}, 2) == ("a", "b")
    assert class_names_from_timm({"pretrained_cfg": {"label_names": ["a"]}}, 1) == ("a",)
    assert class_names_from_timm({}, 3) == ()
    with pytest.raises(CheckpointError, match="has 1 label_names, the head 2 classes"):
        class_names_from_timm({"label_names": ["a"]}, 2)
    with pytest.raises(CheckpointError, match="label_names"):
        class_names_from_timm({"label_names": "ab"}, 2)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("ratio", [4.0, 2.3, 1 / 3, 4.3637, 0.07])
@pytest.mark.parametrize("width", [24, 96, 100, 192, 1408])
def test_timm_rounds_our_ratio_to_our_width(ratio: float, width: int, gated: bool) -> None:
    config = ViTConfig(width=width, heads=1, mlp_ratio=ratio, gated_mlp=gated)
    written = to_timm(config, Preprocess(), [], {})["model_args"]["mlp_ratio"]
    assert int(width * written) == config.mlp_width * (1 + gated)
