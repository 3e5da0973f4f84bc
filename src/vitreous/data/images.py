"""From files that nobody has checked to RGB pictures: the one place that decodes foreign bytes."""

from __future__ import annotations

import io
import os
import stat
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from vitreous.data.jpeg import SCANS, jpeg_pixels, scans
from vitreous.errors import InputError

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
"""What is decoded. The content decides, not the file's name."""

SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"))
"""Which files of a folder count as images, upper or lower case."""

CONTENT_LIMIT = 2**30
"""Bytes of one file that are taken into memory undecoded."""

PIXEL_LIMIT = 50_000_000
"""More than a 48-megapixel camera gives. The header is asked, so that a bomb is refused before decoding."""


class Encoded(NamedTuple):
    """The content of an image file, as nobody has looked at it, and what to call it in messages."""

    data: bytes
    name: str


def open_image(path: str | Path, *, pixel_limit: int = PIXEL_LIMIT) -> Image.Image:
    """The picture in a file as one would see it: RGB, upright, opaque.

    The first frame of an animation; the camera's orientation applied; transparency on white; 16-bit values
    scaled to 8 bits. Decoders' warnings are dropped: a file is either used or refused.

    Args:
        path: a JPEG, PNG, GIF, BMP, WebP or TIFF file.
        pixel_limit: refuse images with more pixels than this.

    Returns:
        An image of mode RGB.

    Raises:
        InputError: if there is no such file, or it is no regular file, or not decodable.
    """
    path = Path(path)
    with _opened(path) as file:
        return _as_image(_decode(file, shown(path), pixel_limit))


def read_content(path: str | Path) -> Encoded:
    """What is in an image file, not decoded yet.

    Raises:
        InputError: if there is no such file, or it is no regular file, or larger than 1 GiB.
    """
    path = Path(path)
    with _opened(path) as file:
        if os.fstat(file.fileno()).st_size > CONTENT_LIMIT:
            raise InputError(f"{shown(path)}: is larger than {CONTENT_LIMIT >> 20:,} MiB; make the image smaller")
        return Encoded(file.read(), str(path))


def decode_image(data: bytes, name: str, *, pixel_limit: int = PIXEL_LIMIT) -> Image.Image:
    """As `open_image`, for a file's content; `name` stands in messages.

    Raises:
        InputError: if the content is not decodable.
    """
    return _as_image(_decode(_in_memory(data, name), shown(name), pixel_limit))


def decode_array(data: bytes, name: str, *, pixel_limit: int = PIXEL_LIMIT) -> NDArray[np.uint8]:
    """The pixels of `decode_image`, with a copy less: (image_height, image_width, 3).

    Raises:
        InputError: if the content is not decodable.
    """
    picture = _decode(_in_memory(data, name), shown(name), pixel_limit)
    return np.array(picture) if isinstance(picture, Image.Image) else picture


def as_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB.

    Grey of 16 bits is divided by 257, so that 65,535 becomes 255; Pillow alone would clip it to white at
    256. Floats, and integers that leave the 16-bit range, are spread from their own minimum (0) to their own
    maximum (255). Transparency is composited on white. CMYK becomes (255 - ink) (255 - black) / 255 without
    a colour profile, by Pillow's rule.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep_grey(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return _on_white(image)
    return image.convert("RGB")


def find_images(paths: Iterable[str | Path]) -> tuple[Path, ...]:
    """Every image file among `paths`: files as they are, folders with all inside them, sorted.

    Files are only listed, never opened. In folders, names without an image's suffix, hidden names and all
    that is no regular file are left out; linked folders are entered once, so that circles end.

    Raises:
        InputError: if a path does not exist or is neither file nor folder, or if a folder holds no image.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            _check_is_file(path)
            found.append(path)
            continue
        inside = images_inside(path)
        if not inside:
            raise InputError(
                f"{shown(path)}: no image in this folder; expected files that end in {', '.join(sorted(SUFFIXES))}"
            )
        found.extend(inside)
    return tuple(found)


def images_inside(folder: Path, *, left_out: Iterable[Path] = ()) -> list[Path]:
    """Every image file of one folder, as `find_images` has them; none where there are none.

    Args:
        folder: is listed with all inside it.
        left_out: folders that are not entered, also where a link inside leads to them.

    Raises:
        InputError: if a folder cannot be read.
    """
    return list(_walk(folder, {place for other in left_out if (place := _identity(other)) is not None}))


def shown(path: str | Path) -> str:
    """A path on one line of a terminal: control characters and stray bytes escaped, other scripts kept."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in str(path))


def _check_is_file(path: Path) -> None:
    try:
        status = path.stat()  # asks about the file without opening it: opening a FIFO would wait for ever
    except FileNotFoundError:
        raise InputError(f"{shown(path)}: no such file or folder; check the spelling") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{shown(path)}: cannot be read ({error.args[-1]}); check the path") from None
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{shown(path)}: is a folder; an image file is expected here")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{shown(path)}: is a pipe, socket or device; an image file is expected here")
    if status.st_size == 0:
        raise InputError(f"{shown(path)}: the file is empty; replace or remove it")


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The file, for what reads it inside the block; what goes wrong is named."""
    _check_is_file(path)
    try:
        with path.open("rb") as file:
            yield file
    except PermissionError:
        raise InputError(f"{shown(path)}: no permission to read it; check the file's owner and mode") from None
    except OSError as error:
        raise InputError(f"{shown(path)}: cannot be read ({error.strerror}); check the path") from error


def _in_memory(data: bytes, name: str) -> io.BytesIO:
    if not data:
        raise InputError(f"{shown(name)}: the image is empty; replace or remove it")
    return io.BytesIO(data)


def _as_image(picture: Image.Image | NDArray[np.uint8]) -> Image.Image:
    return picture if isinstance(picture, Image.Image) else Image.fromarray(picture)


def _decode(file: IO[bytes], name: str, pixel_limit: int) -> Image.Image | NDArray[np.uint8]:
    """RGB and upright: an image of Pillow's, or (image_height, image_width, 3) where a faster decoder made it."""
    # The one place that catches everything: decoders let IndexError, struct.error and SyntaxError escape.
    try:
        with _WITHOUT_WARNINGS, Image.open(file, formats=FORMATS) as image:
            _check_pixels(name, image.size, pixel_limit)
            if "progressive" in image.info and (asked := scans(file)) > SCANS:
                raise InputError(f"{name}: a JPEG of {asked:,} scans, but {SCANS} are allowed; save it again")
            pixels = jpeg_pixels(file, image)
            if pixels is None:
                return as_rgb(ImageOps.exif_transpose(image))
            if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
                return pixels
            turned = Image.fromarray(pixels)
            turned.info = image.info  # where the orientation is
            return ImageOps.exif_transpose(turned)
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(
            f"{name}: not a readable JPEG, PNG, GIF, BMP, WebP or TIFF image; convert or replace it"
        ) from None
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name}: cannot be decoded ({cause}); replace or remove the file") from error


class _WithoutWarnings:
    """Drops warnings while any thread is inside.

    `warnings.catch_warnings` alone would leave them dropped for ever when two threads overlap: the second takes the
    first one's setting for the original.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._original = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._original = warnings.catch_warnings()
                self._original.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._original.__exit__(None, None, None)


_WITHOUT_WARNINGS = _WithoutWarnings()


def _check_pixels(name: str, size: tuple[int, int], limit: int) -> None:
    width, height = size
    if width * height > limit:
        raise InputError(f"{name}: {width} x {height} pixels, but {limit:,} are allowed; make the image smaller")


def _on_white(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(image, mask=image.getchannel("A"))
    return canvas


def _from_deep_grey(image: Image.Image) -> Image.Image:
    values = np.asarray(image, dtype=np.float32)  # (image_height, image_width)
    low, high = 0.0, 65535.0
    if image.mode == "F" or values.min() < low or values.max() > high:
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    grey = np.rint((values - low) * (255.0 / (high - low or 1.0)))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey = np.where(values == transparent, 255.0, grey)  # on white, as everywhere
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")


def _walk(folder: Path, entered: set[tuple[int, int]]) -> Iterator[Path]:
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in entered:
            return
        entered.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as listed:  # which knows what an entry is without asking for each
            entries = sorted(listed, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{shown(folder)}: cannot be read ({error.strerror}); check the folder's mode") from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if _is_so(entry.is_dir):
            yield from _walk(folder / entry.name, entered)
        elif Path(entry.name).suffix.lower() in SUFFIXES and _is_so(entry.is_file):
            yield folder / entry.name


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:  # gone, or not for us
        return None
    return status.st_dev, status.st_ino


def _is_so(ask: Callable[[], bool]) -> bool:
    try:
        return ask()
    except OSError:  # a link to itself
        return False
