"""What is written opens again, here and in the library whose format it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

import vitreous
from vitreous.checkpoints.convert import convert
from vitreous.checkpoints.saving import TARGETS, save
from vitreous.checkpoints.sources import load, open_model
from vitreous.data.preprocess import HALF_MEAN, HALF_STD, Preprocess
from vitreous.errors import CheckpointError, ConfigError, OutputError
from vitreous.model.vit import VisionTransformer

MakeModel = Callable[..., VisionTransformer]
PREPROCESS = Preprocess((16, 16), "squash", 1.0, "bilinear", HALF_MEAN, HALF_STD)
NAMES = ("zero", "one", "two", "three", "four")
GOOGLES = {"activation": "gelu-tanh"}  # what Google's code has a word for


def out(tmp_path: Path, to: str) -> Path:
    return tmp_path / ("written.npz" if to == "google" else "written")


def test_it_is_public() -> None:
    assert vitreous.convert is convert


@pytest.mark.parametrize("to", ["timm", "transformers", "google"])
@torch.no_grad()
def test_read_write_read_keeps_every_bit_and_what_belongs_to_it(
    tmp_path: Path, make_model: MakeModel, images: Tensor, to: str
) -> None:
    model = make_model(**(GOOGLES if to == "google" else {}))
    save(model, tmp_path / "m", preprocess=PREPROCESS, class_names=NAMES, provenance={"epochs": 3})
    done = convert(tmp_path / "m", out(tmp_path, to), to=to)
    assert done.remarks[0] == "read again: every weight has every bit"
    assert len(done.remarks) == (2 if to == "transformers" else 1)  # transformers resizes by torch, not by Pillow
    again = open_model(out(tmp_path, to))
    assert torch.equal(again.model(images), model(images))
    assert (again.preprocess, again.class_names, again.notes) == (PREPROCESS, NAMES, ())
    assert again.model.__dict__["provenance"]["saved"]["saved"] == {"epochs": 3}
    second = tmp_path / "second" / out(tmp_path, to).name
    convert(out(tmp_path, to), second, to=to)
    twice = load(second).state_dict()
    assert all(torch.equal(twice[name], weight) for name, weight in model.state_dict().items())


@torch.no_grad()
def test_transformers_opens_what_is_written_for_it(tmp_path: Path, make_model: MakeModel, images: Tensor) -> None:
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    model = make_model()
    save(model, tmp_path / "m", to="transformers", preprocess=PREPROCESS, class_names=NAMES)
    theirs = AutoModelForImageClassification.from_pretrained(tmp_path / "m").eval()
    torch.testing.assert_close(theirs(images).logits, model(images), atol=1e-5, rtol=0)
    assert tuple(theirs.config.id2label.values()) == NAMES
    assert type(theirs).__name__ == "ViTForImageClassification"
    processor = AutoImageProcessor.from_pretrained(tmp_path / "m")
    assert (processor.size["height"], tuple(processor.image_mean)) == (16, HALF_MEAN)


@torch.no_grad()
def test_googles_arrays_are_plain_numpy_and_timm_reads_them(tmp_path: Path, make_model: MakeModel) -> None:
    sizes = {"image_size": [32, 32], "patch_size": [16, 16], "width": 192}
    model = make_model(**sizes, **GOOGLES)
    save(model, tmp_path / "w.npz", to="google", preprocess=PREPROCESS)
    arrays = np.load(tmp_path / "w.npz", allow_pickle=False)
    assert arrays["embedding/kernel"].shape == (16, 16, 3, 192)
    theirs = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, depth=2, num_classes=5, act_layer="gelu_tanh", pretrained=False
    ).eval()
    theirs.load_pretrained(str(tmp_path / "w.npz"))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(theirs(images), model(images), atol=1e-5, rtol=0)


@pytest.mark.parametrize("source", ["timm:test_vit@random", "timm:vit_tiny_patch16_224@random"])
@torch.no_grad()
def test_a_librarys_module_becomes_our_own_model_with_the_same_logits(tmp_path: Path, source: str) -> None:
    theirs = open_model(source)
    done = convert(source, tmp_path / "m", to="timm")
    assert isinstance(done.written.model, VisionTransformer)
    again = open_model(tmp_path / "m")
    assert again.preprocess == theirs.preprocess
    size = again.model.__dict__["config"].image_size
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(again.model(images), theirs.model(images), atol=1e-4, rtol=0)


def test_a_module_that_is_no_vit_of_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not become a model of vitreous' own"):
        convert("torchvision:squeezenet1_1@random", tmp_path / "m", to="timm")
    assert not (tmp_path / "m").exists()


def test_what_a_format_has_no_word_for_is_refused_not_left_out(tmp_path: Path, make_model: MakeModel) -> None:
    save(make_model(registers=2, layer_scale=0.1, qk_norm=True), tmp_path / "m", preprocess=PREPROCESS)
    for to in ("transformers", "google"):
        with pytest.raises(ConfigError, match=r"registers?"):
            convert(tmp_path / "m", out(tmp_path, to), to=to)
        assert not out(tmp_path, to).exists()


def test_a_setting_may_be_changed_on_the_way(tmp_path: Path, make_model: MakeModel) -> None:
    save(make_model(), tmp_path / "m", preprocess=PREPROCESS)
    with pytest.raises(ConfigError, match="gelu-tanh"):
        convert(tmp_path / "m", tmp_path / "w.npz", to="google")
    convert(tmp_path / "m", tmp_path / "w.npz", to="google", activation="gelu-tanh")
    assert load(tmp_path / "w.npz").__dict__["config"].activation == "gelu-tanh"


def test_an_unknown_format_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="choose timm, transformers, google, onnx"):
        convert(tmp_path / "not-there", tmp_path / "m", to="tensorflow")
    assert list(TARGETS) == ["timm", "transformers", "google", "onnx"]


def test_weights_that_do_not_come_back_are_an_error(
    tmp_path: Path, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(make_model(), tmp_path / "m", preprocess=PREPROCESS)

    def lossy(model: VisionTransformer, *rest: Any) -> None:
        with torch.no_grad():
            model.head.bias += 1  # type: ignore[union-attr, operator]
        TARGETS["timm"](model, *rest)
        with torch.no_grad():
            model.head.bias -= 1  # type: ignore[union-attr, operator]

    monkeypatch.setitem(TARGETS, "google", lossy)
    with pytest.raises(OutputError, match=r"head.bias would not come back"):
        convert(tmp_path / "m", tmp_path / "out", to="google")


def test_the_same_model_is_the_same_file_on_any_day(tmp_path: Path, make_model: MakeModel) -> None:
    for name in ("a.npz", "b.npz"):
        save(make_model(**GOOGLES), tmp_path / name, to="google", preprocess=PREPROCESS)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_class_names_that_find_no_room_in_googles_file_are_named(tmp_path: Path, make_model: MakeModel) -> None:
    names = tuple(f"{number} {'x' * 20_000}" for number in range(5))
    remarks = save(make_model(**GOOGLES), tmp_path / "w.npz", to="google", preprocess=PREPROCESS, class_names=names)
    assert remarks == ("class names left out: an .npz file has room for 65,535 bytes",)
    opened = open_model(tmp_path / "w.npz")
    assert (opened.class_names, opened.preprocess) == ((), PREPROCESS)


def test_numpy_and_googles_loader_see_nothing_but_parameters(tmp_path: Path, make_model: MakeModel) -> None:
    save(make_model(**GOOGLES), tmp_path / "w.npz", to="google", preprocess=PREPROCESS, class_names=NAMES)
    names = np.load(tmp_path / "w.npz").files
    assert len(names) == 8 + 2 * 16 and not [name for name in names if "vitreous" in name]


def test_weights_that_are_no_numbers_come_back_too(tmp_path: Path, make_model: MakeModel) -> None:
    model = make_model(**GOOGLES)
    with torch.no_grad():
        model.head.bias[1] = torch.nan  # type: ignore[union-attr, index]
    save(model, tmp_path / "m", preprocess=PREPROCESS)
    for to in ("timm", "transformers", "google"):
        convert(tmp_path / "m", out(tmp_path / to, to), to=to)
        bias = load(out(tmp_path / to, to)).state_dict()["head.bias"]
        assert bias.isnan().tolist() == [False, True, False, False, False]


def test_a_conversion_that_fails_leaves_what_was_there(
    tmp_path: Path, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(make_model(), tmp_path / "m", preprocess=PREPROCESS)
    (tmp_path / "w.npz").write_bytes(b"precious")
    monkeypatch.setattr("vitreous.checkpoints.convert._is_same", lambda *_: False)
    with pytest.raises(OutputError, match=r"w.npz is not written"):
        convert(tmp_path / "m", tmp_path / "w.npz", to="google", activation="gelu-tanh")
    assert (tmp_path / "w.npz").read_bytes() == b"precious"


@pytest.mark.parametrize(
    "changes", [{"image_size": [16, 32]}, {"positions": "none", "image_size": [24, 24]}, {"norm_after_pooling": True}]
)
@torch.no_grad()
def test_googles_file_keeps_what_its_names_do_not_tell(
    tmp_path: Path, make_model: MakeModel, changes: dict[str, Any]
) -> None:
    model = make_model(**changes, **GOOGLES, dropout=0.25, resampling="dino")
    save(model, tmp_path / "m", preprocess=PREPROCESS)
    convert(tmp_path / "m", tmp_path / "w.npz", to="google")
    again = load(tmp_path / "w.npz")
    config = again.__dict__["config"]
    assert (config.image_size, config.dropout, config.resampling) == (model.config.image_size, 0.25, "dino")
    images = torch.randn(2, 3, *config.image_size, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(again(images), model(images), atol=1e-6, rtol=0)


def test_what_is_asked_of_a_librarys_images_is_done(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"preprocess.mean": (0.1, 0.2, 0.3)}
    convert("timm:test_vit@random", tmp_path / "m", to="timm", **settings)
    opened = open_model(tmp_path / "m")
    assert opened.preprocess.mean == (0.1, 0.2, 0.3)
    assert opened.preprocess.std == open_model("timm:test_vit@random").preprocess.std


def test_the_history_of_a_model_does_not_grow_without_end(tmp_path: Path, make_model: MakeModel) -> None:
    save(make_model(), tmp_path / "0", preprocess=PREPROCESS, provenance={"epochs": 3})
    sizes = []
    for turn in range(8):
        save(load(tmp_path / str(turn)), tmp_path / str(turn + 1))
        sizes.append((tmp_path / str(turn + 1) / "config.json").stat().st_size)
    assert sizes[-1] - sizes[-2] < 20
    saved = open_model(tmp_path / "8").model.__dict__["provenance"]["saved"]
    assert saved["source"] == "7"  # a name, not a place on somebody's disk
    while "saved" in saved:
        saved = saved["saved"]
    assert saved == {"epochs": 3}


@pytest.mark.parametrize("to", ["timm", "transformers", "google"])
def test_a_model_that_is_not_what_its_config_says_is_not_written(
    tmp_path: Path, make_model: MakeModel, to: str
) -> None:
    model = make_model(**GOOGLES)
    model.head = torch.nn.Linear(24, 9)
    with pytest.raises(ConfigError, match=r"what its config says: head.weight has \(9, 24\), want \(5, 24\)"):
        save(model, out(tmp_path, to), to=to)
    with torch.device("meta"):
        shell = VisionTransformer(model.config)
    with pytest.raises(ConfigError, match="on the meta device"):
        save(shell, out(tmp_path, to), to=to)
    assert not out(tmp_path, to).exists()


@torch.no_grad()
def test_a_part_that_two_blocks_share_is_written_twice(tmp_path: Path, make_model: MakeModel, images: Tensor) -> None:
    model = make_model()
    model.blocks[1].mlp = model.blocks[0].mlp
    save(model, tmp_path / "m", preprocess=PREPROCESS)
    assert torch.equal(load(tmp_path / "m")(images), model(images))


@pytest.mark.parametrize("to", list(TARGETS))
def test_what_is_written_may_be_read_by_whoever_may_read_other_files(
    tmp_path: Path, make_model: MakeModel, to: str
) -> None:
    (tmp_path / "any").touch()
    save(make_model(**(GOOGLES if to == "google" else {})), out(tmp_path, to), to=to, preprocess=PREPROCESS)
    written = [path for path in (out(tmp_path, to), *out(tmp_path, to).rglob("*")) if path.is_file()]
    assert written and {path.stat().st_mode for path in written} == {(tmp_path / "any").stat().st_mode}
