from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from vitreous.checkpoints.sources import open_model
from vitreous.data.datasets import open_dataset
from vitreous.data.order import epoch_order
from vitreous.data.preprocess import Preprocess
from vitreous.data.transforms import to_tensor
from vitreous.errors import ConfigError, InputError, NumericError, OutputError
from vitreous.model.config import ViTConfig
from vitreous.training import loop
from vitreous.training.config import Augmentation, Optim, TrainConfig
from vitreous.training.evaluate import evaluate
from vitreous.training.loop import train
from vitreous.training.settings_file import plain, read_config


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Noisy red and blue squares: 14 to train with, 6 to test."""
    noise = torch.Generator().manual_seed(0)
    for part, count in (("train", 7), ("test", 3)):
        for name, channel in (("blue", 2), ("red", 0)):
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for n in range(count):
                pixels = torch.randint(0, 100, (8, 8, 3), generator=noise, dtype=torch.uint8)
                pixels[..., channel] += 120
                Image.fromarray(pixels.numpy()).save(folder / f"{n}.png")
    return tmp_path / "photos"


def _config(photos: Path, **changes: Any) -> TrainConfig:
    config = TrainConfig(
        data=str(photos),
        model=ViTConfig((8, 8), (4, 4), classes=2, width=8, depth=2, heads=2, mlp_ratio=2.0, dropout=0.1),
        preprocess=Preprocess((8, 8), "squash", 1.0),
        optimizer=Optim(learning_rate=0.02, warmup=2),
        augmentation=Augmentation(shift=1, rotation=5, scale=0.1, flip=True),
        epochs=2,
        batch_size=4,
        label_smoothing=0.1,
        threads=1,
    )
    return replace(config, **changes)


def _hash(folder: Path) -> str:
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()


def test_it_learns_and_says_how_well(photos: Path, tmp_path: Path) -> None:
    result = train(_config(photos, epochs=20), tmp_path / "run", progress=False)
    assert result.evaluation.top1 == 1.0
    assert result.steps == 20 * 4
    assert result.model == tmp_path / "run" / "model"
    reopened = open_model(result.model)
    assert reopened.class_names == ("blue", "red")
    again = evaluate(reopened, open_dataset(photos))
    assert again.top1 == result.evaluation.top1
    assert again.loss == pytest.approx(result.evaluation.loss, rel=1e-5)


def test_the_folder_says_what_was_done(photos: Path, tmp_path: Path) -> None:
    config = _config(photos)
    result = train(config, tmp_path / "run", progress=False)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.yaml", "metrics.jsonl", "model"]
    assert read_config(tmp_path / "run" / "config.yaml") == config
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 4), (2, 8)]
    assert lines[-1]["test_top1"] == result.evaluation.top1
    assert all(math.isfinite(value) for line in lines for value in line.values())
    saved = open_model(result.model).model.provenance["saved"]
    assert saved["config"] == json.loads(json.dumps(plain(config)))
    assert saved["test_top1"] == result.evaluation.top1
    assert saved["versions"]["torch"] == torch.__version__


def test_the_same_seed_gives_the_same_bits(photos: Path, tmp_path: Path) -> None:
    config = _config(photos)
    torch.manual_seed(1)
    train(config, tmp_path / "first", progress=False)
    torch.manual_seed(2)
    train(config, tmp_path / "second", progress=False)
    train(config, tmp_path / "second", progress=False)
    train(replace(config, workers=5), tmp_path / "workers", progress=False)
    train(replace(config, seed=1), tmp_path / "seed", progress=False)
    assert _hash(tmp_path / "first") == _hash(tmp_path / "second") == _hash(tmp_path / "workers")
    assert _hash(tmp_path / "first") != _hash(tmp_path / "seed")


def test_checkpoints_are_kept_and_change_no_bit(photos: Path, tmp_path: Path) -> None:
    config = _config(photos, epochs=5, keep_every=2)
    for _ in range(2):  # made again, to the same bits
        train(config, tmp_path / "kept", progress=False)
        epochs = sorted(path.name for path in (tmp_path / "kept" / "checkpoints").iterdir())
        assert epochs == ["epoch-0000", "epoch-0002", "epoch-0004", "epoch-0005"]
    train(replace(config, keep_every=0), tmp_path / "plain", progress=False)
    assert not (tmp_path / "plain" / "checkpoints").exists()
    assert _hash(tmp_path / "kept") == _hash(tmp_path / "plain")
    metrics = [json.loads(line) for line in (tmp_path / "kept" / "metrics.jsonl").read_text().splitlines()]
    weights = {}
    for name in epochs:
        opened = open_model(tmp_path / "kept" / "checkpoints" / name)
        weights[name] = opened.model.state_dict()
        assert opened.class_names == ("blue", "red") and opened.preprocess == config.preprocess
        saved = opened.model.provenance["saved"]
        assert saved["epoch"] == int(name[-4:])
        if saved["epoch"]:
            assert saved["test_top1"] == metrics[saved["epoch"] - 1]["test_top1"]
    first = loop.VisionTransformer(config.model, generator=torch.Generator().manual_seed(loop.keyed_seed(config.seed)))
    final = open_model(tmp_path / "kept").model.state_dict()  # of a run's folder, the final model
    for name, weight in first.state_dict().items():
        assert torch.equal(weights["epoch-0000"][name], weight)
        assert torch.equal(weights["epoch-0005"][name], final[name])
    assert not torch.equal(weights["epoch-0002"]["head.weight"], weights["epoch-0004"]["head.weight"])


def test_an_earlier_runs_checkpoints_do_not_stay(photos: Path, tmp_path: Path) -> None:
    train(_config(photos, epochs=3, keep_every=1), tmp_path / "run", progress=False)
    (tmp_path / "run" / "model").rename(tmp_path / "elsewhere")  # now the run counts as unfinished
    (tmp_path / "run" / "checkpoints" / "mine").mkdir()
    train(_config(photos, epochs=2, keep_every=2), tmp_path / "run", progress=False)
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["epoch-0000", "epoch-0002", "mine"]


def test_one_step_equals_the_rule_written_out(photos: Path, tmp_path: Path) -> None:
    config = _config(
        photos,
        model=ViTConfig((8, 8), (4, 4), classes=2, width=8, depth=1, heads=2),
        optimizer=Optim(name="sgd", learning_rate=0.5, weight_decay=0.0, momentum=0.0, warmup=0, clip=0.1),
        augmentation=Augmentation(),
        epochs=1,
        batch_size=14,
    )
    trained = open_model(train(config, tmp_path / "run", progress=False).model).model
    model = loop.VisionTransformer(config.model, generator=torch.Generator().manual_seed(loop.keyed_seed(config.seed)))
    images = open_dataset(photos, "train")
    order = epoch_order(14, seed=config.seed, epoch=0).tolist()
    inputs = torch.stack([to_tensor(images.read(n), config.preprocess) for n in order])
    shares = model(inputs).log_softmax(-1)
    targets = 0.9 * F.one_hot(torch.tensor([images.labels[n] for n in order]), 2) + 0.1 / 2
    (-(targets * shares).sum(-1).mean()).backward()
    length = torch.cat([weight.grad.flatten() for weight in model.parameters()]).norm()
    assert length > 0.1  # so that the gradient is clipped
    for (name, weight), after in zip(model.named_parameters(), trained.parameters(), strict=True):
        expected = weight - 0.5 * weight.grad * 0.1 / length
        torch.testing.assert_close(after.detach(), expected.detach(), atol=1e-5, rtol=1e-4, msg=name)


def test_torch_is_left_as_it_was(photos: Path, tmp_path: Path) -> None:
    before = torch.get_rng_state(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    train(_config(photos, epochs=1, threads=2), tmp_path / "run", progress=False)
    after = torch.get_rng_state(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_a_diverging_run_names_the_step_and_leaves_no_model(photos: Path, tmp_path: Path) -> None:
    wild = Optim(name="sgd", learning_rate=1e30, warmup=0, clip=None)
    with pytest.raises(NumericError, match=r"is (nan|inf) at step \d+ \(epoch \d+\).*learning_rate"):
        train(_config(photos, optimizer=wild), tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize("where", ["augment", "save"])
def test_an_interrupted_run_leaves_no_half_of_a_model(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, where, interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(_config(photos), tmp_path / "run", progress=False)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.yaml", "metrics.jsonl"]
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_place_that_cannot_be_written_is_refused_before_the_data_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        train(_config(tmp_path / "no data here"), tmp_path / "file" / "run", progress=False)


def test_missing_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such data set"):
        train(_config(tmp_path / "missing"), tmp_path / "run", progress=False)


def test_classes_that_do_not_fit_are_refused(photos: Path, tmp_path: Path) -> None:
    model = replace(_config(photos).model, classes=3)
    with pytest.raises(ConfigError, match=r"model\.classes is 3, but .* has 2 classes; set model\.classes to 2"):
        train(_config(photos, model=model), tmp_path / "run", progress=False)
    (photos / "test" / "red").rename(photos / "test" / "rot")
    with pytest.raises(ConfigError, match="give both parts the same folders"):
        train(_config(photos), tmp_path / "run", progress=False)


def test_progress_goes_to_standard_error(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(_config(photos), tmp_path / "run")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "training" in captured.err and "top-1" in captured.err and "images/s" in captured.err


def test_a_batch_larger_than_the_data_is_one_batch(photos: Path, tmp_path: Path) -> None:
    assert train(_config(photos, batch_size=1000), tmp_path / "run", progress=False).steps == 2
