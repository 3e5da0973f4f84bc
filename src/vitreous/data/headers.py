"""How large a picture is, from the first bytes of its file."""

from __future__ import annotations

import warnings
from typing import IO

from PIL import ExifTags, Image

from vitreous.data.images import FORMATS

Size = tuple[int, int]
"""(image_height, image_width) in pixels."""

_LYING = (5, 6, 7, 8)
"""EXIF orientations that change height and width over."""


def header_size(file: str | IO[bytes]) -> Size | None:
    """Height and width of the upright picture in a file, nothing decoded; None where the header cannot be read."""
    try:
        with warnings.catch_warnings(), Image.open(file, formats=FORMATS) as image:
            warnings.simplefilter("ignore")
            width, height = image.size
            lies = image.getexif().get(ExifTags.Base.Orientation) in _LYING
    except Exception:  # as in `images`: foreign bytes make decoders raise anything; reading the picture says what
        return None
    return (width, height) if lies else (height, width)
