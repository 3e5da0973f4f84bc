from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from vitreous.checkpoints.asked import Asked
from vitreous.checkpoints.folder import write_folder
from vitreous.checkpoints.loaded import LoadedModel
from vitreous.checkpoints.opening import open_path
from vitreous.checkpoints.saving import save
from vitreous.data.preprocess import HALF_MEAN, HALF_STD, Preprocess
from vitreous.errors import CheckpointError, ConfigError, InputError, OutputError
from vitreous.model.vit import VisionTransformer

MakeModel = Callable[..., VisionTransformer]
PREPROCESS = Preprocess((16, 16), "squash", 1.0, "bilinear", HALF_MEAN, HALF_STD)
NAMES = ["zero", "one", "two", "three", "four"]

ARCHITECTURES: list[dict[str, Any]] = [
    {},
    {"registers": 2, "layer_scale": 0.1, "mlp_ratio": 2.3},
    {"pooling": "mean", "class_token": False},
    {"pooling": "mean", "norm_after_pooling": False, "positions": "none", "qkv_bias": False},
    {"patch_size": [8, 4], "width": 192, "norm_after_pooling": True, "dropout": 0.1, "drop_path": 0.2},
    {"classes": 0},
]
CNN: dict[str, Any] = {
    "stem": [1], "stem_width": 8, "stem_root": "small", "depth": 0, "class_token": False, "positions": "none",
    "pooling": "mean",
}  # fmt: skip
NEW_POSITIONS: list[dict[str, Any]] = [
    {"positions_at": "layers"},
    {"positions_at": "layers-shared"},
    {"positions_at": "layers", "positions": "learned-2d"},
]
ONLY_OURS = [{"hidden_head": True}, {"patch_bias": False}, {"norm_eps": 1e-5}, CNN, *NEW_POSITIONS]


def read_folder(folder: Path, weights: Path | None = None) -> LoadedModel:
    return open_path(weights or folder, Asked())


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def saved(tmp_path: Path, make_model: MakeModel) -> Path:
    write_folder(make_model(), tmp_path / "m", PREPROCESS, NAMES)
    return tmp_path / "m"


@pytest.mark.parametrize("changes", ARCHITECTURES + ONLY_OURS)
def test_what_is_saved_is_what_is_loaded(
    tmp_path: Path, make_model: MakeModel, images: Tensor, changes: dict[str, Any]
) -> None:
    model = make_model(**changes)
    names = NAMES[: model.config.classes]
    write_folder(model, tmp_path / "m", PREPROCESS, names, {"epochs": 3})
    opened = read_folder(tmp_path / "m")
    assert isinstance(opened.model, VisionTransformer)
    assert opened.model.config == model.config
    assert opened.preprocess == PREPROCESS
    assert (opened.class_names, opened.kind, opened.notes) == (tuple(names), "vitreous", ())
    assert opened.model.provenance["saved"] == {"epochs": 3}
    assert not opened.model.training
    assert torch.equal(opened.model(images), model(images))


@pytest.mark.parametrize("changes", [CNN, *NEW_POSITIONS])
def test_what_timm_would_compute_otherwise_it_does_not_open(
    tmp_path: Path, make_model: MakeModel, changes: dict[str, Any]
) -> None:
    write_folder(make_model(**changes), tmp_path / "m", PREPROCESS)
    with pytest.raises((RuntimeError, AttributeError)):
        timm.create_model(f"local-dir:{tmp_path / 'm'}", pretrained=True)


@pytest.mark.parametrize("changes", ARCHITECTURES)
@torch.no_grad()
def test_timm_opens_it_with_the_same_logits(
    tmp_path: Path, make_model: MakeModel, images: Tensor, changes: dict[str, Any]
) -> None:
    model = make_model(**changes)
    write_folder(model, tmp_path / "m", PREPROCESS, NAMES[: model.config.classes])
    theirs = timm.create_model(f"local-dir:{tmp_path / 'm'}", pretrained=True).eval()
    torch.testing.assert_close(theirs(images), model(images), atol=1e-5, rtol=0)
    data = timm.data.resolve_model_data_config(theirs)
    assert (data["input_size"], data["crop_mode"], data["crop_pct"]) == ((3, 16, 16), "squash", 1.0)
    assert (data["interpolation"], *data["mean"], *data["std"]) == ("bilinear", *HALF_MEAN, *HALF_STD)


@pytest.mark.parametrize("changes", ARCHITECTURES[:4])
@torch.no_grad()
def test_transformers_opens_it_with_the_same_logits_and_names(
    tmp_path: Path, make_model: MakeModel, images: Tensor, changes: dict[str, Any]
) -> None:
    from transformers import AutoModelForImageClassification

    model = make_model(**changes)
    write_folder(model, tmp_path / "m", PREPROCESS, NAMES)
    theirs = AutoModelForImageClassification.from_pretrained(tmp_path / "m").eval()
    torch.testing.assert_close(theirs(images).logits, model(images), atol=1e-5, rtol=0)
    assert list(theirs.config.id2label.values()) == NAMES


@pytest.mark.parametrize("changes", ARCHITECTURES)
@torch.no_grad()
def test_a_folder_that_timm_wrote_is_opened(
    tmp_path: Path, make_model: MakeModel, images: Tensor, changes: dict[str, Any]
) -> None:
    write_folder(make_model(**changes), tmp_path / "m", PREPROCESS)
    theirs = timm.create_model(f"local-dir:{tmp_path / 'm'}", pretrained=True).eval()
    timm.models.save_for_hf(theirs, str(tmp_path / "timms"), safe_serialization=True)
    opened = read_folder(tmp_path / "timms")
    assert (opened.kind, opened.notes) == ("timm folder", ())
    assert opened.preprocess == PREPROCESS
    torch.testing.assert_close(opened.model(images), theirs(images), atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_timm_table_without_prefix_rows_is_filled_with_zeros(tmp_path: Path, images: Tensor) -> None:
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3}
    theirs = timm.create_model(
        "vit_small_patch16_224", num_classes=5, no_embed_class=True, reg_tokens=2, **sizes
    ).eval()
    timm.models.save_for_hf(theirs, str(tmp_path / "t"), safe_serialization=True)
    opened = read_folder(tmp_path / "t")
    torch.testing.assert_close(opened.model(images), theirs(images), atol=1e-5, rtol=0)
    decisions = opened.model.__dict__["provenance"]["decisions"]
    assert "adding 0 is exact" in {d["setting"]: d["reason"] for d in decisions}["positions of the prefix"]


@torch.no_grad()
def test_a_timm_name_alone_tells_the_heads(tmp_path: Path) -> None:
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=3).eval()
    timm.models.save_for_hf(theirs, str(tmp_path / "t"), safe_serialization=True)
    edit_config(tmp_path / "t", model_args={})
    opened = read_folder(tmp_path / "t")
    assert isinstance(opened.model, VisionTransformer) and opened.model.config.heads == 3
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(opened.model(images), theirs(images), atol=1e-5, rtol=0)


def test_the_class_count_is_not_among_timms_arguments(saved: Path) -> None:
    described = json.loads((saved / "config.json").read_text())
    assert "num_classes" not in described["model_args"]
    assert described["num_classes"] == 5


def test_the_weights_say_that_they_are_torchs(saved: Path) -> None:
    with safe_open(saved / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_the_card_has_front_matter_and_the_sizes(saved: Path, make_model: MakeModel, tmp_path: Path) -> None:
    card = (saved / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: timm\n") and "local-dir" in card
    assert f"{make_model().config.parameters:,}" in card
    write_folder(make_model(hidden_head=True), tmp_path / "h", PREPROCESS)
    card = (tmp_path / "h" / "README.md").read_text()
    assert "local-dir" not in card and "no word for the hidden layer" in card


def test_saving_again_replaces_the_model(saved: Path, make_model: MakeModel, images: Tensor) -> None:
    other = make_model(depth=1)
    write_folder(other, saved, PREPROCESS)
    assert torch.equal(read_folder(saved).model(images), other(images))
    assert [entry.name for entry in saved.parent.iterdir()] == ["m"]


def test_half_precision_is_kept_on_disk_and_widened_when_loaded(tmp_path: Path, make_model: MakeModel) -> None:
    write_folder(make_model().half(), tmp_path / "m", PREPROCESS)
    assert load_file(tmp_path / "m" / "model.safetensors")["head.bias"].dtype == torch.float16
    assert next(read_folder(tmp_path / "m").model.parameters()).dtype == torch.float32


def test_a_failed_save_leaves_the_model_as_it_was(saved: Path, make_model: MakeModel) -> None:
    before = (saved / "model.safetensors").read_bytes()
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, was[1]))  # as if the disk were full
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            write_folder(make_model(depth=1), saved, PREPROCESS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    assert (saved / "model.safetensors").read_bytes() == before
    assert [entry.name for entry in saved.parent.iterdir()] == ["m"]


def test_a_run_folders_model_is_named_after_the_run(tmp_path: Path, make_model: MakeModel) -> None:
    write_folder(make_model(), tmp_path / "run7" / "model", PREPROCESS)
    assert read_folder(tmp_path / "run7" / "model").name == "run7/model"


def test_names_and_classes_must_agree(tmp_path: Path, make_model: MakeModel, saved: Path) -> None:
    with pytest.raises(ConfigError, match="2 class names for 5 classes"):
        save(make_model(), tmp_path / "n", preprocess=PREPROCESS, class_names=["a", "b"])
    assert not (tmp_path / "n").exists()
    edit_config(saved, label_names=["a"])
    with pytest.raises(CheckpointError, match="has 1 label_names"):
        read_folder(saved)


def test_a_provenance_that_is_no_plain_data_is_refused(tmp_path: Path, make_model: MakeModel) -> None:
    with pytest.raises(ConfigError, match="use plain data"):
        write_folder(make_model(), tmp_path / "n", PREPROCESS, provenance={"loss": float("nan")})
    with pytest.raises(ConfigError, match="use plain data"):
        write_folder(make_model(), tmp_path / "n", PREPROCESS, provenance={"model": object()})
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe\x00", "begins with"),
        (b'{"a":' * 100_000, "nested too deep"),
        (b"[]", "is a JSON object"),
        (b"{}", "say heads=N"),
        (b'{"model_type": "swin"}', "of no format .* 'swin'"),
        (b'{"vitreous": 3}', "has no config"),
        (b'{"vitreous": {"config": {}, "format": 99}}', "format 99"),
        (b'{"vitreous": {"config": {"width": "x"}, "format": 1}}', "width is 'x'"),
        (b'{"vitreous": {"config": {"magic": 1}, "format": 1}}', "no setting 'magic'"),
        (b'{"vitreous": {"config": {}, "preprocess": {"mean": 3}, "format": 1}}', "cannot be used"),
        (b'{"vitreous": {"config": {"depth": 1000000000}, "format": 1}}', "has 2 blocks"),
        (b'{"vitreous": {"config": {"depth": 2, "registers": 1000000000}, "format": 1}}', "does not fit"),
    ],
)
def test_a_config_that_cannot_be_used_is_refused(saved: Path, content: bytes, message: str) -> None:
    (saved / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as refusal:
        read_folder(saved)
    assert len(str(refusal.value).splitlines()) <= 3


def test_missing_and_odd_files_are_refused(saved: Path) -> None:
    shutil.copytree(saved, saved.parent / "copy")
    (saved / "config.json").unlink()
    os.mkfifo(saved / "config.json")
    with pytest.raises(InputError, match="not a regular file"):
        read_folder(saved)
    (saved.parent / "copy" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model.safetensors does not exist"):
        read_folder(saved.parent / "copy")
    (saved.parent / "copy" / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin"):
        read_folder(saved.parent / "copy")
    (saved.parent / "copy" / "other.bin").write_bytes(b"x")
    with pytest.raises(InputError, match=r"2 weights files: other.bin, pytorch_model.bin; name the one"):
        read_folder(saved.parent / "copy")
    with pytest.raises(InputError, match="does not exist"):
        read_folder(saved.parent, weights=saved.parent / "gone.safetensors")


def test_an_enormous_config_is_refused(saved: Path) -> None:
    with (saved / "config.json").open("r+b") as file:
        file.truncate(40 * 2**20)
    with pytest.raises(CheckpointError, match="larger than 32 MiB"):
        read_folder(saved)


def test_weights_of_another_shape_are_refused_with_both_shapes(saved: Path) -> None:
    weights = load_file(saved / "model.safetensors")
    weights["head.weight"] = torch.zeros(7, 24)
    save_file(weights, saved / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"head.weight has \(7, 24\), want \(5, 24\)"):
        read_folder(saved)


def test_another_weights_file_beside_the_config_is_opened(saved: Path, make_model: MakeModel, images: Tensor) -> None:
    model = make_model()
    with torch.no_grad():
        model.head.bias += 1  # type: ignore[union-attr, operator]
    save_file(model.state_dict(), saved / "step_100.safetensors")
    opened = read_folder(saved, weights=saved / "step_100.safetensors")
    assert opened.name == "step_100"
    assert torch.equal(opened.model(images), model(images))


def test_nothing_is_warned_of(saved: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_folder(saved)
