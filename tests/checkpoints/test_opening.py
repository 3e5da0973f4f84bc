"""From a path to a model: what is found beside the weights, what is checked before memory is taken, what is said."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vitreous.checkpoints.saving import save
from vitreous.checkpoints.sources import load, open_model
from vitreous.data.preprocess import HALF_MEAN, HALF_STD, Preprocess
from vitreous.errors import CheckpointError, ConfigError, InputError
from vitreous.model.vit import VisionTransformer

MakeModel = Callable[..., VisionTransformer]
PREPROCESS = Preprocess((16, 16), "squash", 1.0, "bilinear", HALF_MEAN, HALF_STD)


def decided(model: Any) -> dict[str, dict[str, Any]]:
    return {decision["setting"]: decision for decision in model.provenance["decisions"]}


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt"])
def test_a_training_scripts_checkpoint_opens_by_its_names(
    tmp_path: Path, make_model: MakeModel, images: Tensor, suffix: str
) -> None:
    model = make_model()
    wrapped = {f"module.{name}": weight for name, weight in model.state_dict().items()}
    content = {"model": wrapped, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}, "epoch": 3, "best": 0.5}
    torch.save(content, tmp_path / f"last{suffix}")
    opened = open_model(tmp_path / f"last{suffix}", heads=3)
    assert torch.equal(opened.model(images), model(images))
    keys = opened.model.__dict__["provenance"]["keys"]
    assert keys["prefix"] == "model.module." and keys["renamed"] == {}
    assert list(keys["ignored"]) == ["optimizer.state.0.exp_avg"]
    assert decided(opened.model)["heads"] == {"setting": "heads", "value": 3, "reason": "as asked", "guessed": False}
    assert opened.name == "last"


def test_what_nothing_says_is_a_guess_with_the_way_to_settle_it(tmp_path: Path, make_model: MakeModel) -> None:
    torch.save(make_model(width=64, heads=2).state_dict(), tmp_path / "w.pth")
    opened = open_model(tmp_path / "w.pth")
    assert opened.model.__dict__["config"].heads == 1
    assert any(note.startswith("heads: 1 (64 numbers a head is usual") for note in opened.notes)
    with pytest.raises(CheckpointError, match=r"w.pth: .*say heads=N\nto load\(\) .*convert FILE FOLDER --set"):
        torch.save(make_model().state_dict(), tmp_path / "w.pth")
        open_model(tmp_path / "w.pth")


def test_a_setting_that_does_not_fit_the_tensors_is_refused_with_both_shapes(
    tmp_path: Path, make_model: MakeModel
) -> None:
    torch.save(make_model().state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"pos_embed has \(1, 17, 24\), want \(1, 65, 24\)"):
        load(tmp_path / "w.pth", heads=3, image_size=(32, 32))
    with pytest.raises(CheckpointError, match="width 24 is not a multiple of heads 5"):
        load(tmp_path / "w.pth", heads=5)


def test_settings_are_for_files_and_folders() -> None:
    with pytest.raises(ConfigError, match="heads was asked for, but timm:test_vit@random is made by its own library"):
        load("timm:test_vit@random", heads=2)


def test_the_hash_is_the_files(tmp_path: Path, make_model: MakeModel) -> None:
    torch.save(make_model().state_dict(), tmp_path / "w.pth")
    digest = hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()
    assert open_model(tmp_path / "w.pth", heads=3).file_hash == f"sha256:{digest}"


def test_a_sharded_folder_is_one_model_and_its_hash_changes_with_any_part(
    tmp_path: Path, make_model: MakeModel, images: Tensor
) -> None:
    model = make_model()
    save(model, tmp_path / "m", preprocess=PREPROCESS)
    weights = load_file(tmp_path / "m" / "model.safetensors")
    (tmp_path / "m" / "model.safetensors").unlink()
    names = list(weights)
    places = {name: f"model-0000{1 + (n % 2)}-of-00002.safetensors" for n, name in enumerate(names)}
    for place in set(places.values()):
        save_file({name: weights[name] for name in names if places[name] == place}, tmp_path / "m" / place)
    index = {"metadata": {}, "weight_map": places}
    (tmp_path / "m" / "model.safetensors.index.json").write_text(json.dumps(index))
    opened = open_model(tmp_path / "m")
    assert torch.equal(opened.model(images), model(images))
    before = opened.file_hash
    weights["head.bias"] = weights["head.bias"] + 1
    place = places["head.bias"]
    save_file({name: weights[name] for name in names if places[name] == place}, tmp_path / "m" / place)
    assert open_model(tmp_path / "m").file_hash != before


def test_a_file_of_names_that_nobody_knows_is_refused_with_some_of_them(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.ones(2, 2), "classifier.bias": torch.ones(2)}, tmp_path / "vgg.pth")
    with pytest.raises(CheckpointError, match=r"vgg.pth: of no format .*'features.0.weight'") as refusal:
        load(tmp_path / "vgg.pth")
    assert len(str(refusal.value).splitlines()) <= 3


def test_a_library_that_vitreous_does_not_read_is_named(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "swin"}')
    with pytest.raises(CheckpointError, match=r"config.json is of 'swin'\n.*hf:FOLDER"):
        load(tmp_path)


def test_nan_is_named_and_strictly_refused(tmp_path: Path, make_model: MakeModel) -> None:
    weights = make_model().state_dict()
    weights["head.bias"][2] = torch.nan
    torch.save(weights, tmp_path / "w.pth")
    notes = open_model(tmp_path / "w.pth", heads=3).notes
    assert any("head.bias has 1 of 5" in note for note in notes)
    with pytest.raises(CheckpointError, match=r"NaN or infinite: head.bias has 1 of 5"):
        load(tmp_path / "w.pth", heads=3, strict=True)


def test_a_claim_of_many_blocks_or_stages_makes_nothing(tmp_path: Path, make_model: MakeModel) -> None:
    save(make_model(), tmp_path / "m", preprocess=PREPROCESS)
    described = json.loads((tmp_path / "m" / "config.json").read_text())
    for setting, value in (("depth", 10**9), ("stem", [10**9]), ("registers", 10**12), ("width", 3 * 10**9)):
        entry = described["vitreous"]["config"] | {setting: value}
        changed = described | {"vitreous": described["vitreous"] | {"config": entry}}
        (tmp_path / "m" / "config.json").write_text(json.dumps(changed))
        with pytest.raises(CheckpointError):
            load(tmp_path / "m")


def test_of_a_teacher_and_a_student_the_other_can_be_asked_for(
    tmp_path: Path, make_model: MakeModel, images: Tensor
) -> None:
    teacher, student = make_model(), make_model(depth=1)
    content = {"student": student.state_dict(), "teacher": teacher.state_dict()}
    torch.save(content, tmp_path / "both.pth")
    assert torch.equal(load(tmp_path / "both.pth", heads=3)(images), teacher(images))
    assert torch.equal(load(tmp_path / "both.pth", heads=3, weights="student")(images), student(images))
    with pytest.raises(CheckpointError, match="weights='critic' was asked for"):
        load(tmp_path / "both.pth", weights="critic")


def test_settings_beside_other_weights_are_not_theirs(tmp_path: Path, make_model: MakeModel) -> None:
    (tmp_path / "config.json").write_text("{broken")
    torch.save(make_model().state_dict(), tmp_path / "w.pth")
    load(tmp_path / "w.pth", heads=3)
    with pytest.raises(CheckpointError, match=r"config.json is not JSON at its character 1"):
        load(tmp_path, heads=3)


@pytest.mark.parametrize("name", ["preprocessor_config.json", "config.json"])
def test_settings_that_are_no_object_are_refused(tmp_path: Path, make_model: MakeModel, name: str) -> None:
    save(make_model(), tmp_path / "m", preprocess=PREPROCESS)
    (tmp_path / "m" / name).write_text("[]")
    with pytest.raises(CheckpointError, match=f"{name} begins with .* JSON object"):
        load(tmp_path / "m")


def test_a_dangling_link_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "w.pth").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match=r"w.pth"):
        load(tmp_path / "w.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_another_precision_is_said(tmp_path: Path, make_model: MakeModel, dtype: torch.dtype) -> None:
    weights = {name: weight.to(dtype) for name, weight in make_model().state_dict().items()}
    torch.save(weights, tmp_path / "w.pth")
    opened = open_model(tmp_path / "w.pth", heads=3)
    assert str(dtype).removeprefix("torch.") in decided(opened.model)["precision"]["reason"]
    assert next(opened.model.parameters()).dtype == torch.float32


@torch.no_grad()
def test_a_pickle_that_transformers_wrote_is_read_with_its_config(tmp_path: Path, make_model: MakeModel) -> None:
    model = make_model(norm_eps=0.1)
    save(model, tmp_path / "m", to="transformers", preprocess=PREPROCESS)
    torch.save(load_file(tmp_path / "m" / "model.safetensors"), tmp_path / "m" / "pytorch_model.bin")
    (tmp_path / "m" / "model.safetensors").unlink()
    for path in (tmp_path / "m", tmp_path / "m" / "pytorch_model.bin"):
        assert load(path).__dict__["config"].norm_eps == 0.1


def test_weights_in_several_pickles_or_one_part_of_several_are_refused_with_the_way_out(
    tmp_path: Path, make_model: MakeModel
) -> None:
    (tmp_path / "pytorch_model.bin.index.json").write_text("{}")
    with pytest.raises(InputError, match="weights in several pickles"):
        load(tmp_path)
    save_file({"head.bias": torch.ones(5)}, tmp_path / "model-00001-of-00012.safetensors")
    with pytest.raises(CheckpointError, match="one of several files"):
        load(tmp_path / "model-00001-of-00012.safetensors")


def test_a_folder_is_no_weights_file_whatever_its_name(tmp_path: Path, make_model: MakeModel) -> None:
    torch.save(make_model().state_dict(), tmp_path / "w.pth")
    (tmp_path / "x.safetensors").mkdir()
    load(tmp_path, heads=3)


def test_who_is_to_blame_is_said(tmp_path: Path, make_model: MakeModel) -> None:
    torch.save(make_model().state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"does not fit what was asked for \(heads=3, classes=7\)"):
        load(tmp_path / "w.pth", heads=3, classes=7)


def test_another_pooling_may_be_asked_of_our_own_folder(tmp_path: Path, make_model: MakeModel) -> None:
    save(make_model(), tmp_path / "m", preprocess=PREPROCESS)
    assert load(tmp_path / "m", pooling="mean").__dict__["config"].pooling == "mean"
