from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import Tensor

from vitreous.checkpoints.hf_preprocess import preprocess_from_hf, to_hf
from vitreous.data.preprocess import CLIP_MEAN, HALF_MEAN, HALF_STD, IMAGENET_MEAN, IMAGENET_STD, Preprocess
from vitreous.data.transforms import to_pixels, to_tensor, undo
from vitreous.errors import CheckpointError, ConfigError

# What google/vit-base-patch16-224 and facebook/dinov2-base have in their preprocessor_config.json.
VIT: dict[str, Any] = {
    "do_normalize": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
    "size": {"height": 224, "width": 224},
}
DINOV2: dict[str, Any] = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "image_mean": list(IMAGENET_MEAN),
    "image_std": list(IMAGENET_STD),
    "resample": 3,
    "size": {"shortest_edge": 256},
}


def test_googles_vit_is_squashed() -> None:
    expected = Preprocess((224, 224), "squash", 1.0, "bilinear", HALF_MEAN, HALF_STD)
    assert _known(VIT) == expected


def test_dinov2_is_cropped() -> None:
    expected = Preprocess((224, 224), "crop", 0.875, "bicubic", IMAGENET_MEAN, IMAGENET_STD, rounding="transformers")
    assert _known(DINOV2) == expected


CLASSES = ["ViT", "DeiT", "Beit", "Siglip", "CLIP", "Bit"]
CHANGES: list[dict[str, Any]] = [
    {},
    {"size": {"height": 24, "width": 30}, "do_center_crop": False},
    {"size": [20, 26], "do_center_crop": False, "resample": 0},
    {"size": 25, "do_center_crop": True, "crop_size": 18},
    {"size": {"shortest_edge": 23}, "do_center_crop": True, "crop_size": 20},
    {"size": {"shortest_edge": 20}, "do_center_crop": True, "crop_size": {"height": 24, "width": 19}},
    {"size": {"shortest_edge": 20}, "do_center_crop": True, "crop_size": {"height": 27, "width": 33}},
    {"size": {"height": 24, "width": 30}, "do_center_crop": True, "crop_size": {"height": 20, "width": 25}},
    {"size": {"height": 24, "width": 24}, "do_center_crop": True, "crop_size": {"height": 31, "width": 31}},
    {"size": {"height": 24, "width": 24}, "do_center_crop": True, "crop_size": [24, 24], "resample": 2},
    {"do_resize": False, "do_center_crop": True, "crop_size": {"height": 21, "width": 24}},
    {"size": {"height": 24, "width": 24}, "do_center_crop": False, "image_mean": 0.4, "image_std": [0.3, 0.2, 0.1]},
    {"size": {"height": 24, "width": 24}, "do_normalize": False, "do_center_crop": None},
    {"size": {"height": 24, "width": 24}, "do_center_crop": False, "rescale_factor": 1 / 127.5},
    {"size": {"height": 24, "width": 24}, "do_center_crop": False, "reduce_labels": True},
]
PILLOWS_ALONE: list[dict[str, Any]] = [
    {"size": {"height": 24, "width": 30}, "do_center_crop": False, "resample": code} for code in (1, 4, 5)
]
SIZES = [(50, 37), (37, 50), (61, 61), (24, 24), (25, 24), (31, 100), (300, 24), (7, 5), (1, 1), (1, 40), (20, 23)]


@pytest.mark.parametrize("changes", CHANGES + PILLOWS_ALONE)
@pytest.mark.parametrize("name", CLASSES)
def test_pillows_processors_are_equal_bit_for_bit(name: str, changes: dict[str, Any]) -> None:
    processor = getattr(transformers, f"{name}ImageProcessorPil")(**changes)
    preprocess = _known({"image_processor_type": f"{name}ImageProcessor"} | changes)
    for size in SIZES if changes else SIZES[:3]:
        image = _photo(*size)
        assert torch.equal(to_tensor(image, preprocess), _processed(processor, image)), size


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("name", [*CLASSES, "DINOv3ViT"])
def test_the_default_processors_are_equal_to_rounding(name: str, changes: dict[str, Any]) -> None:
    processor = getattr(transformers, f"{name}ImageProcessor")(**changes)
    preprocess = _known({"image_processor_type": f"{name}ImageProcessorFast"} | changes)
    for size in SIZES if changes else SIZES[:3]:
        image = _photo(*size)
        assert (to_tensor(image, preprocess) - _processed(processor, image)).abs().max() < 1e-6, size


@pytest.mark.parametrize("flags", [{"do_rescale": False}, {"do_rescale": False, "do_normalize": False}])
@pytest.mark.parametrize("kind", ["", "Pil"])
def test_colours_from_0_to_255_are_equal_to_rounding(flags: dict[str, bool], kind: str) -> None:
    changes = flags | {"size": {"height": 24, "width": 24}}
    preprocess = _known({"image_processor_type": f"ViTImageProcessor{kind or 'Fast'}"} | changes)
    for size in SIZES:
        image = _photo(*size)
        theirs = _processed(getattr(transformers, f"ViTImageProcessor{kind}")(**changes), image)
        assert (to_tensor(image, preprocess) - theirs).abs().max() < 1e-6 * theirs.abs().max(), size
        shown = undo(to_tensor(image, preprocess), preprocess)
        assert torch.equal(shown, to_pixels(image, preprocess).permute(1, 2, 0))  # figures keep their colours


def test_pictures_that_are_not_resized_are_let_through_at_the_models_size() -> None:
    preprocess = _known(VIT | {"do_resize": False, "size": None})
    assert (preprocess.resize, preprocess.image_size) == ("none", (224, 224))
    processor = transformers.ViTImageProcessorPil(do_resize=False)
    image = _photo(224, 224)
    assert torch.equal(to_tensor(image, preprocess), _processed(processor, image))


def test_photographs_are_prepared_as_transformers_does() -> None:
    described = DINOV2 | {"image_processor_type": "BitImageProcessor"}
    pillow, torchs = _known(described), _known(described | {"image_processor_type": "BitImageProcessorFast"})
    for path in _photographs():
        image = Image.open(path).convert("RGB")
        assert torch.equal(to_tensor(image, pillow), _processed(transformers.BitImageProcessorPil(**DINOV2), image))
        theirs = _processed(transformers.BitImageProcessor(**DINOV2), image)
        assert (to_tensor(image, torchs) - theirs).abs().max() < 1e-6, path


@pytest.mark.parametrize(
    ("model_type", "name"),
    [("vit", "ViT"), ("deit", "DeiT"), ("beit", "Beit"), ("clip", "CLIP"), ("dinov2", "Bit"), ("siglip", "Siglip"),
     ("vit_mae", "ViT"), ("vit_msn", "ViT"), ("ijepa", "ViT"), ("data2vec-vision", "Beit"), ("hiera", "Bit"),
     ("dinov3_vit", "DINOv3ViT")],
)  # fmt: skip
def test_the_models_type_tells_the_class_where_the_file_does_not(model_type: str, name: str) -> None:
    named = transformers.models.auto.image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES[model_type]
    assert f"{name}ImageProcessor" in named.values()
    found, decisions = preprocess_from_hf({}, None, model_type=model_type)
    assert (found, decisions) == preprocess_from_hf({"image_processor_type": f"{name}ImageProcessor"}, None)
    decision = decisions[0]
    assert f"defaults of {name}ImageProcessor" in decision.reason and not decision.guessed
    assert {"size", "resample", "image_mean", "image_std"} <= set(decision.value)


@pytest.mark.parametrize(
    ("name", "resampler"), [("ViT", "pillow"), ("ViTFast", "torch"), ("ViTPil", "pillow"), ("DINOv3ViT", "torch-float")]
)
def test_who_resizes_is_the_classs_or_told(name: str, resampler: str) -> None:
    plain = name.removesuffix("Fast").removesuffix("Pil")
    named = f"{plain}ImageProcessor{name.removeprefix(plain)}"
    found, decisions = preprocess_from_hf(VIT | {"image_processor_type": named}, 224)
    assert found.resampler == resampler
    told = ['backend="pil"' in decision.reason for decision in decisions if decision.setting == "resampler"]
    assert told == [True] * (resampler == "pillow")


def test_older_feature_extractors_are_known_by_their_old_name() -> None:
    old, decisions = preprocess_from_hf({"feature_extractor_type": "CLIPFeatureExtractor", "size": 224}, None)
    assert old == preprocess_from_hf({"image_processor_type": "CLIPImageProcessor"}, None)[0]
    assert (old.resize, old.crop_fraction, old.interpolation, old.mean) == ("crop", 1.0, "bicubic", CLIP_MEAN)
    assert "size" not in decisions[0].value and "crop_size" in decisions[0].value


def test_a_class_with_rules_of_its_own_is_a_guess_that_says_so() -> None:
    described = VIT | {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}}
    _, decisions = preprocess_from_hf(described, 224)
    assert [decision.setting for decision in decisions if decision.guessed] == ["resize", "image processor"]


WRITTEN = [
    Preprocess((24, 30), "squash", 1.0, "bilinear", HALF_MEAN, HALF_STD, "torch"),
    Preprocess((20, 25), "squash-crop", 0.8, "bicubic", CLIP_MEAN, IMAGENET_STD, "torch", "transformers"),
    Preprocess((24, 24), "crop", 0.8, "bicubic", resampler="torch", rounding="transformers"),
    Preprocess((24, 19), "crop", 1.2, "bicubic", resampler="torch", rounding="transformers"),
    Preprocess((24, 19), "cut", 1.0, "bicubic", resampler="torch", rounding="transformers"),
    Preprocess((24, 24), "squash", 1.0, "bilinear", resampler="torch-float"),
]


@pytest.mark.parametrize("preprocess", WRITTEN)
def test_what_is_written_transformers_reads_with_the_same_pixels(preprocess: Preprocess, tmp_path: Path) -> None:
    described, differences = to_hf(preprocess)
    assert differences == ()
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(described))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    assert type(processor).__name__ == described["image_processor_type"]
    for size in SIZES:
        image = _photo(*size)
        assert (to_tensor(image, preprocess) - _processed(processor, image)).abs().max() < 1e-6, size


def test_pillows_is_written_for_transformers_with_its_backend(tmp_path: Path) -> None:
    for preprocess in (Preprocess((24, 30), "squash", 1.0), Preprocess((28, 28), rounding="transformers")):
        described, differences = to_hf(preprocess)
        assert len(differences) == 1 and 'backend="pil" is exact' in differences[0]
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(described))
        processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
        for size in SIZES:
            image = _photo(*size)
            assert torch.equal(to_tensor(image, preprocess), _processed(processor, image)), size
        assert _known(described) == preprocess


@pytest.mark.parametrize(
    ("preprocess", "difference"),
    [
        (Preprocess(resampler="torch"), "odd number of spare pixels"),
        (Preprocess((20, 30), resampler="torch"), "by the shorter edge alone"),
        (Preprocess(interpolation="bilinear", resampler="tensorflow"), "tensorflow does not antialias"),
        (Preprocess(resize="none", crop_fraction=1.0), "pictures of any size"),
    ],
)
def test_what_transformers_cannot_say_is_said(preprocess: Preprocess, difference: str) -> None:
    assert any(difference in sentence for sentence in to_hf(preprocess)[1])


def test_a_border_cannot_be_written() -> None:
    with pytest.raises(ConfigError, match="no processor that fills a border"):
        to_hf(Preprocess(resize="border"))


@pytest.mark.parametrize("size", [224, [224, 224], (224, 224)])
def test_older_files_have_plain_numbers(size: Any) -> None:
    preprocess = _known(VIT | {"size": size})
    assert (preprocess.image_size, preprocess.resize) == ((224, 224), "squash")


def test_a_plain_number_with_a_crop_is_the_shorter_edge_where_the_class_is_not_known() -> None:
    preprocess, decisions = preprocess_from_hf(DINOV2 | {"size": 256, "crop_size": 224}, None)
    assert preprocess == preprocess_from_hf(DINOV2, None)[0]
    assert [decision.setting for decision in decisions if decision.guessed] == ["resize"]
    squashed, decisions = preprocess_from_hf(DINOV2 | {"size": 256}, None, model_type="deit")
    assert squashed.resize == "squash-crop" and not any(decision.guessed for decision in decisions)


def test_images_that_are_not_normalised_stay_as_they_are() -> None:
    preprocess, _ = preprocess_from_hf(VIT | {"do_normalize": False}, None)
    assert (preprocess.mean, preprocess.std) == ((0, 0, 0), (1, 1, 1))


def test_without_a_file_everything_is_a_guess_at_the_models_size() -> None:
    preprocess, decisions = preprocess_from_hf(None, 384)
    assert preprocess == Preprocess(image_size=(384, 384))
    assert decisions[0].guessed and "no preprocessor_config.json" in decisions[0].reason
    assert preprocess_from_hf(None, None)[0].image_size == (224, 224)
    assert preprocess_from_hf(None, [32, 48])[0].image_size == (32, 48)


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"resample": 6}, "interpolation"),
        ({"resample": None}, "interpolation"),
        ({"resample": [2]}, "interpolation"),
        ({"image_mean": None}, "mean and std"),
        ({"size": None}, "resize"),
        ({"size": {"shortest_edge": 224}}, "resize"),
        ({"size": {"shortest_edge": 224, "longest_edge": 300}, "do_center_crop": True, "crop_size": 224}, "resize"),
        ({"size": {"longest_edge": 300}}, "resize"),
        ({"image_processor_type": "ViTImageProcessorFast", "resample": 1}, "resampler"),
    ],
)
def test_what_the_file_leaves_out_is_a_guess(changes: dict[str, Any], setting: str) -> None:
    _, decisions = preprocess_from_hf(VIT | changes, 224)
    assert [decision.setting for decision in decisions if decision.guessed] == [setting]


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": {"width": 3}},
        {"size": "large"},
        {"image_mean": [1]},
        {"size": -5},
        {"size": 10**400},
        {"size": {"height": float("inf"), "width": 3}},
        {"size": [10**9, 10**9]},
        {"size": [224]},
        {"rescale_factor": 0},
        {"rescale_factor": -1},
        {"image_std": [0, 1, 1]},
        {"do_center_crop": True, "crop_size": 224, "size": {"height": 256, "width": 512}},
        {"do_center_crop": True, "crop_size": 10**9, "size": {"shortest_edge": 256}},
        {"do_center_crop": True, "crop_size": 300, "size": {"shortest_edge": 0}},
    ],
)
def test_values_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"preprocessor_config.json cannot be used"):
        preprocess_from_hf(VIT | wrong, 224)


def _known(described: dict[str, Any]) -> Preprocess:
    preprocess, decisions = preprocess_from_hf(described, 224)
    assert not any(decision.guessed for decision in decisions)
    return preprocess


def _processed(processor: Any, image: Image.Image) -> Tensor:
    return torch.as_tensor(np.asarray(processor(image, return_tensors="pt")["pixel_values"][0]))


def _photo(image_width: int, image_height: int) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (image_height, image_width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def _photographs() -> list[Path]:
    for folder in Path(__file__).resolve().parents:
        if (folder / "shared" / "data" / "imagenet-sample").is_dir():
            return sorted((folder / "shared" / "data" / "imagenet-sample").iterdir())[:120:20]
    pytest.skip("needs shared/data/imagenet-sample beside the checkout")


@pytest.mark.parametrize(("pads", "said"), [(True, ["padding"]), (False, []), (None, [])])
def test_padding_is_not_left_out_in_silence(pads: bool | None, said: list[str]) -> None:
    described = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}, "do_pad": pads}
    _, decisions = preprocess_from_hf(described, 32)
    assert [decision.setting for decision in decisions if decision.guessed] == said
