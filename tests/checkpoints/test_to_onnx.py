from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

import vitreous
from vitreous.checkpoints import to_onnx
from vitreous.checkpoints.to_onnx import write_onnx
from vitreous.data.preprocess import Preprocess
from vitreous.errors import CheckpointError, ConfigError, OutputError
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer

PREPROCESS = Preprocess((16, 16), "squash", 1.0, "bilinear", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
NAMES = ("cat", "dog", "owl", "a \u2603", 'a "b"')
FAMILY: dict[str, dict[str, Any]] = {
    "plain": {"depth": 2, "hidden_head": True},
    "deit": {"distillation": True, "qkv_bias": False},
    "clip and dinov2": {
        "norm_before_blocks": True, "activation": "quick-gelu", "patch_bias": False, "registers": 3, "layer_scale": 0.1,
        "gated_mlp": True, "pooling": "class+mean", "classes": 0,
    },
    "dinov3": {"registers": 2, "positions": "rope", "qk_norm": True, "attention_width": 24, "activation": "quick-gelu"},
    "siglip": {"class_token": False, "pooling": "map", "activation": "gelu-tanh", "positions": "sincos-2d"},
    "beit": {"positions": "relative-bias", "pooling": "mean"},
    "relative": {"positions": "relative", "patch_norms": True},
    "hybrid": {
        "stem": [1, 1], "stem_width": 8, "patch_size": [8, 8], "image_size": [24, 16], "positions": "learned-2d",
    },
    "cnn": {
        "stem": [1, 1], "stem_width": 8, "stem_root": "small", "patch_size": [2, 2], "depth": 0, "positions": "none",
        "class_token": False, "pooling": "mean",
    },
    "table 8": {"depth": 2, "positions": "learned-2d", "positions_at": "layers", "norm_before_blocks": True},
    "table 8, shared": {"depth": 2, "positions_at": "layers-shared"},
}  # fmt: skip


def make(**changes: Any) -> VisionTransformer:
    sizes = {"image_size": [16, 16], "patch_size": [4, 4], "width": 16, "depth": 1, "heads": 2, "classes": 5}
    model = VisionTransformer(ViTConfig.from_dict(sizes | changes)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.normal_(std=0.3, generator=generator)
    return model


def draw(model: VisionTransformer, batch: int) -> Tensor:
    config = model.config
    return torch.randn(batch, config.channels, *config.image_size, generator=torch.Generator().manual_seed(7))


def run(path: Path, images: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def files_beside(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


@pytest.fixture(scope="module")
def plain() -> VisionTransformer:
    return make(dropout=0.1)


@pytest.fixture(scope="module")
def written(plain: VisionTransformer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "new folder" / "plain.onnx"
    write_onnx(plain, path, PREPROCESS, NAMES, {"source": "a file", "decisions": [{"value": 1}]})
    return path


@pytest.fixture
def written_before(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exporter that takes no time, and whatever model it is given always writes the plain one."""
    monkeypatch.setattr(to_onnx, "_export", lambda _, file, __: shutil.copy(written, file))


@pytest.mark.parametrize("kind", FAMILY)
@torch.no_grad()
def test_onnx_runtime_computes_what_torch_does_for_any_batch(kind: str, tmp_path: Path) -> None:
    model = make(**FAMILY[kind])
    path = tmp_path / "model.onnx"
    difference = write_onnx(model, path, PREPROCESS)
    assert difference is not None and difference < 1e-5
    assert onnx.load(path).graph.output[0].name == ("logits" if model.config.classes else "features")
    for batch in (1, 2, 5):
        expected = model(draw(model, batch))
        assert expected.std() > 0.1
        torch.testing.assert_close(run(path, draw(model, batch)), expected, atol=2e-5, rtol=1e-5)


def test_inputs_and_outputs_have_names_and_the_batch_is_free(written: Path) -> None:
    graph = onnx.load(written).graph
    sides = [side for value in (*graph.input, *graph.output) for side in value.type.tensor_type.shape.dim]
    assert [value.name for value in (*graph.input, *graph.output)] == ["images", "logits"]
    assert [side.dim_param or side.dim_value for side in sides] == ["batch", 3, 16, 16, "batch", 5]


def test_the_file_is_of_the_operators_that_any_recent_runtime_has(written: Path) -> None:
    model = onnx.load(written)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert {node.domain for node in model.graph.node} == {""}
    assert (model.producer_name, model.producer_version) == ("vitreous", vitreous.__version__)


def test_preprocessing_names_and_provenance_travel_with_the_file(written: Path, plain: VisionTransformer) -> None:
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    notes = {name: json.loads(note) for name, note in session.get_modelmeta().custom_metadata_map.items()}
    assert Preprocess.from_dict(notes["preprocess"]) == PREPROCESS
    assert ViTConfig.from_dict(notes["config"]) == plain.config
    assert tuple(notes["class_names"]) == NAMES
    assert notes["provenance"] == {"source": "a file", "decisions": [{"value": 1}]}
    assert len(notes) == 4


def test_the_file_names_no_path_of_this_machine(written: Path) -> None:
    content = written.read_bytes()
    for text in ("/vit.py", "site-packages", str(Path(vitreous.__file__).parent), str(Path.home()), "stack_trace"):
        assert text.encode() not in content, text


def test_writing_again_gives_the_same_bytes_and_leaves_the_model_as_it_is(written: Path, tmp_path: Path) -> None:
    model = make(dropout=0.1).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    write_onnx(model, tmp_path / "again.onnx", PREPROCESS, NAMES, {"source": "a file", "decisions": [{"value": 1}]})
    assert (tmp_path / "again.onnx").read_bytes() == written.read_bytes()
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert files_beside(tmp_path / "again.onnx") == ["again.onnx"]


@torch.no_grad()
def test_a_half_precision_model_is_written_in_float32(plain: VisionTransformer, tmp_path: Path) -> None:
    half = make(dropout=0.1).bfloat16()
    write_onnx(half, tmp_path / "model.onnx", PREPROCESS)
    result = run(tmp_path / "model.onnx", draw(plain, 2))
    assert (half.head is not None and half.head.weight.dtype, result.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(result, half.float()(draw(plain, 2)), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_large_weights_stand_in_a_second_file_beside_the_first(
    plain: VisionTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_onnx, "_LARGEST_FILE", 1000)
    path = tmp_path / "model.onnx"
    path.write_text("an earlier model")
    write_onnx(plain, path, PREPROCESS)
    assert files_beside(path) == ["model.onnx", "model.onnx.data"]
    torch.testing.assert_close(run(path, draw(plain, 2)), plain(draw(plain, 2)), atol=1e-5, rtol=1e-5)


def test_a_link_is_followed(plain: VisionTransformer, tmp_path: Path, written_before: None) -> None:
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "link.onnx"
    path.symlink_to(tmp_path / "elsewhere" / "model.onnx")
    write_onnx(plain, path, PREPROCESS)
    assert path.is_symlink() and (tmp_path / "elsewhere" / "model.onnx").is_file()


def test_nothing_reaches_the_screen(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['torchvision'] = None;"  # as for most users: the exporter logs each operator it misses
        "from pathlib import Path; from vitreous.checkpoints.to_onnx import write_onnx;"
        "from vitreous.model.config import ViTConfig; from vitreous.model.vit import VisionTransformer;"
        "from vitreous.data.preprocess import Preprocess;"
        "config = ViTConfig(image_size=(8, 8), patch_size=(4, 4), width=8, depth=1, heads=2, classes=2);"
        "write_onnx(VisionTransformer(config), Path('model.onnx'), Preprocess())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("", "")
    assert files_beside(tmp_path / "model.onnx") == ["model.onnx"]


@pytest.mark.parametrize("scale", [1.001, float("inf")])
def test_a_file_that_computes_something_else_is_not_written(scale: float, tmp_path: Path, written_before: None) -> None:
    other = make(dropout=0.1)
    with torch.no_grad():
        other.blocks[0].mlp.fc1.weight *= scale
    path = tmp_path / "model.onnx"
    path.write_text("an earlier model")
    with pytest.raises(
        CheckpointError, match=r"and torch differ by (?s:.*)check that the weights are finite"
    ) as refusal:
        write_onnx(other, path, PREPROCESS)
    assert len(str(refusal.value).splitlines()) <= 3
    assert (files_beside(path), path.read_text()) == (["model.onnx"], "an earlier model")


def test_a_full_disk_leaves_what_was_there(
    plain: VisionTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(to_onnx, "_export", fail)
    path = tmp_path / "model.onnx"
    path.write_text("an earlier model")
    with pytest.raises(OutputError, match="No space left on device"):
        write_onnx(plain, path, PREPROCESS)
    assert (files_beside(path), path.read_text()) == (["model.onnx"], "an earlier model")


def test_a_folder_is_no_place_for_the_file(plain: VisionTransformer, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_onnx(plain, tmp_path, PREPROCESS)


def test_missing_packages_are_named_with_the_extra(
    plain: VisionTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r'needs onnxscript: pip install "vitreous\[onnx\]"'):
        write_onnx(plain, tmp_path / "model.onnx", PREPROCESS)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match="needs onnx and onnxscript"):
        write_onnx(plain, tmp_path / "model.onnx", PREPROCESS)


def test_without_onnx_runtime_the_difference_is_not_known(
    plain: VisionTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written_before: None
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert write_onnx(plain, tmp_path / "model.onnx", PREPROCESS) is None
    assert files_beside(tmp_path / "model.onnx") == ["model.onnx"]


@pytest.mark.parametrize(
    ("names", "provenance", "message"),
    [
        (["cat"], {}, "1 class names for 5 classes"),
        ((), {"a": object()}, "cannot be written as JSON"),
        ((), {"a": float("nan")}, "cannot be written as JSON"),
    ],
)
def test_names_and_provenance_are_checked_first(
    names: list[str], provenance: dict[str, Any], message: str, plain: VisionTransformer, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        write_onnx(plain, tmp_path / "model.onnx", PREPROCESS, names, provenance)
    assert files_beside(tmp_path / "model.onnx") == []
