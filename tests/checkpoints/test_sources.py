from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import vitreous
from vitreous.checkpoints import sources
from vitreous.checkpoints.saving import save
from vitreous.checkpoints.sources import describe, load, open_model
from vitreous.data.preprocess import HALF_MEAN, HALF_STD, Preprocess
from vitreous.errors import CheckpointError, ConfigError, InputError
from vitreous.model.vit import VisionTransformer

MakeModel = Callable[..., VisionTransformer]
PREPROCESS = Preprocess((16, 16), "squash", 1.0, "bilinear", HALF_MEAN, HALF_STD)
NAMES = ("zero", "one", "two", "three", "four")


def test_they_are_public() -> None:
    assert vitreous.load is load and vitreous.save is save


def test_a_model_goes_through_a_folder_twice_and_stays_itself(
    tmp_path: Path, make_model: MakeModel, images: Tensor
) -> None:
    model = make_model()
    save(model, tmp_path / "first", preprocess=PREPROCESS, class_names=NAMES, provenance={"epochs": 3})
    again = load(tmp_path / "first")
    save(again, tmp_path / "second")
    opened = open_model(str(tmp_path / "second"))
    assert torch.equal(opened.model(images), model(images))
    assert (opened.preprocess, opened.class_names, opened.notes) == (PREPROCESS, NAMES, ())
    saved = opened.model.__dict__["provenance"]["saved"]
    assert saved["saved"] == {"epochs": 3}
    assert saved["file_hash"] == again.__dict__["provenance"]["file_hash"]


def test_a_loaded_model_says_where_it_comes_from(tmp_path: Path, make_model: MakeModel) -> None:
    save(make_model(), tmp_path / "m", preprocess=PREPROCESS)
    provenance = load(tmp_path / "m").__dict__["provenance"]
    assert provenance["source"] == str(tmp_path / "m")
    assert provenance["format"] == "vitreous"
    assert provenance["file_hash"].startswith("sha256:")
    assert provenance["decisions"][0]["reason"] == "saved whole in config.json"
    json.dumps(provenance)


def test_a_model_saved_without_preprocessing_says_so(tmp_path: Path, make_model: MakeModel) -> None:
    save(make_model(), tmp_path / "m")
    opened = open_model(tmp_path / "m")
    assert opened.preprocess == Preprocess(image_size=(16, 16))
    assert "were guessed" in opened.model.__dict__["provenance"]["saved"]["notes"][0]


def test_a_weights_file_is_opened_beside_its_config(tmp_path: Path, make_model: MakeModel) -> None:
    save(make_model(), tmp_path / "m")
    assert isinstance(load(tmp_path / "m" / "model.safetensors"), VisionTransformer)


def test_each_library_is_opened_by_its_name() -> None:
    assert open_model("timm:test_vit@random").kind == "timm"
    assert open_model("torchvision:squeezenet1_1@random").kind == "torchvision"
    assert open_model("torch.nn:Identity").kind == "function"


def test_a_source_is_described_in_plain_data(tmp_path: Path, make_model: MakeModel) -> None:
    model = make_model()
    save(model, tmp_path / "m", preprocess=PREPROCESS, class_names=NAMES)
    described = json.loads(json.dumps(describe(tmp_path / "m")))
    assert described["architecture"] == model.config.to_dict()
    assert described["parameters"] == model.config.parameters
    assert (described["format"], described["classes"], described["notes"]) == ("vitreous", 5, [])
    assert described["preprocess"] == PREPROCESS.to_dict()
    other = describe("timm:test_vit@random")
    assert other["architecture"] is None and other["class"].endswith("VisionTransformer")


def test_only_our_own_models_are_saved(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this is a Linear; save it with its own library"):
        save(nn.Linear(2, 2), tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing", "is no model that vitreous knows; a model is a weights file"),
        ("tim:vit_base", "did you mean timm:"),
        ("torchvison:vit_b_16", "did you mean torchvision:"),
        ("timm:", "timm: is not followed by a name"),
        ("timm:@random", "not followed by a name"),
        ("", "model.safetensors does not exist"),
    ],
)
def test_a_source_of_no_known_kind_is_refused_with_the_kinds(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ConfigError, InputError), match=message):
        load(source)


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load(tmp_path / "gone")
    with pytest.raises(InputError, match="does not exist"):
        load(tmp_path / "gone.safetensors")
    (tmp_path / "model.pth").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"model.pth"):
        load(tmp_path / "model.pth")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"model.safetensors does not exist"):
        load(tmp_path / "empty")


@pytest.fixture
def without_libraries(tmp_path: Path, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """timm and transformers are not installed; whatever is fetched is a tiny model. The repositories asked for."""
    save(make_model(), tmp_path / "fetched", preprocess=PREPROCESS)
    fetched: list[str] = []

    def fetch(repository: str) -> Path:
        fetched.append(repository)
        return tmp_path / "fetched"

    monkeypatch.setattr(sources, "fetch_files", fetch)
    monkeypatch.setattr(sources, "find_spec", lambda name: None if name in ("timm", "transformers") else object())
    return fetched


def test_without_its_library_a_name_is_fetched_and_read_here(without_libraries: list[str]) -> None:
    for name in ("timm:vit_tiny_patch16_224.augreg_in21k", "hf:google/vit-base-patch16-224"):
        assert isinstance(load(name), VisionTransformer)
        assert not sources.is_made_elsewhere(name) and sources.is_made_elsewhere(f"{name}@random")
    assert without_libraries == ["timm/vit_tiny_patch16_224.augreg_in21k", "google/vit-base-patch16-224"]


def test_settings_and_quick_gelu_reach_what_was_fetched(without_libraries: list[str]) -> None:
    assert load("hf:google/vit", norm_eps=0.5).__dict__["config"].norm_eps == 0.5
    quick = load("timm:vit_base_patch16_clip_quickgelu_224.openai")
    assert quick.__dict__["config"].activation == "quick-gelu"
    assert load("timm:vit_x_quickgelu.openai", activation="gelu").__dict__["config"].activation == "gelu"


def test_a_folder_named_for_transformers_is_read_where_it_lies(without_libraries: list[str], tmp_path: Path) -> None:
    assert isinstance(load(f"hf:{tmp_path / 'fetched'}"), VisionTransformer)
    assert without_libraries == []


def test_random_weights_need_their_library(without_libraries: list[str]) -> None:
    with pytest.raises(
        ConfigError, match="norm_eps was asked for, but timm:test_vit@random is made by its own library"
    ):
        load("timm:test_vit@random", norm_eps=0.5)
