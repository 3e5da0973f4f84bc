from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitreous.data import images, jpeg
from vitreous.data.images import decode_array, decode_image, open_image
from vitreous.errors import InputError

pytest.importorskip("simplejpeg")


def saved(mode: str = "RGB", **options: object) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (17, 23, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(content, "JPEG", **options)
    return content.getvalue()


def pixels_or_cause(data: bytes) -> np.ndarray | str:
    try:
        return np.asarray(decode_image(data, "photo"))
    except InputError as error:
        return str(error)


def check_that_both_agree(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = pixels_or_cause(data)
    with monkeypatch.context() as without:
        without.setattr(images, "jpeg_pixels", lambda file, image: None)
        pillows = pixels_or_cause(data)
    np.testing.assert_array_equal(fast, pillows)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Of each JPEG, whether simplejpeg decoded it."""
    seen: list[bool] = []

    def watched(file: io.BytesIO, image: Image.Image) -> np.ndarray | None:
        pixels = jpeg.jpeg_pixels(file, image)
        seen.append(pixels is not None)
        return pixels

    monkeypatch.setattr(images, "jpeg_pixels", watched)
    return seen


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_a_jpeg_has_pillows_pixels(
    mode: str, progressive: bool, subsampling: int, monkeypatch: pytest.MonkeyPatch, decoded: list[bool]
) -> None:
    data = saved(mode, progressive=progressive, subsampling=subsampling, quality=80)
    wanted = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(np.asarray(decode_image(data, "photo")), wanted)
    np.testing.assert_array_equal(decode_array(data, "photo"), wanted)
    assert decoded == [True, True]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_cameras_orientation_is_applied_once(orientation: int, decoded: list[bool], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(exif=exif)
    (tmp_path / "photo.jpg").write_bytes(data)
    from PIL import ImageOps

    wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(decode_array(data, "photo"), wanted)
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "photo.jpg")), wanted)
    assert decoded == [True, True]


def test_inks_are_left_to_pillow(decoded: list[bool]) -> None:
    decode_image(saved("CMYK"), "photo")
    assert decoded == [False]


def test_a_file_too_large_to_take_at_once_is_left_to_pillow(
    monkeypatch: pytest.MonkeyPatch, decoded: list[bool]
) -> None:
    data = saved()
    monkeypatch.setattr(jpeg, "FILE_LIMIT", len(data) - 1)
    with_limit = decode_array(data, "photo")
    monkeypatch.setattr(jpeg, "FILE_LIMIT", len(data))
    np.testing.assert_array_equal(decode_array(data, "photo"), with_limit)
    assert decoded == [False, True]


def test_without_simplejpeg_pillow_decodes(monkeypatch: pytest.MonkeyPatch, decoded: list[bool]) -> None:
    wanted = decode_array(saved(), "photo")
    monkeypatch.setattr(jpeg, "_simplejpeg", lambda: None)
    np.testing.assert_array_equal(decode_array(saved(), "photo"), wanted)
    assert decoded == [True, False]


def test_damaged_jpegs_get_the_same_verdict_and_pixels_from_both(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(0)
    for number in range(150):
        whole = saved("L" if number % 3 == 0 else "RGB", progressive=bool(number % 2), quality=chance.choice((30, 95)))
        damaged = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        if number % 5 == 0:
            del damaged[chance.randrange(2, len(damaged)) :]
        check_that_both_agree(bytes(damaged), monkeypatch)


def test_a_progressive_jpeg_that_asks_for_endless_passes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(progressive=True)
    usual = data.count(b"\xff\xda")
    assert 5 < usual <= 10 and jpeg.scans(io.BytesIO(data)) == usual
    last = data[data.rfind(b"\xff\xda") : -2]

    def with_scans(number: int) -> bytes:
        return data[:-2] + last * (number - usual) + data[-2:]

    np.testing.assert_array_equal(decode_array(with_scans(jpeg.SCANS), "photo").shape, (17, 23, 3))
    for fast in (True, False):
        if not fast:
            monkeypatch.setattr(images, "jpeg_pixels", lambda file, image: None)
        with pytest.raises(InputError, match="photo: a JPEG of 101 scans, but 100 are allowed; save it again"):
            decode_image(with_scans(jpeg.SCANS + 1), "photo")


def test_scans_are_counted_across_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"x\xff\xda\xff\xda\xffy\xda\xff\xda"
    for piece in range(1, len(data) + 1):
        monkeypatch.setattr(jpeg, "_PIECE", piece)
        file = io.BytesIO(data)
        file.seek(4)
        assert (jpeg.scans(file), file.tell()) == (3, 4)


def test_every_odd_jpeg_gets_the_same_verdict_and_pixels_from_both(monkeypatch: pytest.MonkeyPatch) -> None:
    beside = (folder / "shared" / "data" / "odd-images" for folder in Path(__file__).resolve().parents)
    folder = next((folder for folder in beside if folder.is_dir()), None)
    if folder is None:
        pytest.skip("needs shared/data/odd-images beside the checkout")
    seen = 0
    with tarfile.open(folder / "odd-images.tar.gz") as archive:
        for member in archive:
            data = archive.extractfile(member).read() if member.isfile() else b""
            if data[:2] == b"\xff\xd8":
                seen += 1
                check_that_both_agree(data, monkeypatch)
    assert seen > 200
