"""How much arithmetic a model needs, and what share of the processor's best a run gets out of it."""

from __future__ import annotations

import math
import time
from functools import cache

import torch
from torch import Tensor

from vitreous.model.config import ViTConfig

PEAKS = {
    "B200": 2250e12,
    "GH200": 989e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A10G": 70e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
"""Operations a second of GPUs in bfloat16 with sums in float32, dense; the first name that is found counts.

Source: NVIDIA's data sheets, whose figures with sparsity are twice as high.
"""

_SIDE = 512  # of the matrices that are multiplied where nothing is known; larger ones reach no more on one core
_TRIES = 64  # a twentieth of a second; among four, none was undisturbed on a busy machine, and a run told of 570 % MFU


def training_operations(config: ViTConfig) -> int:
    """Multiplications and additions for one image, forward and backward: matrix products and convolutions alone.

    Three times the forward pass, because the backward pass needs the gradient of each product's inputs and of its
    weights; only the first layer's inputs, the pixels, need none. What is computed again to save memory is not counted:
    it is no work on the model. torch's `FlopCounterMode` counts the same, but loads torch's compiler.
    """
    needs_no_gradient, rest = _first_layer(config), 0
    if config.stem is not None:
        rest += _stages(config) + _patch_embedding(config)
    if config.patch_norms:  # their factors learn from the gradient of the pixels
        needs_no_gradient, rest = 0, needs_no_gradient
    return 2 * needs_no_gradient + 3 * (rest + config.depth * _block(config) + _read_out(config))


def peak_operations(device: torch.device, precision: torch.dtype, threads: int) -> float | None:
    """Operations a second that the processor can do at most; None for a GPU or a precision that is not known.

    Of a CPU: what the product of two 512 x 512 matrices reaches, measured here and now.
    """
    if device.type == "cpu":
        return _measured_peak(precision, threads)
    if precision != torch.bfloat16:
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for known, peak in PEAKS.items() if known in name), None)


@cache
def _measured_peak(precision: torch.dtype, threads: int) -> float:
    """With as many threads as torch has now: `threads` is the key of what was measured before."""
    matrix = torch.ones(_SIDE, _SIDE, dtype=precision)
    seconds = min(_seconds(matrix) for _ in range(_TRIES))  # the first prepares the kernel
    return 2 * _SIDE**3 / seconds


def _seconds(matrix: Tensor) -> float:
    began = time.perf_counter()
    torch.mm(matrix, matrix)
    return time.perf_counter() - began


def _first_layer(config: ViTConfig) -> int:
    if config.stem is None:
        return _patch_embedding(config)
    side, stride = (7, 2) if config.stem_root == "imagenet" else (3, 1)
    places = math.prod(_halved(config.image_size, times=stride - 1))
    return 2 * places * side**2 * config.channels * config.stem_width


def _stages(config: ViTConfig) -> int:
    """Bottleneck units of the stem: 1x1, 3x3, 1x1, and a 1x1 beside the first of each stage."""
    size = _halved(config.image_size, times=2 if config.stem_root == "imagenet" else 0)
    inputs, count = config.stem_width, 0
    for stage, units in enumerate(config.stem or ()):
        middle = config.stem_width * 2**stage
        for unit in range(units):
            before, size = size, _halved(size, times=1 if stage and not unit else 0)
            places = math.prod(size)
            count += 2 * math.prod(before) * inputs * middle + 2 * places * (9 * middle**2 + middle * 4 * middle)
            count += 0 if unit else 2 * places * inputs * 4 * middle
            inputs = 4 * middle
    return count


def _halved(size: tuple[int, int], *, times: int) -> tuple[int, int]:
    """(height, width) halved so many times, rounded up each time."""
    return -(-size[0] // 2**times), -(-size[1] // 2**times)


def _patch_embedding(config: ViTConfig) -> int:
    return 2 * config.rows * config.columns * math.prod(config.patch_kernel) * config.stem_channels * config.width


def _block(config: ViTConfig) -> int:
    tokens, heads = config.tokens, config.all_heads
    layers = 2 * tokens * 4 * config.width * heads + tokens * _mlp(config)
    products = 2 * 2 * tokens**2 * heads  # scores, and the values that they weigh
    distances = 2 * tokens * (2 * tokens - 1) * heads if config.positions == "relative" else 0
    return layers + products + distances


def _mlp(config: ViTConfig) -> int:
    return 2 * (2 + config.gated_mlp) * config.width * config.mlp_width


def _read_out(config: ViTConfig) -> int:
    width, patches = config.width, config.rows * config.columns
    count = 0
    if config.pooling == "map":
        count += 2 * 2 * width**2 + 2 * patches * 2 * width**2 + 2 * 2 * patches * width + _mlp(config)
    count += 2 * config.features * width * config.hidden_head
    read = width if config.hidden_head else config.features
    return count + 2 * read * config.classes * (1 + config.distillation)
