from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from timm.layers import StdConv2dSame
from timm.models.resnetv2 import ResNetV2, create_resnetv2_stem
from torch import Tensor, nn
from torchvision.models import resnet50

from vitreous.model.config import StemRoot, ViTConfig
from vitreous.model.presets import named_config
from vitreous.model.stem import ResNetStem, StandardisedConv, Unit
from vitreous.model.vit import VisionTransformer

SIZES = [(48, 80), (45, 63), (46, 61), (33, 32)]


def drawn(module: nn.Module, kernels: float = 1.0) -> nn.Module:
    """No parameter is what it was, none is 0 or 1; kernels keep a map's size, times `kernels`."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 4:
            noise *= kernels / math.sqrt(parameter[0].numel())
        parameter.data.copy_(0.3 * noise + name.endswith("weight") if parameter.ndim == 1 else noise)
    return module.eval()


def images(image_height: int, image_width: int, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 2 * torch.rand(2, channels, image_height, image_width, generator=generator) - 1


def slow_conv(features: np.ndarray, conv: StandardisedConv, stride: int) -> np.ndarray:
    """(inputs, rows, columns) -> (outputs, rows / stride, columns / stride): standardised weights, SAME padding."""
    weight = conv.weight.detach().double().numpy()
    kernels = [(kernel - kernel.mean()) / (kernel.std() + 1e-5) for kernel in weight]
    windows = slow_windows(features, weight.shape[-1], stride, 0.0)
    return np.array([[[(kernel * window).sum() for window in row] for row in windows] for kernel in kernels])


def slow_windows(features: np.ndarray, side: int, stride: int, border: float) -> list[list[np.ndarray]]:
    """Where TensorFlow's SAME puts the windows: ceil(length / stride) of them, the larger border at the end."""
    starts = []
    for length in features.shape[1:]:
        count = -(-length // stride)
        missing = max((count - 1) * stride + side - length, 0)
        starts.append([index * stride - missing // 2 for index in range(count)])
    wide = np.pad(features, ((0, 0), (side, side), (side, side)), constant_values=border)
    return [[wide[:, y + side : y + 2 * side, x + side : x + 2 * side] for x in starts[1]] for y in starts[0]]


def slow_norm(features: np.ndarray, norm: nn.GroupNorm, groups: int) -> np.ndarray:
    normed = [(part - part.mean()) / np.sqrt(part.var() + 1e-6) for part in np.split(features, groups)]
    weight, bias = (value.detach().double().numpy()[:, None, None] for value in (norm.weight, norm.bias))
    return np.concatenate(normed) * weight + bias


def slow_unit(features: np.ndarray, unit: Unit, stride: int) -> np.ndarray:
    kept = features
    if not isinstance(unit.downsample, nn.Identity):
        kept = slow_norm(slow_conv(features, unit.downsample.conv, stride), unit.downsample.norm, 32)
    branch = np.maximum(slow_norm(slow_conv(features, unit.conv1, 1), unit.norm1, 32), 0)
    branch = np.maximum(slow_norm(slow_conv(branch, unit.conv2, stride), unit.norm2, 32), 0)
    branch = slow_norm(slow_conv(branch, unit.conv3, 1), unit.norm3, 32)
    return np.maximum(kept + branch, 0)


def slow_root(image: np.ndarray, root: ResNetStem) -> np.ndarray:
    features = np.maximum(slow_norm(slow_conv(image, root.conv, 2), root.norm, 32), 0)
    rows = slow_windows(features, 3, 2, -np.inf)
    return np.array([[window.max(axis=(1, 2)) for window in row] for row in rows]).transpose(2, 0, 1)


@pytest.mark.parametrize(("inputs", "stride"), [(128, 1), (64, 1), (64, 2), (128, 2)])
@pytest.mark.parametrize(("rows", "columns"), [(5, 4), (6, 3)])
def test_a_unit_equals_a_slow_loop(inputs: int, stride: int, rows: int, columns: int) -> None:
    unit = drawn(Unit(inputs, 32, stride)).double()
    features = images(rows, columns, inputs).double()
    expected = slow_unit(features[1].numpy(), unit, stride)
    with torch.no_grad():
        np.testing.assert_allclose(unit(features)[1].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(("image_height", "image_width"), [(13, 16), (14, 9), (15, 7), (1, 2)])
def test_the_root_equals_a_slow_loop(image_height: int, image_width: int) -> None:
    root = drawn(ResNetStem((), 32)).double()
    image = images(image_height, image_width).double()
    with torch.no_grad():
        np.testing.assert_allclose(root(image)[0].numpy(), slow_root(image[0].numpy(), root), atol=1e-12)


@pytest.mark.parametrize(("image_height", "image_width"), [(5, 8), (6, 3), (1, 2)])
def test_a_small_root_equals_a_slow_loop_and_keeps_the_images_size(image_height: int, image_width: int) -> None:
    root = drawn(ResNetStem((), 32, root="small")).double()
    image = images(image_height, image_width).double()
    expected = np.maximum(slow_norm(slow_conv(image[0].numpy(), root.conv, 1), root.norm, 32), 0)
    assert expected.shape == (32, image_height, image_width)
    with torch.no_grad():
        np.testing.assert_allclose(root(image)[0].numpy(), expected, atol=1e-12)


def test_a_small_root_has_a_kernel_of_nine_and_nothing_else_is_smaller() -> None:
    large, small = (
        ViTConfig((32, 32), (32, 32), stem=(2, 1), stem_width=8, stem_root=root) for root in ("imagenet", "small")
    )
    for config, side in ((large, 7), (small, 3)):
        stem = ResNetStem((2, 1), 8, root=config.stem_root)
        units = 2 * (32 * 8 + 9 * 8 * 8 + 8 * 32) - (32 - 8) * 8 + 8 * 32  # first stage: 8 to 32 channels, one shortcut
        units += 32 * 16 + 9 * 16 * 16 + 16 * 64 + 32 * 64
        norms = 2 * (8 + 2 * (8 + 8 + 32) + 32 + 16 + 16 + 64 + 64)
        assert sum(parameter.numel() for parameter in stem.parameters()) == side * side * 3 * 8 + units + norms
    assert (large.stem_stride, small.stem_stride) == (8, 2)
    without = (4 * 4 - 16 * 16) * large.stem_channels * large.width  # the kernel of patches covers another map
    assert small.parameters - large.parameters == (9 - 49) * 3 * 8 - without


@torch.no_grad()
def test_without_blocks_a_model_is_the_mean_over_the_stems_map_a_norm_and_a_head() -> None:
    config = ViTConfig(
        (12, 8), (2, 2), stem=(1, 1), stem_width=32, stem_root="small", width=24, depth=0, heads=1, classes=5,
        class_token=False, positions="none", pooling="mean",
    )  # fmt: skip
    model = drawn(VisionTransformer(config)).double()
    assert sum(parameter.numel() for parameter in model.parameters()) == config.parameters
    found = model(images(12, 8).double())
    for image, logits in zip(images(12, 8).double().numpy(), found, strict=True):
        stem = model.patch_embed.backbone
        root = np.maximum(slow_norm(slow_conv(image, stem.stem.conv, 1), stem.stem.norm, 32), 0)
        first = slow_unit(root, stem.stages[0].blocks[0], 1)
        features = slow_unit(first, stem.stages[1].blocks[0], 2)  # (256, 6, 4)
        weights = {name: value.double().numpy() for name, value in model.state_dict().items()}
        kernel = weights["patch_embed.proj.weight"][:, :, 0, 0]  # (width, 256): a 1x1 convolution
        mapped = np.einsum("wc,crk->wrk", kernel, features) + weights["patch_embed.proj.bias"][:, None, None]
        mean = mapped.mean(axis=(1, 2))
        normed = (mean - mean.mean()) / np.sqrt(mean.var() + 1e-6)
        expected = weights["head.weight"] @ (normed * weights["fc_norm.weight"] + weights["fc_norm.bias"])
        np.testing.assert_allclose(logits.numpy(), expected + weights["head.bias"], atol=1e-10)
    larger = model(images(20, 14).double())  # a map of any size has a mean
    assert larger.shape == (2, 5) and larger.isfinite().all()


def timms(blocks: tuple[int, ...]) -> nn.Module:
    """What timm puts before its hybrid Vision Transformers."""
    settings = {"stem_type": "same", "preact": False, "conv_layer": partial(StdConv2dSame, eps=1e-8)}
    if not blocks:
        return create_resnetv2_stem(3, **settings)
    return ResNetV2(blocks, (256, 512, 1024)[: len(blocks)], num_classes=0, global_pool="", **settings)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("blocks", [(), (1,), (2, 1), (1, 1, 2)])
def test_with_timms_constants_it_is_timms(blocks: tuple[int, ...], size: tuple[int, int]) -> None:
    ours, theirs = drawn(ResNetStem(blocks, constants="timm")).double(), timms(blocks).eval().double()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(ours(images(*size).double()), theirs(images(*size).double()), rtol=0, atol=1e-10)


def test_timms_small_constants_move_a_feature_by_less_than_a_thousandth() -> None:
    ours, theirs = drawn(ResNetStem((2, 2))), timms((2, 2)).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    with torch.no_grad():
        difference = (ours(images(64, 64)) - theirs(images(64, 64))).abs().max().item()
    assert 1e-5 < difference < 1e-3


@pytest.mark.parametrize(
    ("name", "stem", "parameters"),
    [
        ("Ti/32", (), 6_337_704),
        ("S/32", (2, 2, 2, 2), 36_431_912),
        ("B/16", (3, 4, 9), 98_659_112),
        ("L/32", (3, 4, 6, 3), 328_994_856),
        ("L/16", (3, 4, 9), 316_483_624),
    ],
)
def test_hybrids_have_the_published_number_of_parameters(name: str, stem: tuple[int, ...], parameters: int) -> None:
    hybrid = named_config(name, stem=stem)
    assert hybrid.parameters == parameters
    with torch.device("meta"):
        found = sum(parameter.numel() for parameter in ResNetStem(stem).parameters())
    assert found == hybrid.parameters - without_stem(hybrid).parameters


def without_stem(hybrid: ViTConfig) -> ViTConfig:
    """The Transformer that reads the stem's map as if it were an image."""
    map_size = hybrid.image_size[0] // hybrid.stem_stride, hybrid.image_size[1] // hybrid.stem_stride
    return replace(
        hybrid, stem=None, image_size=map_size, patch_size=hybrid.patch_kernel, channels=hybrid.stem_channels
    )


def test_the_trunk_of_resnet_50_has_as_many_parameters_as_torchvisions() -> None:
    with torch.device("meta"):
        theirs = resnet50()
        ours = ResNetStem((3, 4, 6, 3))
    head = sum(parameter.numel() for parameter in theirs.fc.parameters())
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) - head


@pytest.mark.parametrize("blocks", [(), (1,), (1, 1), (2, 1, 1, 1)])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("root", ["imagenet", "small"])
def test_the_map_has_the_size_and_channels_that_the_config_tells(
    blocks: tuple[int, ...], size: tuple[int, int], root: StemRoot
) -> None:
    config = ViTConfig(stem=blocks, stem_width=8, stem_root=root, patch_size=(32, 32))
    rows, columns = (-(-length // config.stem_stride) for length in size)
    with torch.no_grad():
        assert ResNetStem(blocks, 8, root=root)(images(*size)).shape == (2, config.stem_channels, rows, columns)


@pytest.mark.parametrize(("width", "groups"), [(64, 32), (96, 32), (8, 8), (48, 16), (7, 1)])
def test_norms_have_as_many_of_32_groups_as_divide_the_channels(width: int, groups: int) -> None:
    assert ResNetStem((), width).norm.num_groups == groups


def test_other_channels_than_three_are_read() -> None:
    with torch.no_grad():
        assert ResNetStem((1,), 8, channels=1)(images(32, 32, channels=1)).shape == (2, 32, 8, 8)


def test_images_of_a_batch_do_not_see_each_other() -> None:
    stem, batch = drawn(ResNetStem((1, 1), 32)), images(40, 33)
    with torch.no_grad():
        torch.testing.assert_close(stem(batch)[:1], stem(batch[:1]))


def test_scale_and_mean_of_a_kernel_do_not_matter() -> None:
    conv = drawn(StandardisedConv(3, 32, 7, stride=2)).double()
    torch.manual_seed(0)
    with torch.no_grad():
        before = conv(images(16, 16).double())
        conv.weight.mul_(torch.rand(32, 1, 1, 1).double() + 1).add_(torch.randn(32, 1, 1, 1).double())
        torch.testing.assert_close(conv(images(16, 16).double()), before, rtol=0, atol=2e-3)


def test_a_kernel_of_zeros_gives_zeros_and_can_be_trained() -> None:
    conv = StandardisedConv(3, 4, 3)
    nn.init.zeros_(conv.weight)
    features = conv(images(5, 5))
    features.sum().backward()
    assert not features.any()
    assert conv.weight.grad is not None
    assert conv.weight.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_kernels_in_half_precision_are_rounded_once(dtype: torch.dtype) -> None:
    conv = drawn(StandardisedConv(64, 8, 1)).to(dtype)
    each_input = torch.eye(64, dtype=dtype).view(1, 64, 64, 1)
    kernels = conv.weight.detach().double().flatten(1).numpy()
    centred = kernels - kernels.mean(axis=1, keepdims=True)
    expected = torch.from_numpy(centred / (kernels.std(axis=1, keepdims=True) + 1e-5)).to(dtype)
    assert torch.equal(conv(each_input)[0, :, :, 0], expected)


def test_every_parameter_learns() -> None:
    stem = drawn(ResNetStem((1, 2), 32)).train()
    (stem(images(32, 32)) * images(4, 4, 256)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in stem.parameters())
