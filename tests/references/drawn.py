"""Weights and images that two programs draw alike from a name and a shape, so that only the outputs need storing.

numpy keeps the stream of `RandomState` frozen, and the seed is the CRC-32 of the name. The scales keep a deep network's
numbers near 1: a kernel is divided by the root of its inputs, a norm's scale lies around 1, nothing is zero.
"""

from __future__ import annotations

import math
import zlib

import numpy as np

Shape = tuple[int, ...]


def draw(name: str, shape: Shape) -> np.ndarray:
    """One array of Google's parameters, float32.

    Args:
        name: as in the file, such as "Transformer/encoderblock_0/LayerNorm_0/scale".
        shape: of the array; a scanned encoder's has the blocks as first axis.
    """
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    kind = name.rpartition("/")[2]
    if kind == "kernel":
        values = values / math.sqrt(_inputs(name, shape))
    elif kind == "scale":
        values = (1 + 0.2 * values) * (0.3 if "/gn3/" in name else 1)  # a ResNet of full branches multiplies rounding
    elif kind == "bias":
        values = 0.2 * values
    else:  # class token, positions, the probe of attention pooling
        values = 0.5 * values
    return values.astype(np.float32)


def draw_all(shapes: dict[str, Shape], factors: dict[str, float] | None = None) -> dict[str, np.ndarray]:
    """Every array of a file by name, some of them multiplied by a factor."""
    factors = factors or {}
    return {name: draw(name, tuple(shape)) * np.float32(factors.get(name, 1)) for name, shape in shapes.items()}


def draw_images(image_height: int, image_width: int) -> np.ndarray:
    """(2, image_height, image_width, 3), float32 from -1 to 1; channels last, as Google's code wants them."""
    seed = zlib.crc32(f"images {image_height}x{image_width}".encode())
    return np.random.RandomState(seed).uniform(-1, 1, (2, image_height, image_width, 3)).astype(np.float32)


def draw_pixels(image_height: int, image_width: int) -> np.ndarray:
    """(image_height, image_width, 3), uint8: noise, in which every pixel differs from its neighbours."""
    seed = zlib.crc32(f"pixels {image_height}x{image_width}".encode())
    return np.random.RandomState(seed).randint(0, 256, (image_height, image_width, 3)).astype(np.uint8)


def as_bfloat16(values: np.ndarray) -> np.ndarray:
    """The bytes of bfloat16 in numpy's nameless two-byte type, as big_vision leaves them in a file.

    Rounds to nearest, ties to even. Finite numbers only.
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    return (rounded >> 16).astype(np.uint16).view("V2")


def _inputs(name: str, shape: Shape) -> int:
    """Numbers that one output of a kernel is summed from."""
    module = name.split("/")[-2]
    axes = shape[1:] if "/encoderblock/" in name else shape
    return axes[0] if module in ("query", "key", "value") else math.prod(axes[:-1])
