from __future__ import annotations

import io
import tarfile

import pytest
import torch
from PIL import Image

from vitreous.checkpoints.containers.foreign import name_of_foreign


def image(kind: str) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (8, 8)).save(written, kind)
    return written.getvalue()


@pytest.mark.parametrize(("kind", "name"), [("PNG", "a PNG"), ("JPEG", "a JPEG"), ("GIF", "a GIF"), ("WEBP", "a WebP")])
def test_images_are_told_apart(kind: str, name: str) -> None:
    assert str(name_of_foreign(image(kind)[:512])).startswith(name)


def test_a_tar_archive_and_texts_are_known() -> None:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("x"))
    assert str(name_of_foreign(written.getvalue()[:512])).startswith("a tar archive; unpack it")
    assert str(name_of_foreign(b"\xef\xbb\xbf \n<html>")).startswith("an HTML")
    assert str(name_of_foreign(b' {"weight_map": {}}')).startswith("a JSON")


def test_each_says_what_to_do() -> None:
    from vitreous.checkpoints.containers.foreign import _STARTS

    assert all("; " in name for _, name in _STARTS)


def test_numbers_are_not_taken_for_a_text() -> None:
    assert name_of_foreign(b"<\0\0\0\0\0\0\0[") is None  # the length of a damaged safetensors header
    assert name_of_foreign(torch.arange(64.0).numpy().tobytes()) is None
    assert name_of_foreign(b"") is None
