from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import vitreous
from vitreous.cli import main
from vitreous.data.preprocess import HALF_MEAN, HALF_STD, Preprocess
from vitreous.data.transforms import to_tensor
from vitreous.inspection import Inspection
from vitreous.measures.flow import attention_flow
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer
from vitreous.training.lock import locked_run

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

TINY = ["--model.width", "16", "--model.depth", "1", "--model.heads", "2", "--epochs", "1", "--workers", "1"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model for digits, first weights, in our own folder layout."""
    folder = tmp_path_factory.mktemp("model") / "model"
    config = ViTConfig(image_size=(16, 16), patch_size=(4, 4), width=16, depth=2, heads=2, classes=10)
    preprocess = Preprocess((16, 16), "squash", 1.0, "bicubic", HALF_MEAN, HALF_STD)
    made = VisionTransformer(config, generator=torch.Generator().manual_seed(0))
    vitreous.save(made, folder, preprocess=preprocess, class_names=[str(n) for n in range(10)])
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(3):
        Image.linear_gradient("L").rotate(90 * index).resize((40, 30)).convert("RGB").save(folder / f"{index}.png")
    return folder


def run(*arguments: object) -> int:
    """The exit code of a command, run in this process."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_inspect_writes_a_report_the_numbers_the_record_and_the_figures(model, photos, tmp_path, capsys) -> None:
    out, numbers, record = tmp_path / "r.html", tmp_path / "n.json", tmp_path / "i.safetensors"
    code = run("inspect", model, photos, "--out", out, "--json", numbers, "--save", record, "--figures", tmp_path / "f")
    assert code == 0
    inspection = Inspection.load(record)
    plain = json.loads(numbers.read_text())
    assert plain["image_names"] == ["0.png", "1.png", "2.png"]
    torch.testing.assert_close(
        torch.tensor(plain["attention_distance"]), inspection.attention_distance, rtol=1e-6, atol=0
    )
    HTMLParser().feed(out.read_text())
    figures = {path.name for path in (tmp_path / "f").iterdir()}
    expected = {
        "attention-distance",
        "attention-rollout",
        "position-similarity",
        "embedding-filters",
        "class-attention-2",
    }
    assert {f"{name}.{kind}" for name in expected for kind in ("pdf", "png")} <= figures
    printed = capsys.readouterr().out
    assert "2 layers x 2 heads, 4 x 4 patches" in printed and f"report: {out}" in printed


def test_inspect_takes_a_spread_of_a_built_in_data_set(model, tmp_path, capsys) -> None:
    assert run("inspect", model, "digits", "--out", tmp_path / "r.html", "--most", 5) == 0
    assert "over 5 images of 360" in capsys.readouterr().out


def test_inspect_takes_all_images_when_asked(model, tmp_path, capsys) -> None:
    assert run("inspect", model, "digits", "--out", tmp_path / "r.html", "--all", "--batch-size", 64) == 0
    assert "over 360 images\n" in capsys.readouterr().out


def test_inspect_gives_each_size_its_own_numbers(model, photos, tmp_path, capsys) -> None:
    Image.new("RGB", (31, 42), "red").save(photos / "3.png")
    out, numbers = tmp_path / "r.html", tmp_path / "n.json"
    assert run("inspect", model, photos, "--sizes", "group", "--out", out, "--json", numbers) == 0
    wide, tall = json.loads(numbers.read_text())
    assert (wide["layout"]["rows"], wide["layout"]["columns"], wide["images"]) == (7, 10, 3)
    assert tall["image_names"] == ["3.png"]
    assert "28 x 40" in out.read_text() and "40 x 28" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "r.html", "n.json"}


def test_inspect_sets_several_models_side_by_side(model, photos, tmp_path, capsys) -> None:
    other = tmp_path / "deeper"
    config = ViTConfig(image_size=(16, 16), patch_size=(4, 4), width=16, depth=3, heads=2, classes=10)
    vitreous.save(VisionTransformer(config), other, preprocess=_preprocess(model))
    out, numbers, record, figures = (tmp_path / name for name in ("c.html", "n.json", "i.safetensors", "f"))
    results = ("--out", out, "--json", numbers, "--save", record, "--figures", figures)
    assert run("inspect", model, other, photos, *results) == 0
    printed = capsys.readouterr().out
    assert "deeper" in printed and f"comparison: {out}" in printed
    plain = json.loads(numbers.read_text())
    assert [len(one["attention_distance"]) for one in plain] == [2, 3]
    records = [Inspection.load(tmp_path / f"i-{number}.safetensors") for number in (1, 2)]
    assert [len(one.attention_distance) for one in records] == [2, 3]
    for one, values in zip(plain, (r.attention_distance.mean(1) for r in records), strict=True):
        assert f"{float(values[0]):5.1f} -> {float(values[-1]):6.1f}" in printed
        assert one["image_names"] == ["0.png", "1.png", "2.png"]
    assert list(figures.glob("attention-distance*.pdf"))
    assert not list(tmp_path.glob("*.partial"))


def test_inspect_shows_a_run_over_its_epochs(tmp_path, capsys) -> None:
    folder, out = tmp_path / "run", tmp_path / "t.html"
    assert run("train", "--preset", "digits", "--out", folder, *TINY, "--keep.models-every", 1) == 0
    assert run("inspect", folder / "checkpoints", "digits", "--most", 3, "--out", out, "--figures", tmp_path / "f") == 0
    printed = capsys.readouterr().out
    assert "epoch 0" in printed and "epoch 1" in printed
    with Image.open(tmp_path / "f" / "training.gif") as film:
        assert film.n_frames == 2
    assert run("inspect", folder, "digits", "--most", 3, "--out", out) == 0  # a run is its final model


def test_inspect_makes_the_flow_that_is_asked_for(model, photos, tmp_path) -> None:
    out, record = tmp_path / "r.html", tmp_path / "i.safetensors"
    command = ("inspect", model, photos, "--out", out, "--save", record, "--figures", tmp_path / "f")
    assert run(*command, "--flow", 1, "--flow-heads", 0, "--flow-top-k", 3) == 0
    found = Inspection.load(record)
    loaded = vitreous.load(model)
    with torch.no_grad(), vitreous.watch_attention(loaded) as watched:
        loaded(_inputs(model, photos))
    expected = attention_flow(watched.layers, watched.layout, layers=slice(-1, None), heads=0, top_k=3)
    grid = watched.layout.to_grid(watched.layout.patch_tokens(expected.flow))
    assert found.flow is not None and found.flow_cut is not None
    torch.testing.assert_close(found.flow.double(), grid, rtol=1e-5, atol=1e-6)
    assert "How much could reach the read-out" in out.read_text() and (tmp_path / "f" / "attention-flow.png").exists()


def _preprocess(model: Path) -> Preprocess:
    return Preprocess.from_dict(vitreous.load(model).provenance["preprocess"])


def _inputs(model: Path, photos: Path) -> torch.Tensor:
    return torch.stack([to_tensor(Image.open(file), _preprocess(model)) for file in sorted(photos.iterdir())])


def test_evaluate_prints_one_object(model, capsys) -> None:
    assert run("evaluate", model, "digits", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == 360 and found["top1"] == pytest.approx(0.1)  # zero logits: always the first class


def test_predict_prints_one_object_an_image(model, photos, capsys) -> None:
    assert run("predict", model, photos, "--json", "--top", 2) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(line["image"]).name for line in lines] == ["0.png", "1.png", "2.png"]
    assert all([p["probability"] for p in line["predictions"]] == pytest.approx([0.1, 0.1]) for line in lines)


def test_predict_goes_on_after_what_it_cannot_read_and_says_so(model, photos, tmp_path, capsys) -> None:
    (tmp_path / "bad.png").write_text("no image")
    assert run("predict", model, photos, tmp_path / "bad.png", "--json") == 3
    found = capsys.readouterr()
    assert len(found.out.splitlines()) == 3 and "bad.png: not a readable" in found.err
    (tmp_path / "empty.jpg").touch()
    assert run("predict", model, tmp_path) == 3
    said = capsys.readouterr().err
    assert said.count("left out: ") == 2 and "vitreous: 2 of 5 images cannot be read\n" in said


def test_evaluate_leaves_out_what_it_cannot_read_when_asked(model, tmp_path, capsys) -> None:
    for name in map(str, range(10)):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "set" / name / "a.png")
    (tmp_path / "set" / "3" / "bad.png").write_text("no image")
    assert run("evaluate", model, tmp_path / "set") == 3
    assert "bad.png: not a readable" in capsys.readouterr().err
    assert run("evaluate", model, tmp_path / "set", "--unreadable", "skip", "--json") == 0
    found = capsys.readouterr()
    assert json.loads(found.out)["images"] == 10 and found.err.count("left out: ") == 1
    for file in (tmp_path / "set").rglob("a.png"):
        file.write_text("no image")
    assert run("evaluate", model, tmp_path / "set", "--unreadable", "skip", "--batch-size", 4) == 3
    assert "vitreous: none of the 11 images can be read, the first:\n" in capsys.readouterr().err


def test_what_a_recipe_cannot_know_is_asked_for(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("train", "--preset", "cifar10-ti4", "--out", "run") == 2
    assert "learns from cifar10, which is not here; give its folder or file with --data" in capsys.readouterr().err
    assert run("train", "--preset", "finetune", "--data", "digits", "--out", "run") == 2
    assert "give it with --start" in capsys.readouterr().err
    assert not Path("run").exists()


def test_curves_that_cannot_be_drawn_do_not_fail_a_run_that_is_done(tmp_path, capsys) -> None:
    arguments = "train", "--preset", "digits", "--epochs", 1, "--out", tmp_path / "run"
    assert run(*arguments) == 0
    (tmp_path / "run" / "curves.png").unlink()
    with locked_run(tmp_path / "run"):
        assert run(*arguments) == 0
    said = capsys.readouterr()
    assert "no curves were drawn: " in said.err and "model:" in said.out
    assert run(*arguments) == 0
    assert (tmp_path / "run" / "curves.png").exists()


def test_a_model_that_is_larger_than_the_machine_is_refused(tmp_path, capsys) -> None:
    assert run("train", "--preset", "digits", "--model.width", 65536, "--out", tmp_path / "run") == 5
    assert re.search(
        r"the model has 137,\d+,\d+,\d+ weights; to train them here takes 2,\d+\.\d GiB", capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()


def test_words_and_json_of_each_command_say_the_same(model, photos, capsys) -> None:
    assert run("evaluate", model, "digits") == 0
    assert "top-1   10.00%" in capsys.readouterr().out
    assert run("predict", model, photos) == 0
    assert capsys.readouterr().out.count("10.00%") == 15
    assert run("describe", model) == 0
    words = capsys.readouterr().out
    assert run("describe", model, "--json") == 0
    described = json.loads(capsys.readouterr().out)
    assert described["architecture"]["width"] == 16 and described["file_hash"] in words and "width " in words


def test_what_a_file_does_not_settle_is_said_and_can_be_settled(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = load_file(model / "model.safetensors")
    torch.save({"teacher": weights, "student": weights}, tmp_path / "both.pth")
    assert run("describe", tmp_path / "both.pth") == 5
    assert "say heads=N" in capsys.readouterr().err
    assert run("describe", tmp_path / "both.pth", "--set", "heads=2", "weights=student") == 0
    words = capsys.readouterr().out
    assert "tensors: 32 under our names, 0 renamed or made" in words and "all behind 'student.'" in words
    assert re.search(r"^  heads +2: as asked$", words, re.MULTILINE)
    assert re.search(r"^- teacher\.blocks\.N\.attn\.qkv\.weight  x 2: ", words, re.MULTILINE)
    assert run("describe", tmp_path / "both.pth", "--set", "heads") == 2
    assert "NAME=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize(("to", "name"), [("timm", "out"), ("transformers", "out"), ("google", "out.npz")])
def test_a_model_is_converted_and_says_how_that_was_checked(
    tmp_path: Path, model: Path, photos: Path, to: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settled = ["--set", "activation=gelu-tanh"] if to == "google" else []
    assert run("convert", model, tmp_path / name, "--to", to, *settled) == 0
    words = capsys.readouterr().out.splitlines()
    assert words[:2] == [
        f"{model.parent.name}/model (vitreous) -> {tmp_path / name} ({to})",
        "read again: every weight has every bit",
    ]
    assert run("predict", model, photos, "--json") == run("predict", tmp_path / name, photos, "--json") == 0
    first, second = (lines for lines in np.array_split(capsys.readouterr().out.splitlines(), 2))
    classes = [[json.loads(line)["predictions"][0]["class"] for line in lines] for lines in (first, second)]
    assert classes[0] == classes[1]


def test_settings_count_however_often_and_wherever_they_are_given(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(load_file(model / "model.safetensors"), tmp_path / "w.pth")
    more = ["--set", "norm_eps=0.5", "dropout=0.25"]
    assert run("describe", "--set", "heads=2", tmp_path / "w.pth", *more, "--json") == 0
    architecture = json.loads(capsys.readouterr().out)["architecture"]
    assert [architecture[name] for name in ("heads", "norm_eps", "dropout")] == [2, 0.5, 0.25]


def test_what_is_said_of_a_hostile_name_is_safe_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("describe", "no\nsuch\n\n\n\x1b[31m/thing") == 3
    error = capsys.readouterr().err
    assert "\x1b" not in error and len(error.splitlines()) == 1
    assert run("describe", "x" * 5000) == 3
    assert len(capsys.readouterr().err) < 1100


def test_what_is_guessed_on_the_way_is_printed(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(load_file(model / "model.safetensors"), tmp_path / "w.pth")
    assert run("convert", tmp_path / "w.pth", tmp_path / "out", "--set", "heads=2") == 0
    words = capsys.readouterr().out
    assert "\n? pooling: class" in words and words.endswith("settle it with --set NAME=VALUE\n")
    assert run("convert", tmp_path / "out", tmp_path / "again") == 0
    assert "?" not in capsys.readouterr().out


def test_train_leaves_a_model_that_the_other_commands_take(tmp_path, capsys) -> None:
    assert run("train", "--preset", "digits", "--out", tmp_path / "run", *TINY) == 0
    assert "of 360 test images right" in capsys.readouterr().out
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    assert run("evaluate", tmp_path / "run" / "model", "digits", "--json") == 0
    again = tmp_path / "again"  # the settings that a run writes are themselves a preset
    assert run("train", "--preset", tmp_path / "run" / "config.yaml", "--out", again) == 0
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("run", "again")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["inspect", "MODEL"], 2, "no image was named"),
        (["inspect", "MODEL", "PHOTOS", "--most", "0"], 2, "at least 1"),
        (["inspect", "no-such-model", "PHOTOS"], 2, "no-such-model"),
        (["inspect", "MODEL", "missing.png"], 3, "missing.png: no such file"),
        (["inspect", "MODEL", "EMPTY.png"], 3, "the file is empty"),
        (["inspect", "MODEL", "CUT.png"], 3, "CUT.png"),
        (["inspect", "MODEL", "TEXT.jpg"], 3, "TEXT.jpg"),
        (["inspect", "MODEL", "FOLDER"], 3, "no image in this folder"),
        (["inspect", "MODEL", "PHOTOS", "--out", "TEXT.jpg/report.html"], 4, "cannot be written"),
        (["inspect", "MODEL", "PHOTOS", "--json", "FOLDER"], 4, "folder"),
        (["inspect", "models:no_attention", "PHOTOS"], 5, "no attention among tokens"),
        (["inspect", "models:refuses", "PHOTOS"], 2, "33"),
        (["inspect", "models:broken", "PHOTOS"], 6, "0.png: attention is NaN"),
        (["inspect", "models:demands", "PHOTOS"], 2, "refused a batch of (3, 3, 224, 224)"),
        (["inspect", "models:fails", "PHOTOS"], 2, "models:fails failed: no luck"),
        (["inspect", "MODEL", "PHOTOS", "--out", "a.html", "--json", "a.html"], 2, "same file"),
        (["inspect", "MODEL", "MINE.png", "--out", "MINE.png"], 2, "is one of the images"),
        (["inspect", "MODEL", "PHOTOS", "--workers", "-1"], 2, "workers is -1"),
        (["inspect", "MODEL", "PHOTOS", "--device", "abacus"], 2, "device 'abacus' cannot be used"),
        (["inspect", "MODEL", "MODEL", "PHOTOS", "--sizes", "group"], 2, "sizes group is for one model"),
        (["inspect", *["MODEL"] * 13, "PHOTOS"], 2, "13 models are too many"),
        (["inspect", "MODEL", "PHOTOS", "MODEL"], 2, "stands behind the image"),
        (["inspect", "MODEL", "PHOTOS", "--flow", "1", "--flow-heads", "9"], 2, "heads 0 to 1"),
        (["inspect", "MODEL", "PHOTOS", "--flow", "0", "--flow-top-k", "0"], 2, "top_k is 0"),
        (["inspect"], 2, "no image was named"),
        (["inspect", "MODEL", "PHOTOS", "CUT.png", "--strict"], 3, "CUT.png"),
        (["inspect", "MODEL", "PHOTOS", "--out", "PIPE"], 4, "is a device or a pipe"),
        (["inspect", "MODEL", "PHOTOS", "--out", "new/a.html", "--most", "0"], 2, "at least 1"),
        (["inspect", "x" * 300, "PHOTOS"], 3, "ame too long"),
        (["predict", "models:headless", "PHOTOS"], 5, "no classification head"),
        (["predict", "HOSTILE", "PHOTOS"], 5, "no possible model"),
        (["train", "--out", "OWN"], 4, "no settings of a run"),
        (["evaluate", "MODEL", "no-such-data"], 3, "no such data set"),
        (["evaluate", "DAMAGED", "digits"], 5, "model.safetensors"),
        (["predict", "MODEL"], 2, "no image was named"),
        (["train", "--preset", "digit", "--out", "run"], 2, "'digit' is no preset; did you mean digits?"),
        (["train", "--out", "TEXT.jpg"], 4, "TEXT.jpg"),
        (["train", "--out", "run", "--optimizer.name", "adamx"], 2, "adamw, adam, sgd, muon; did you mean adam?"),
        (["train", "--augmentation.policy=randaug", "--out", "run"], 2, "did you mean randaugment?"),
        (["train", "--out", "new/run", "--data", "digts"], 3, "file or folder; did you mean digits?"),
        (["train", "--out", "run", "--model.classes", "7"], 2, "model.classes is 7, but digits has 10 classes"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_a_mistake_is_three_lines_at_most_with_its_own_exit_code(
    arguments: list[str], code: int, words: str, model: Path, photos: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY.png").write_bytes(b"")
    (tmp_path / "CUT.png").write_bytes((photos / "0.png").read_bytes()[:60])
    (tmp_path / "TEXT.jpg").write_text("<html>not an image</html>")
    (tmp_path / "FOLDER").mkdir()
    (tmp_path / "DAMAGED").mkdir()
    (tmp_path / "DAMAGED" / "config.json").write_bytes((model / "config.json").read_bytes())
    (tmp_path / "DAMAGED" / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:-20])
    (tmp_path / "models.py").write_text(USERS_MODELS)
    (tmp_path / "MINE.png").write_bytes((photos / "0.png").read_bytes())
    (tmp_path / "OWN").mkdir()
    (tmp_path / "OWN" / "config.yaml").write_text("mine: 1\n")
    os.mkfifo(tmp_path / "PIPE")
    (tmp_path / "HOSTILE").mkdir()
    hostile = json.loads((model / "config.json").read_text())
    hostile["vitreous"]["config"]["classes"] = 10**19
    hostile["num_classes"] = 10**19
    hostile["label_names"] = []
    (tmp_path / "HOSTILE" / "config.json").write_text(json.dumps(hostile))
    (tmp_path / "HOSTILE" / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    monkeypatch.delitem(sys.modules, "models", raising=False)
    before = {path.name for path in tmp_path.iterdir()}
    names = {"MODEL": str(model), "PHOTOS": str(photos)}
    assert run(*(names.get(argument, argument) for argument in arguments)) == code
    error = capsys.readouterr()
    lines = [line for line in error.err.splitlines() if "━" not in line]  # progress bars aside
    message = [line for line in lines if line.startswith("vitreous: ")]
    assert len(message) == 1 and len(lines[lines.index(message[0]) :]) <= 3
    assert words in error.err and "Traceback" not in error.err and error.out == ""
    left = {path.name for path in tmp_path.iterdir()} - before
    assert left <= {"__pycache__"}, "nothing half-written is left"


USERS_MODELS = """
import torch
from vitreous.data.preprocess import Preprocess
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer

def vit():
    return VisionTransformer(ViTConfig(width=16, depth=1, heads=2, classes=4))

def no_attention():
    return torch.nn.Conv2d(3, 4, 3)

def refuses():
    return vit()

refuses.preprocess = Preprocess((33, 33))

def demands():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(7, 3))

def fails():
    raise ValueError("no luck")

def headless():
    return VisionTransformer(ViTConfig(width=16, depth=1, heads=2, classes=0))

def broken():
    model = vit()
    torch.nn.init.constant_(model.blocks[0].attn.qkv.weight, float("nan"))
    return model
"""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inspekt"], "inspect"),
        (["predict", "model", "photos", "--jsn"], "--json"),
        (["train", "--out", "run", "--model.heads", "7"], "width 64 is not a multiple of heads 7"),
        (["train", "--out", "run", "--model.dept", "7"], "--model.depth"),
    ],
)
def test_a_wrong_word_is_answered_with_the_right_one_and_code_2(arguments: list[str], words: str, capsys) -> None:
    assert run(*arguments) == 2
    assert words in " ".join(capsys.readouterr().err.replace("│", "").split())


def test_debug_shows_the_traceback(model) -> None:
    with pytest.raises(vitreous.VitreousError):
        main(["predict", str(model), "missing.png", "--debug"])


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "vitreous", *map(str, arguments)]


def test_version_and_help_are_answered(capsys) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"vitreous {vitreous.__version__}\n"
    helped = subprocess.run(command("--help"), capture_output=True, text=True, check=True)
    assert all(word in helped.stdout for word in ("train", "evaluate", "predict", "inspect", "describe", "convert"))


def test_the_overview_has_a_line_a_command_and_a_commands_own_help_all_of_it(capsys) -> None:
    assert run("--help") == 0
    overview = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert "whose weights stay as they are. • ablate" in overview and "least squares" not in overview
    assert run("probe", "--help") == 0
    assert "least squares" in capsys.readouterr().out


def test_results_and_progress_go_to_different_streams(model, photos) -> None:
    done = subprocess.run(command("predict", model, photos, "--json"), capture_output=True, text=True, check=True)
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 3
    assert "predicting" in done.stderr


def test_a_reader_that_goes_away_ends_the_command_quietly(model) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command("evaluate", model, "digits"), stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == 0 and "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_interrupting_a_run_gives_130_and_leaves_no_model(tmp_path) -> None:
    started = subprocess.Popen(
        command("train", "--out", tmp_path / "run", "--epochs", 500),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size) and started.poll() is None:
        time.sleep(0.02)
    started.send_signal(signal.SIGINT)
    _, error = started.communicate(timeout=60)
    assert started.returncode == 130 and "Traceback" not in error
    assert "saved; the same command goes on from there" in error
    assert not (tmp_path / "run" / "model").exists() and list((tmp_path / "run" / "states").iterdir())


def test_names_from_a_file_cannot_write_to_the_terminal(photos, tmp_path, capsys) -> None:
    config = ViTConfig(image_size=(16, 16), patch_size=(4, 4), width=16, depth=1, heads=2, classes=2)
    preprocess = Preprocess((16, 16), "squash", 1.0)
    names = ["\x1b[2Jzero\nfake line", "\u202eone"]
    vitreous.save(VisionTransformer(config), tmp_path / "m", preprocess=preprocess, class_names=names)
    for command in (["predict", tmp_path / "m", photos], ["describe", tmp_path / "m"]):
        assert run(*command) == 0
        printed = capsys.readouterr().out
        assert "\x1b" not in printed and "\nfake" not in printed and "\u202e" not in printed and "zero" in printed


def test_a_result_is_written_through_a_link(model, photos, tmp_path, capsys) -> None:
    (tmp_path / "link.html").symlink_to(tmp_path / "target.html")
    assert run("inspect", model, photos, "--out", tmp_path / "link.html") == 0
    assert (tmp_path / "link.html").is_symlink() and (tmp_path / "target.html").stat().st_size > 10_000


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_output_is_said(model) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command("describe", model), stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 4 and "standard output" in done.stderr and "Traceback" not in done.stderr
