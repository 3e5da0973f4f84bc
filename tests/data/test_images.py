from __future__ import annotations

import io
import os
import random
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitreous.data import images
from vitreous.data.images import as_rgb, decode_array, decode_image, find_images, open_image, read_content, shown
from vitreous.errors import InputError


def _saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def _ramp() -> np.ndarray:
    """Every 16-bit value once: its mean is 32767.5, which is 127.5 of 255."""
    return np.arange(65536, dtype=np.uint16).reshape(256, 256)


def _photo(mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_a_lossless_file_gives_the_pixels_that_were_saved(tmp_path: Path, suffix: str) -> None:
    image = _photo()
    opened = open_image(_saved(image, tmp_path / f"photo.{suffix}"))
    assert opened.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(opened), np.asarray(image))


@pytest.mark.parametrize("suffix", ["jpg", "webp", "gif"])
def test_the_other_formats_open_at_the_right_size(tmp_path: Path, suffix: str) -> None:
    opened = open_image(_saved(_photo(), tmp_path / f"photo.{suffix}"))
    assert (opened.mode, opened.size) == ("RGB", (9, 6))


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(_saved(_photo(), tmp_path / "photo.png").read_bytes())
    assert open_image(tmp_path / "photo.jpg").size == (9, 6)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    opened = np.asarray(open_image(_saved(Image.fromarray(_ramp()), tmp_path / f"ramp.{suffix}")))
    assert opened.mean() == pytest.approx(127.5, abs=1)
    assert (opened.min(), opened.max()) == (0, 255)


def test_a_float_image_is_spread_over_its_own_range(tmp_path: Path) -> None:
    ramp = _ramp().astype(np.float32) * 3 - 1000
    opened = np.asarray(open_image(_saved(Image.fromarray(ramp), tmp_path / "ramp.tif")))
    assert opened.mean() == pytest.approx(127.5, abs=1)


def test_values_that_are_no_numbers_are_dark_and_infinite_ones_are_bright() -> None:
    values = np.array([[0.0, 1.0, np.nan, np.inf, -np.inf]], dtype=np.float32)
    grey = np.asarray(as_rgb(Image.fromarray(values)))[0, :, 0]
    assert grey.tolist() == [0, 255, 0, 255, 0]


def test_a_constant_float_image_is_black_and_not_a_division_by_zero() -> None:
    assert not np.asarray(as_rgb(Image.fromarray(np.full((2, 2), 7.0, dtype=np.float32)))).any()


def test_32_bit_integers_within_16_bits_keep_their_scale() -> None:
    grey = np.asarray(as_rgb(Image.fromarray(np.array([[0, 257, 65535]], dtype=np.int32))))
    assert grey[0, :, 0].tolist() == [0, 1, 255]


def test_32_bit_integers_beyond_16_bits_are_spread_over_their_own_range() -> None:
    grey = np.asarray(as_rgb(Image.fromarray(np.array([[-1000, 0, 1000]], dtype=np.int32))))
    assert grey[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("pixel", "expected"),
    [((255, 0, 0, 255), (255, 0, 0)), ((255, 0, 0, 0), (255, 255, 255)), ((0, 0, 0, 51), (204, 204, 204))],
)
def test_transparency_is_composited_on_white(tmp_path: Path, pixel: tuple[int, ...], expected: tuple[int, ...]) -> None:
    opened = open_image(_saved(Image.new("RGBA", (2, 2), pixel), tmp_path / "alpha.png"))
    assert opened.getpixel((0, 0)) == expected


def test_a_transparent_colour_of_a_palette_is_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    opened = open_image(_saved(image, tmp_path / "palette.png", transparency=0))
    assert [opened.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (40, 50, 60)]


def test_a_transparent_grey_of_16_bits_is_white(tmp_path: Path) -> None:
    values = np.array([[0, 25700]], dtype=np.uint16)
    opened = open_image(_saved(Image.fromarray(values), tmp_path / "deep.png", transparency=0))
    assert [opened.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (100, 100, 100)]


def test_cmyk_follows_the_stated_rule(tmp_path: Path) -> None:
    opened = open_image(_saved(Image.new("CMYK", (1, 1), (10, 20, 250, 30)), tmp_path / "ink.tif"))
    wanted = [(255 - ink) * (255 - 30) / 255 for ink in (10, 20, 250)]
    np.testing.assert_allclose(opened.getpixel((0, 0)), wanted, atol=1)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "YCbCr", "LAB", "HSV", "RGBX"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = Image.new(mode, (3, 2)) if mode in ("LAB", "LA") else _photo(mode)
    assert as_rgb(image).mode == "RGB"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_cameras_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = _photo()
    back = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright if back is None else upright.transpose(back)
    opened = open_image(_saved(stored, tmp_path / "photo.png", exif=exif))
    np.testing.assert_array_equal(np.asarray(opened), np.asarray(upright))


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    path = _saved(first, tmp_path / "moving.gif", save_all=True, append_images=[second])
    assert open_image(path).getpixel((0, 0)) == (255, 0, 0)


def _png_header_of(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def test_too_many_pixels_are_refused_from_the_header(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(_png_header_of(60_000, 60_000) + b"\0\0\0\0IEND\xaeB`\x82")
    with pytest.raises(InputError, match=r"bomb\.png"):
        open_image(tmp_path / "bomb.png")
    _saved(Image.new("L", (100, 100)), tmp_path / "small.png")
    with pytest.raises(InputError, match=r"small\.png: 100 x 100 pixels, but 9,999 are allowed"):
        open_image(tmp_path / "small.png", pixel_limit=9_999)
    assert open_image(tmp_path / "small.png", pixel_limit=10_000).size == (100, 100)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html></html>", "not a readable"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a readable"),
        (b"\xff\xd8\xff", "not a readable"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(tmp_path: Path, content: bytes, cause: str) -> None:
    (tmp_path / "photo.jpg").write_bytes(content)
    with pytest.raises(InputError, match=cause) as caught:
        open_image(tmp_path / "photo.jpg")
    assert str(tmp_path / "photo.jpg") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "webp", "tif"])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = _saved(Image.fromarray(noise), tmp_path / f"photo.{suffix}").read_bytes()
    (tmp_path / f"half.{suffix}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=rf"half\.{suffix}: "):
        open_image(tmp_path / f"half.{suffix}")


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_image(tmp_path / "missing.png")
    with pytest.raises(InputError, match="is a folder"):
        open_image(tmp_path)


def test_a_path_that_no_system_has_is_refused() -> None:
    with pytest.raises(InputError, match="cannot be read"):
        open_image("a" * 5000)
    with pytest.raises(InputError, match="cannot be read"):
        open_image("zero\0byte")


def test_a_pipe_does_not_wait_for_ever(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    caught: list[BaseException] = []

    def attempt() -> None:
        try:
            open_image(tmp_path / "pipe.png")
        except InputError as error:
            caught.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(timeout=10)
    assert len(caught) == 1
    assert "pipe" in str(caught[0])


def test_a_device_is_refused() -> None:
    with pytest.raises(InputError, match="device"):
        open_image("/dev/zero")


def test_a_file_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _saved(_photo(), tmp_path / "secret.png")

    def refuse(*_: object, **__: object) -> io.BytesIO:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything, so the mode cannot be used
    with pytest.raises(InputError, match=r"secret\.png: no permission"):
        open_image(path)


def test_bytes_are_decoded_under_a_given_name(tmp_path: Path) -> None:
    content = _saved(_photo(), tmp_path / "photo.png").read_bytes()
    np.testing.assert_array_equal(np.asarray(decode_image(content, "row 7")), np.asarray(_photo()))
    with pytest.raises(InputError, match="row 7: the image is empty"):
        decode_image(b"", "row 7")


def test_a_folder_gives_its_images_sorted_and_no_hidden_ones(tmp_path: Path) -> None:
    names = ["b.JPG", "a.png", "inside/c.webp", "notes.txt", ".hidden.png", ".cache/d.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [str(path.relative_to(tmp_path)) for path in find_images([tmp_path])]
    assert found == ["a.png", "b.JPG", "inside/c.webp"]


def test_a_named_file_is_taken_whatever_it_is_called(tmp_path: Path) -> None:
    path = _saved(_photo(), tmp_path / "photo", format="PNG")
    assert find_images([path, path]) == (path, path)


def test_circles_of_links_end_and_traps_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    _saved(_photo(), folder / "real.png")
    (folder / "circle").symlink_to(folder)
    (folder / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "itself.png").symlink_to(folder / "itself.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    assert find_images([folder]) == (folder / "real.png",)


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="no image in this folder") as caught:
        find_images([tmp_path])
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        find_images([tmp_path / "missing"])


@pytest.mark.parametrize("name", ["naïve ü.png", "日本語.png", "🦈.png", "a b'c\".png", "-rf.png", "new\nline.png"])
def test_any_file_name_works(tmp_path: Path, name: str) -> None:
    path = _saved(_photo(), tmp_path / name)
    assert open_image(path).size == (9, 6)
    assert find_images([tmp_path]) == (path,)


def test_a_shown_path_is_one_line_and_keeps_other_scripts() -> None:
    assert shown("日本 ü") == "日本 ü"
    assert shown("new\nline\x1b[31m") == "new\\nline\\x1b[31m"
    assert shown(os.fsdecode(b"stray\xff")) == "stray\\udcff"


def test_warnings_are_as_before_after_many_threads_decoded(tmp_path: Path) -> None:
    path = _saved(_photo(), tmp_path / "photo.png")
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: open_image(path), range(200)))
    assert warnings.filters == before
    with pytest.raises(InputError), ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: decode_image(b"no image" * n, "row"), range(200)))
    assert warnings.filters == before


def test_the_content_of_a_file_is_read_within_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _saved(_photo(), tmp_path / "photo.png")
    assert read_content(path) == (path.read_bytes(), str(path))
    monkeypatch.setattr(images, "CONTENT_LIMIT", path.stat().st_size - 1)
    with pytest.raises(InputError, match=r"photo\.png: is larger than 0 MiB"):
        read_content(path)
    with pytest.raises(InputError, match="no such file"):
        read_content(tmp_path / "missing.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(InputError, match="the file is empty"):
        read_content(tmp_path / "empty.png")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_an_array_has_the_pixels_of_the_image(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(_ramp()) if mode == "I;16" else _photo("RGBA" if mode == "LA" else mode)
    data = _saved(image.convert(mode), tmp_path / "photo.png").read_bytes()
    array = decode_array(data, "photo")
    assert array.dtype == np.uint8 and array.flags.writeable
    np.testing.assert_array_equal(array, np.asarray(decode_image(data, "photo")))


def test_any_damage_to_a_file_is_either_read_or_named(tmp_path: Path) -> None:
    chance = random.Random(0)
    for suffix in ("jpg", "png", "gif", "bmp", "webp", "tif"):
        whole = bytearray(_saved(_photo(), tmp_path / f"photo.{suffix}").read_bytes())
        for _ in range(40):
            damaged = bytearray(whole)
            for _ in range(3):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            try:
                assert decode_image(bytes(damaged), "damaged").mode == "RGB"
            except InputError as error:
                assert "\n" not in str(error)
