"""What is particular to JPEGs: a faster decoder where it is installed, and a bound on what a file may ask for.

`simplejpeg` gives the pixels of Pillow sooner, and as an array.
"""

from __future__ import annotations

import importlib
import os
from functools import cache
from types import ModuleType
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FILE_LIMIT = 2**26
"""Bytes of a file that are read at once; Pillow reads larger ones piece by piece."""

SCANS = 100
"""Passes over all pixels that a progressive JPEG may ask for; encoders write about ten, a hostile file thousands."""

_COLOURS = {"RGB": "RGB", "L": "GRAY"}
"""Pillow's modes of JPEGs that both decode alike, by simplejpeg's names; CMYK differs in the last bit."""


def jpeg_pixels(file: IO[bytes], image: Image.Image) -> NDArray[np.uint8] | None:
    """(image_height, image_width, 3) as they are stored, or None where only Pillow can tell.

    Whatever simplejpeg finds wrong is left to Pillow, so that the same files are refused whether it is installed
    or not.

    Args:
        file: what `image` was opened from, anywhere in it; it can be at another place afterwards.
        image: its header, of a size that was checked.
    """
    simplejpeg = _simplejpeg()
    if simplejpeg is None or image.format not in ("JPEG", "MPO") or image.mode not in _COLOURS:
        return None
    place = file.tell()
    try:
        if file.seek(0, os.SEEK_END) > FILE_LIMIT:
            return None
        file.seek(0)
        pixels = simplejpeg.decode_jpeg(file.read(), _COLOURS[image.mode])  # (image_height, image_width, 1 or 3)
    except ValueError:
        return None
    finally:
        file.seek(place)
    if pixels.shape[:2] != (image.height, image.width):
        return None
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)


def scans(file: IO[bytes]) -> int:
    """How many passes over its pixels a progressive JPEG asks for, or a few more: marks in notes count, too.

    Args:
        file: anywhere in it, where it is again afterwards.
    """
    place, found, last = file.tell(), 0, b""
    file.seek(0)
    while piece := file.read(_PIECE):
        found += (last + piece).count(_START_OF_SCAN)
        last = piece[-1:]
    file.seek(place)
    return found


_PIECE = 2**20
_START_OF_SCAN = b"\xff\xda"  # packed pixels never have it: behind 255 they have a 0


@cache
def _simplejpeg() -> ModuleType | None:
    try:
        return importlib.import_module("simplejpeg")
    except ImportError:
        return None
