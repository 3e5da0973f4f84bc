"""Each pipeline beside the lines of its source that it stands for, rebuilt from torchvision's transforms."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import models, transforms
from torchvision.transforms import v2
from torchvision.transforms._presets import ImageClassification

from vitreous.data import pipelines
from vitreous.data.preprocess import CLIP_MEAN, CLIP_STD, HALF_MEAN, HALF_STD, IMAGENET_MEAN, IMAGENET_STD, Preprocess
from vitreous.data.transforms import to_tensor

PIL_BICUBIC = transforms.InterpolationMode.BICUBIC
SIZES = [(50, 37), (37, 50), (33, 61), (28, 28), (31, 100), (7, 5), (1, 1), (1, 40)]


def _photo(image_width: int, image_height: int) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (image_height, image_width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def _centre_of(resized: int, size: int, mean: Any, std: Any, filter_name: Any = PIL_BICUBIC) -> Callable[[Any], Tensor]:
    made: Callable[[Any], Tensor] = transforms.Compose(
        [
            transforms.Resize(resized, interpolation=filter_name),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )
    return made


def _reference(name: str, size: int) -> Callable[[Any], Tensor]:
    if name in ("torchvision", "msn"):
        return ImageClassification(crop_size=size, resize_size=int(size / 0.875))
    if name == "swag":
        return ImageClassification(crop_size=size, resize_size=size, interpolation=PIL_BICUBIC)
    if name == "clip":
        return _centre_of(size, size, CLIP_MEAN, CLIP_STD)
    if name == "deit3":
        return _centre_of(size, size, IMAGENET_MEAN, IMAGENET_STD)
    if name == "vit_pytorch":
        return _centre_of(int(size / 0.875), size, (0, 0, 0), (1, 1, 1), transforms.InterpolationMode.BILINEAR)
    return _centre_of(int(size / 0.875), size, IMAGENET_MEAN, IMAGENET_STD)  # Resize(256), CenterCrop(224) of 224


@pytest.mark.parametrize("size", [24, 28])
@pytest.mark.parametrize(
    "name", ["torchvision", "msn", "swag", "clip", "deit", "deit3", "dino", "dinov2", "mae", "vit_pytorch"]
)
def test_crops_are_their_sources_bit_for_bit(name: str, size: int) -> None:
    preprocess = getattr(pipelines, name)((size, size))
    theirs = _reference(name, size)
    for picture in SIZES:
        image = _photo(*picture)
        assert torch.equal(to_tensor(image, preprocess), theirs(image)), picture


def test_mae_above_224_pixels_keeps_the_whole_shorter_side() -> None:
    assert pipelines.mae((224, 224)).enlarged_size == (256, 256)
    assert pipelines.mae((448, 448)).enlarged_size == (448, 448)


def test_timms_default_is_what_timm_makes_of_nothing() -> None:
    timm_data = pytest.importorskip("timm.data")
    config = timm_data.resolve_data_config(args={"input_size": (3, 24, 24)})
    theirs = timm_data.create_transform(**config)
    for picture in SIZES:
        image = _photo(*picture)
        assert torch.equal(to_tensor(image, pipelines.timm_default((24, 24))), theirs(image)), picture


def test_torchvisions_own_weights_and_swags_have_these_settings() -> None:
    for weights, pipeline in (
        (models.ViT_B_16_Weights.IMAGENET1K_V1, pipelines.torchvision),
        (models.ViT_B_32_Weights.IMAGENET1K_V1, pipelines.torchvision),
        (models.ViT_L_32_Weights.IMAGENET1K_V1, pipelines.torchvision),
        (models.ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1, pipelines.swag),
        (models.ViT_H_14_Weights.IMAGENET1K_SWAG_LINEAR_V1, pipelines.swag),
    ):
        theirs = weights.transforms()
        preprocess = pipeline((theirs.crop_size[0],) * 2)
        assert preprocess.enlarged_size[0] == theirs.resize_size[0], weights
        assert preprocess.interpolation == theirs.interpolation.value
        assert (list(preprocess.mean), list(preprocess.std)) == (theirs.mean, theirs.std)


def test_dinov3_is_its_readmes() -> None:
    theirs = v2.Compose(
        [
            v2.ToImage(),
            v2.Resize((24, 24), antialias=True),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean=IMAGENET_MEAN, std=IMAGENET_STD),
        ]
    )
    for picture in SIZES:
        image = _photo(*picture)
        assert (to_tensor(image, pipelines.dinov3((24, 24))) - theirs(image)).abs().max() < 1e-6, picture


def test_siglip_is_timms_squash() -> None:
    timm_data = pytest.importorskip("timm.data")
    theirs = timm_data.create_transform(
        (3, 24, 24), interpolation="bicubic", crop_pct=1.0, crop_mode="squash", mean=HALF_MEAN, std=HALF_STD
    )
    for picture in SIZES:
        image = _photo(*picture)
        assert torch.equal(to_tensor(image, pipelines.siglip((24, 24))), theirs(image)), picture


def test_googles_differ_only_by_the_fractions_that_big_vision_drops() -> None:
    for picture in SIZES:
        image = _photo(*picture)
        fractions, whole = (to_tensor(image, p((20, 30))) for p in (pipelines.google, pipelines.big_vision))
        dropped = (fractions - whole) * 127.5  # of 255; test_transforms.py has both beside tensorflow's own
        assert dropped.min() > -1e-4 and dropped.max() < 1 + 1e-4, picture
        assert dropped.max() > 0.5 or picture in ((1, 1), (28, 28)), picture


def test_every_pipeline_takes_sizes_that_are_not_square() -> None:
    made = inspect.getmembers(pipelines, inspect.isfunction)
    own = {name: function for name, function in made if function.__module__ == pipelines.__name__}
    assert len(own) == 15
    for name, function in own.items():
        preprocess = function((32, 48))
        assert isinstance(preprocess, Preprocess) and preprocess.image_size == (32, 48), name
        assert to_tensor(_photo(50, 37), preprocess).shape == (3, 32, 48)
