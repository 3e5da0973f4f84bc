from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from vitreous.checkpoints.formats import hf_vit
from vitreous.checkpoints.reading import Found
from vitreous.checkpoints.sources import open_model
from vitreous.data.preprocess import HALF_MEAN, HALF_STD, IMAGENET_MEAN, IMAGENET_STD, Preprocess
from vitreous.data.transforms import to_tensor
from vitreous.errors import CheckpointError, ConfigError
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer

# Every setting that transformers' ViT has a word for, each at least once away from our defaults.
SAYABLE: dict[str, dict[str, Any]] = {
    "plain": {},
    "tanh": {"activation": "gelu-tanh"},
    "quick": {"activation": "quick-gelu"},
    "large eps": {"norm_eps": 0.1},
    "no bias": {"qkv_bias": False},
    "wide": {"image_size": [16, 32]},
    "flat patches": {"patch_size": [2, 4]},
    "grey": {"channels": 1},
    "narrow mlp": {"mlp_ratio": 1.5},
    "wide attention": {"attention_width": 36},
    "fixed positions": {"positions": "sincos-2d"},
    "distilled": {"distillation": True},
}
NAMES = ("cat", "dog", "owl", "crane", "crane")  # ImageNet has two kinds of cranes
PREPROCESS = Preprocess((16, 16), "squash", 1.0, "bilinear", HALF_MEAN, HALF_STD)

Made = Callable[..., VisionTransformer]


def write_folder(
    model: VisionTransformer, folder: Path, preprocess: Preprocess = PREPROCESS, names: Sequence[str] = NAMES
) -> Path:
    described, tensors, processor = hf_vit.write(model.config, model.state_dict(), preprocess, names)
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(described))
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def read_folder(folder: Path) -> tuple[Any, dict[str, Tensor]]:
    tensors = load_file(folder / "model.safetensors")
    described, processor = (
        json.loads((folder / name).read_text()) for name in ("config.json", "preprocessor_config.json")
    )
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    reading = hf_vit.read(Found(shapes, described=described, processor=processor))
    made = {ours: part.make(*(tensors[name] for name in part.sources)) for ours, part in reading.plan.items()}
    return reading, made


def written(model: VisionTransformer, **changes: Any) -> Found:
    """What is known of a written folder before a tensor is read; `changes` are of its config.json."""
    described, tensors, _ = hf_vit.write(model.config, model.state_dict(), PREPROCESS, ())
    return Found({name: tuple(tensor.shape) for name, tensor in tensors.items()}, described=described | changes)


def images_of(config: ViTConfig) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, config.channels, *config.image_size, generator=generator)


@pytest.mark.parametrize("name", SAYABLE)
@torch.no_grad()
def test_transformers_opens_what_is_written_and_gives_the_same_logits(
    name: str, make_model: Made, tmp_path: Path
) -> None:
    model = make_model(**SAYABLE[name])
    folder = write_folder(model, tmp_path / "written")
    theirs, report = transformers.AutoModelForImageClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values())
    images = images_of(model.config)
    expected = model(images)
    assert expected.std() > 0.1
    assert (theirs(images).logits - expected).abs().max() <= 1e-5
    assert theirs.config.id2label == dict(enumerate(NAMES))


@pytest.mark.parametrize("name", ["plain", "distilled", "no bias", "grey"])
def test_names_shapes_and_bits_are_those_that_transformers_itself_writes(
    name: str, make_model: Made, tmp_path: Path
) -> None:
    ours = write_folder(make_model(**SAYABLE[name]), tmp_path / "ours")
    transformers.AutoModelForImageClassification.from_pretrained(ours).save_pretrained(tmp_path / "theirs")
    written, again = (load_file(folder / "model.safetensors") for folder in (ours, tmp_path / "theirs"))
    assert written.keys() == again.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in written.items())


@pytest.mark.parametrize("name", SAYABLE)
def test_reading_what_is_written_gives_the_same_bits_and_settings(name: str, make_model: Made, tmp_path: Path) -> None:
    model = make_model(**SAYABLE[name])
    reading, tensors = read_folder(write_folder(model, tmp_path / "once"))
    assert tensors.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.state_dict().items())
    expected = model.config.to_dict() | {"resampling": "transformers"}
    if name == "fixed positions":
        expected["positions"] = "learned"  # transformers has no other word; the numbers are the same
    assert reading.config.to_dict() == expected
    assert (reading.class_names, reading.preprocess, reading.ignored) == (NAMES, PREPROCESS, {})
    assert not any(decision.guessed for decision in reading.decisions)


def test_a_second_writing_gives_the_same_files(make_model: Made, tmp_path: Path) -> None:
    once = write_folder(make_model(), tmp_path / "once")
    reading, tensors = read_folder(once)
    model = VisionTransformer(reading.config)
    model.load_state_dict(tensors)
    twice = write_folder(model, tmp_path / "twice", reading.preprocess, reading.class_names)
    assert {path.name: path.read_bytes() for path in once.iterdir()} == {
        path.name: path.read_bytes() for path in twice.iterdir()
    }


@torch.no_grad()
def test_a_model_without_a_head_becomes_an_encoder(make_model: Made, tmp_path: Path) -> None:
    model = make_model(classes=0)
    folder = write_folder(model, tmp_path / "encoder", names=())
    theirs = transformers.AutoModel.from_pretrained(folder, add_pooling_layer=False)
    assert type(theirs).__name__ == "ViTModel"
    images = images_of(model.config)
    assert (theirs(images).last_hidden_state[:, 0] - model(images)).abs().max() <= 1e-5
    assert read_folder(folder)[0].config.classes == 0


@torch.no_grad()
def test_at_another_size_transformers_moves_positions_as_the_reading_says(make_model: Made, tmp_path: Path) -> None:
    folder = write_folder(make_model(), tmp_path / "written")
    reading, tensors = read_folder(folder)
    ours = VisionTransformer(reading.config).eval()
    ours.load_state_dict(tensors)
    theirs = transformers.AutoModelForImageClassification.from_pretrained(folder)
    images = torch.randn(1, 3, 24, 8, generator=torch.Generator().manual_seed(2))
    expected = theirs(images, interpolate_pos_encoding=True).logits
    assert (ours(images) - expected).abs().max() <= 1e-5
    assert (make_model()(images) - expected).abs().max() > 1e-4  # timm's rule, which the model was made with


@pytest.mark.parametrize(
    "preprocess",
    [
        PREPROCESS,
        Preprocess((16, 16), "crop", 0.8, "bicubic", IMAGENET_MEAN, IMAGENET_STD, rounding="transformers"),
    ],
)
def test_transformers_makes_the_same_pixels(preprocess: Preprocess, make_model: Made, tmp_path: Path) -> None:
    folder = write_folder(make_model(), tmp_path / "written", preprocess)
    generator = np.random.default_rng(0)
    image = Image.fromarray(generator.integers(0, 256, (37, 53, 3), dtype=np.uint8))
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    pixels = processor(image, return_tensors="pt")["pixel_values"][0]
    assert (pixels - to_tensor(image, preprocess)).abs().max() <= 1e-6


@torch.no_grad()
def test_transformers_pipeline_names_the_same_class(make_model: Made, tmp_path: Path) -> None:
    model = make_model()
    names = ("cat", "dog", "owl", "crane", "heron")
    preprocess = Preprocess((16, 16), "squash", 1.0, "bilinear", HALF_MEAN, HALF_STD, "torch")
    folder = write_folder(model, tmp_path / "written", preprocess, names)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8))
    classify = transformers.pipeline("image-classification", str(folder))
    scores = {found["label"]: found["score"] for found in classify(image, top_k=5)}
    expected = model(to_tensor(image, preprocess)[None])[0].softmax(0)
    assert [scores[name] for name in names] == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_keep_their_type(dtype: torch.dtype, make_model: Made, tmp_path: Path) -> None:
    folder = write_folder(make_model().to(dtype), tmp_path / "half")
    assert transformers.AutoModelForImageClassification.from_pretrained(folder).dtype == dtype


def test_all_that_transformers_has_no_word_for_is_named_at_once(make_model: Made) -> None:
    model = make_model(registers=2, layer_scale=0.1, pooling="mean", qk_norm=True)
    with pytest.raises(ConfigError) as raised:
        hf_vit.write(model.config, model.state_dict(), PREPROCESS, ())
    for missing in ("norm of queries and keys", "layer scale", "registers", "norm after pooling", "mean pooling"):
        assert f"no {missing}" in str(raised.value)
    assert len(str(raised.value).splitlines()) <= 3


@pytest.mark.parametrize(
    "changes",
    [
        {"patch_norms": True},
        {"patch_bias": False},
        {"qk_norm": True},
        {"gated_mlp": True},
        {"layer_scale": 0.1},
        {"class_token": False, "pooling": "mean"},
        {"registers": 1},
        {"distillation": True, "classes": 0},
        {"positions": "none"},
        {"positions": "rope", "heads": 3, "width": 24},
        {"positions": "learned-2d"},
        {"norm_before_blocks": True},
        {"norm_after_pooling": True},
        {"pooling": "mean", "norm_after_pooling": False},
        {"pooling": "map"},
        {"pooling": "class+mean"},
        {"hidden_head": True},
        {"stem": [1], "stem_width": 8},
        {"stem": [1], "stem_width": 8, "depth": 0, "class_token": False, "positions": "none", "pooling": "mean"},
        {"positions_at": "layers"},
        {"positions_at": "layers-shared"},
    ],
)
def test_what_transformers_has_no_word_for_is_refused(changes: Mapping[str, Any], make_model: Made) -> None:
    model = make_model(**changes)
    with pytest.raises(ConfigError, match="transformers' ViT has no"):
        hf_vit.write(model.config, model.state_dict(), PREPROCESS, ())


def test_every_setting_is_either_written_or_refused() -> None:
    """A new field of `ViTConfig` must find its place here."""
    refused = {
        "patch_norms", "patch_bias", "qk_norm", "gated_mlp", "layer_scale", "class_token", "registers", "positions",
        "positions_at", "rope_base", "norm_before_blocks", "norm_after_pooling", "pooling", "hidden_head",
    }  # fmt: skip
    refused |= {name for name in ViTConfig().to_dict() if name.startswith("stem")}
    only_in_training_or_at_other_sizes = {"dropout", "drop_path", "resampling"}
    read_off_tensors = {"width", "depth", "heads", "classes"}
    written = {name for changes in SAYABLE.values() for name in changes}
    assert set(ViTConfig().to_dict()) == refused | only_in_training_or_at_other_sizes | read_off_tensors | written


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 64}, "hidden_size 64, the weights 24"),
        ({"num_hidden_layers": 12}, "num_hidden_layers 12, the weights 2"),
        ({"patch_size": 16}, r"patch_size \[16, 16\], the weights \[4, 4\]"),
        ({"num_channels": 1}, "num_channels 1, the weights 3"),
        ({"intermediate_size": 128}, "intermediate_size 128, the weights 96"),
        ({"image_size": 64}, "image_size 64 x 64 has other patches than the position table's 16"),
        ({"num_attention_heads": 5}, "make no ViT: width 24 is not a multiple of heads 5"),
        ({"num_attention_heads": "4"}, "num_attention_heads is '4'; it is a whole number"),
        ({"num_attention_heads": 10**400}, "num_attention_heads is 1000"),
        ({"num_attention_heads": True}, "num_attention_heads is True"),
        ({"layer_norm_eps": [1]}, r"layer_norm_eps is \[1\]; it is a number"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps is nan"),
        ({"layer_norm_eps": 0}, "make no ViT: norm_eps is 0"),
        ({"hidden_act": "relu"}, "hidden_act 'relu' cannot be read"),
        ({"hidden_act": ["gelu"]}, r"hidden_act \['gelu'\] cannot be read"),
        ({"image_size": [32, 32, 3]}, "image_size is .*; it is one number of pixels, or two"),
        ({"image_size": {"height": 32}}, "image_size is .*; it is a whole number"),
        ({"id2label": {"0": "cat"}}, "1 names in id2label, the head 5 classes"),
        ({"id2label": {str(n): "cat" for n in range(1, 6)}}, "5 names in id2label, the head 5 classes; number one"),
        ({"id2label": ["cat"]}, "id2label is"),
        ({"qkv_bias": False}, "qkv_bias False, the weights True"),
        ({"model_type": "ijepa"}, r"of 'ijepa', but there is vit\.embeddings\.cls_token"),
    ],
)
def test_a_config_json_that_cannot_be_is_refused(changes: dict[str, Any], message: str, make_model: Made) -> None:
    found = written(make_model(), **changes)
    with pytest.raises(CheckpointError, match=message) as raised:
        hf_vit.read(found)
    assert len(str(raised.value).splitlines()) <= 3 and len(str(raised.value)) < 500


def test_a_vit_that_lost_its_class_token_is_refused(make_model: Made) -> None:
    found = written(make_model())
    del found.shapes["vit.embeddings.cls_token"]
    with pytest.raises(CheckpointError, match=r"of 'vit', but there is no vit\.embeddings\.cls_token"):
        hf_vit.read(found)


@pytest.mark.parametrize("missing", ["cls_classifier.weight", "distillation_classifier.weight", "cls_classifier.bias"])
def test_of_two_heads_that_learned_from_a_teacher_none_may_be_missing(
    missing: str, make_model: Made, tmp_path: Path
) -> None:
    weights = write_folder(make_model(distillation=True), tmp_path) / "model.safetensors"
    save_file({name: tensor for name, tensor in load_file(weights).items() if name != missing}, weights)
    with pytest.raises(CheckpointError, match=f"'{missing}' is missing|no place for"):
        open_model(tmp_path)


def test_models_of_other_types_are_not_recognised(make_model: Made) -> None:
    shapes = written(make_model()).shapes
    assert hf_vit.recognises(Found(shapes)) and hf_vit.recognises(Found(shapes, described={"model_type": "vit"}))
    assert not hf_vit.recognises(Found(shapes, described={"model_type": "yolos"}))
    assert not hf_vit.recognises(Found({"head.weight": (5, 24)}, described={"model_type": "vit"}))
