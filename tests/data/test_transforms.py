from __future__ import annotations

import io
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from vitreous.data.gather import gather_pictures
from vitreous.data.images import Encoded
from vitreous.data.inputs import open_inputs, thumbnails
from vitreous.data.preprocess import HALF_MEAN, HALF_STD, INTERPOLATIONS, Preprocess
from vitreous.data.transforms import decode_pixels, normalise, to_pixels, to_tensor, undo
from vitreous.errors import InputError, ShapeError


def _photo(image_width: int, image_height: int) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (image_height, image_width, 3), dtype=np.uint8)
    return Image.fromarray(values)


SIZES = [(50, 37), (37, 50), (61, 61), (24, 24), (25, 24), (31, 100), (300, 24), (7, 5), (1, 1), (1, 40)]
REFERENCES = Path(__file__).parents[1] / "references"
TIMMS_MODES = {"crop": "center", "squash": "squash", "squash-crop": "squash", "border": "border"}


@pytest.mark.parametrize("interpolation", INTERPOLATIONS["pillow"])
@pytest.mark.parametrize(
    ("image_size", "fraction", "resize"),
    [
        ((24, 24), 0.875, "crop"),
        ((24, 24), 1.0, "crop"),
        ((23, 23), 0.9, "crop"),
        ((24, 32), 0.95, "crop"),
        ((32, 17), 0.875, "crop"),
        ((24, 24), 1.0, "squash"),
        ((20, 31), 1.0, "squash"),
        ((24, 24), 0.875, "squash-crop"),
        ((20, 31), 0.7, "squash-crop"),
        ((24, 24), 1.0, "border"),
        ((23, 23), 0.9, "border"),
        ((20, 31), 0.8, "border"),
    ],
)
def test_tensors_are_timms_bit_for_bit(
    image_size: tuple[int, int], fraction: float, resize: str, interpolation: str
) -> None:
    timm_data = pytest.importorskip("timm.data")
    preprocess = Preprocess(image_size, resize, fraction, interpolation)
    theirs = timm_data.create_transform(
        input_size=(3, *image_size),
        interpolation=interpolation,
        mean=preprocess.mean,
        std=preprocess.std,
        crop_pct=fraction,
        crop_mode=TIMMS_MODES[resize],
    )
    for size in SIZES:
        if resize == "border" and max(size) > 30 * min(size):
            continue  # the shorter side becomes 0 pixels, which timm does not take
        image = _photo(*size)
        tensor = to_tensor(image, preprocess)
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, theirs(image)), size


def test_a_border_leaves_at_least_a_pixel_of_a_very_long_picture() -> None:
    white = to_pixels(Image.new("RGB", (100, 1), "white"), Preprocess((10, 10), "border", 1.0, mean=(0, 0, 0)))
    assert white.float().mean(0).eq(255).sum(1).tolist() == [0, 0, 0, 0, 10, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("interpolation", INTERPOLATIONS["torch"])
def test_torchs_pixels_are_torchvisions_bit_for_bit(interpolation: str) -> None:
    mode = v2.InterpolationMode("nearest-exact" if interpolation == "nearest" else interpolation)
    theirs = v2.Compose([v2.ToImage(), v2.Resize((24, 29), mode, antialias=True)])
    in_floats = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Resize((24, 29), mode)])
    for size in [*SIZES, (29, 24)]:
        image = _photo(*size)
        preprocess = Preprocess((24, 29), "squash", 1.0, interpolation, resampler="torch")
        assert torch.equal(to_pixels(image, preprocess), theirs(image)), size
        floats = to_pixels(image, replace(preprocess, resampler="torch-float"))
        assert floats.dtype == torch.float32
        assert (floats - in_floats(image)).abs().max() < 1e-6, size


@pytest.mark.parametrize("size", [(17, 31), (50, 40)])
@pytest.mark.parametrize("target", [(24, 24), (64, 64)])
def test_tensorflows_pixels_are_tensorflows_bit_for_bit(size: tuple[int, int], target: tuple[int, int]) -> None:
    theirs = torch.from_numpy(_stored(size, target)).permute(2, 0, 1)
    image = Image.fromarray(_drawn(size))
    preprocess = Preprocess(target, "squash", 1.0, "bilinear", HALF_MEAN, HALF_STD, "tensorflow")
    assert torch.equal(to_pixels(image, preprocess), theirs / 255)
    assert (to_tensor(image, preprocess) - (theirs - 127.5) / 127.5).abs().max() < 3e-7  # vit_jax/input_pipeline.py
    cut = to_pixels(image, replace(preprocess, resampler="tensorflow-bytes"))
    assert torch.equal(cut, theirs.to(torch.uint8))  # tf.cast, as numpy's astype, cuts


@pytest.mark.parametrize("size", SIZES)
def test_tensorflows_pixels_follow_the_formula(size: tuple[int, int]) -> None:
    image = _photo(*size)
    old, new = np.asarray(image).astype(np.float64), (9, 14)
    expected = np.zeros((3, *new))
    for row in range(new[0]):
        for column in range(new[1]):
            y = (row + 0.5) * old.shape[0] / new[0] - 0.5
            x = (column + 0.5) * old.shape[1] / new[1] - 0.5
            for at_row, of_row in ((np.floor(y), 1 - y % 1), (np.floor(y) + 1, y % 1)):
                for at_column, of_column in ((np.floor(x), 1 - x % 1), (np.floor(x) + 1, x % 1)):
                    inside = int(at_row.clip(0, old.shape[0] - 1)), int(at_column.clip(0, old.shape[1] - 1))
                    expected[:, row, column] += of_row * of_column * old[inside]
    preprocess = Preprocess(new, "squash", 1.0, "bilinear", resampler="tensorflow")
    np.testing.assert_allclose(to_pixels(image, preprocess).double() * 255, expected, atol=0.01)


def test_photographs_are_prepared_as_timm_and_torchvision_do() -> None:
    timm_data = pytest.importorskip("timm.data")
    for path in _photographs():
        image = Image.open(path).convert("RGB")
        for resize, fraction in (("crop", 0.875), ("squash", 1.0), ("border", 0.9)):
            preprocess = Preprocess((224, 224), resize, fraction)
            theirs = timm_data.create_transform(
                (3, 224, 224), interpolation="bicubic", crop_pct=fraction, crop_mode=TIMMS_MODES[resize]
            )
            assert torch.equal(to_tensor(image, preprocess), theirs(image)), path
        resized = v2.Compose([v2.ToImage(), v2.Resize((224, 224), v2.InterpolationMode.BICUBIC)])(image)
        assert torch.equal(to_pixels(image, Preprocess((224, 224), "squash", 1.0, resampler="torch")), resized), path


@pytest.mark.parametrize("resampler", ["pillow", "torch", "torch-float", "tensorflow", "tensorflow-bytes"])
def test_a_picture_of_the_right_size_keeps_its_colours_whoever_resizes(resampler: Any) -> None:
    image = _photo(20, 12)
    for resize in ("squash", "crop", "border", "cut", "none"):
        preprocess = Preprocess((12, 20), resize, 1.0, "bilinear", resampler=resampler)
        pixels = to_pixels(image, preprocess)
        assert pixels.dtype == (torch.uint8 if preprocess.has_bytes else torch.float32)
        np.testing.assert_array_equal(undo(to_tensor(image, preprocess), preprocess).numpy(), np.asarray(image))


def test_a_picture_that_is_not_resized_must_fit_or_is_cut() -> None:
    image = _photo(21, 12)
    with pytest.raises(InputError, match="12 x 21 pixels, but 12 x 20 are expected"):
        to_pixels(image, Preprocess((12, 20), "none", 1.0))
    cut = to_pixels(image, Preprocess((15, 18), "cut", 1.0))
    assert cut[:, [0, 13, 14]].eq(0).all()  # 15 - 12 is odd: torchvision leaves one row above and two below
    np.testing.assert_array_equal(cut[:, 1:13].permute(1, 2, 0).numpy(), np.asarray(image)[:, 2:20])  # 1.5 is 2


def test_pictures_that_are_not_rounded_reach_the_model_and_the_thumbnails(tmp_path: Path) -> None:
    for index in range(3):
        _photo(9 + index, 7).save(tmp_path / f"{index}.png")
    preprocess = Preprocess((4, 6), "squash", 1.0, "bilinear", HALF_MEAN, HALF_STD, "tensorflow")
    inputs = open_inputs(gather_pictures(tmp_path), preprocess, ())
    with inputs.loaded([range(3)], 0, torch.device("cpu"), 1) as batches:
        given = inputs.of_batch(next(batches), torch.device("cpu"))
    expected = [to_tensor(_photo(9 + index, 7), preprocess) for index in range(3)]
    assert torch.equal(given, torch.stack(expected))
    shares = (thumbnails(given, preprocess).movedim(-1, 1) / 255 - (given + 1) / 2).abs().max()
    assert shares < 0.5 / 255 + 1e-6


def test_an_image_of_the_right_size_is_left_as_it_is() -> None:
    image = _photo(20, 12)
    for resize in ("crop", "squash"):
        pixels = to_pixels(image, Preprocess((12, 20), resize, 1.0))
        np.testing.assert_array_equal(pixels.permute(1, 2, 0).numpy(), np.asarray(image))


def test_undo_gives_back_every_colour() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).expand(3, 16, 16)
    for preprocess in (Preprocess(), Preprocess(mean=HALF_MEAN, std=HALF_STD)):
        assert torch.equal(undo(normalise(levels, preprocess), preprocess), levels.permute(1, 2, 0))


def test_undo_takes_any_leading_axes_and_clips_what_is_no_colour() -> None:
    preprocess = Preprocess(mean=HALF_MEAN, std=HALF_STD)
    tensor = torch.full((2, 5, 3, 4, 6), 9.0)
    tensor[0] = -9.0
    undone = undo(tensor, preprocess)
    assert undone.shape == (2, 5, 4, 6, 3)
    assert undone.dtype == torch.uint8
    assert undone[0].eq(0).all() and undone[1].eq(255).all()


def test_bytes_and_shares_of_one_are_the_same_pixels() -> None:
    pixels = torch.arange(48, dtype=torch.uint8).reshape(3, 4, 4)
    assert torch.equal(normalise(pixels, Preprocess()), normalise(pixels.float() / 255, Preprocess()))


def test_grey_and_16_bit_pictures_are_converted_first() -> None:
    preprocess = Preprocess((4, 4), "squash", 1.0, mean=(0, 0, 0), std=(1, 1, 1))
    deep = Image.fromarray(np.full((4, 4), 65535, dtype=np.uint16))
    assert to_tensor(deep, preprocess).eq(1).all()
    assert to_tensor(Image.new("L", (9, 9), 51), preprocess).sub(0.2).abs().max() < 1e-7


@pytest.mark.parametrize("size", [(1, 31237), (31237, 1), (3, 1000)])
def test_a_very_long_picture_takes_no_more_memory_than_others(size: tuple[int, int]) -> None:
    assert to_tensor(Image.new("RGB", size), Preprocess((224, 224))).shape == (3, 224, 224)


def test_a_tensor_without_three_channels_is_refused() -> None:
    with pytest.raises(ShapeError, match="3, image_height"):
        undo(torch.zeros(4, 4, 3), Preprocess())
    with pytest.raises(ShapeError, match="3, image_height"):
        normalise(torch.zeros(1, 4, 4), Preprocess())


def _drawn(size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """The image that tensorflow was given: (*size, 3) uint8."""
    drawn = runpy.run_path(str(REFERENCES / "drawn.py"))["draw_pixels"](*size)
    assert isinstance(drawn, np.ndarray)
    return drawn


def _stored(size: tuple[int, int], target: tuple[int, int]) -> np.ndarray[Any, Any]:
    """What tf.image.resize made of `_drawn(size)`: (*target, 3) float32 from 0 to 255."""
    name = f"{size[0]}x{size[1]}-to-{target[0]}x{target[1]}/plain"
    with np.load(REFERENCES / "tf_resize.npz") as stored:
        return np.asarray(stored[name])


def _photographs() -> list[Path]:
    for folder in Path(__file__).resolve().parents:
        if (folder / "shared" / "data" / "imagenet-sample").is_dir():
            return sorted((folder / "shared" / "data" / "imagenet-sample").iterdir())[:120:20]
    pytest.skip("needs shared/data/imagenet-sample beside the checkout")


@pytest.mark.parametrize("resampler", INTERPOLATIONS)
@pytest.mark.parametrize("resize", ["squash", "crop", "squash-crop", "border", "cut", "none"])
def test_a_file_becomes_the_pixels_of_its_picture_on_a_shorter_way(resampler: str, resize: str) -> None:
    fraction = 0.875 if resize in ("crop", "squash-crop", "border") else 1.0
    preprocess = Preprocess((24, 32), resize, fraction, "bilinear", resampler=resampler)
    for image_width, image_height in [*SIZES, (32, 24), (2000, 3), (3, 2000)]:
        picture, content = _photo(image_width, image_height), io.BytesIO()
        picture.save(content, "PNG")
        try:
            wanted = to_pixels(picture, preprocess)
        except InputError as error:
            with pytest.raises(InputError, match="resize it first") as caught:
                decode_pixels(Encoded(content.getvalue(), "photo"), preprocess)
            assert str(caught.value) == str(error)
            continue
        made = decode_pixels(Encoded(content.getvalue(), "photo"), preprocess)
        assert torch.equal(made, wanted) and made.is_contiguous() and wanted.is_contiguous()
