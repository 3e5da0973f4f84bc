from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.checkpoints.sources import open_model
from vitreous.data.augmentation import Augmentation
from vitreous.data.datasets import open_dataset
from vitreous.data.gather import gather_pictures
from vitreous.data.order import epoch_order, keyed_seed
from vitreous.data.transforms import to_tensor
from vitreous.errors import CheckpointError, InputError, NumericError, OutputError
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer
from vitreous.training import loop, preparing
from vitreous.training.config import Keeping, Optim, TrainConfig
from vitreous.training.evaluate import evaluate
from vitreous.training.lock import locked_run
from vitreous.training.loop import train
from vitreous.training.predict import predict
from vitreous.training.settings_file import plain, read_config

PLAIN = ViTConfig((8, 8), (4, 4), classes=2, width=8, depth=1, heads=2)


def _hash(folder: Path) -> str:
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _weights(folder: Path) -> dict[str, Tensor]:
    return open_model(folder).model.state_dict()


def _first_model(config: TrainConfig) -> VisionTransformer:
    return VisionTransformer(config.model, generator=torch.Generator().manual_seed(keyed_seed(config.seed)))


def test_it_learns_and_says_how_well(tiny_run: TrainConfig, tmp_path: Path) -> None:
    result = train(replace(tiny_run, epochs=12), tmp_path / "run", progress=False)
    assert result.evaluation is not None and result.evaluation.top1 == 1.0
    assert result.steps == 12 * 4 and not result.was_there
    assert result.model == tmp_path / "run" / "model"
    reopened = open_model(result.model)
    assert reopened.class_names == ("blue", "red")
    again = evaluate(reopened, open_dataset(tiny_run.data))
    assert again.top1 == result.evaluation.top1
    assert again.loss == pytest.approx(result.evaluation.loss, rel=1e-5)  # in float32, though it learned in bfloat16


def test_the_folder_says_what_was_done(tiny_run: TrainConfig, tmp_path: Path) -> None:
    result = train(tiny_run, tmp_path / "run", progress=False)
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["config.yaml", "evaluation.json", "metrics.jsonl", "model"]
    assert read_config(tmp_path / "run" / "config.yaml") == tiny_run
    lines = _lines(tmp_path / "run")
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 4), (2, 8)]
    assert result.evaluation is not None and lines[-1]["test_top1"] == result.evaluation.top1
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert all(line["mfu"] > 0 and line["peak_memory_mib"] > 10 for line in lines)
    saved = open_model(result.model).model.provenance["saved"]
    assert saved["config"] == json.loads(json.dumps(plain(tiny_run)))
    assert saved["test_top1"] == result.evaluation.top1
    assert saved["versions"]["torch"] == torch.__version__


def test_the_same_seed_gives_the_same_bits(tiny_run: TrainConfig, tmp_path: Path) -> None:
    torch.manual_seed(1)
    train(tiny_run, tmp_path / "first", progress=False)
    torch.manual_seed(2)
    train(tiny_run, tmp_path / "second", progress=False)
    train(replace(tiny_run, workers=2), tmp_path / "workers", progress=False)
    train(replace(tiny_run, seed=1), tmp_path / "seed", progress=False)
    assert _hash(tmp_path / "first") == _hash(tmp_path / "second") == _hash(tmp_path / "workers")
    assert _hash(tmp_path / "first") != _hash(tmp_path / "seed")


def test_a_finished_run_is_kept_and_said_to_be_there(
    tiny_run: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = train(tiny_run, tmp_path / "run", progress=False)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    after = train(tiny_run, tmp_path / "run")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == files
    assert "finished" in capsys.readouterr().err
    assert after.was_there and after.steps == before.steps
    assert after.evaluation is not None and before.evaluation is not None
    assert after.evaluation.to_dict() == before.evaluation.to_dict()
    kept = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    kept["data"] = {}  # as of an earlier version
    (tmp_path / "run" / "evaluation.json").write_text(json.dumps(kept))
    assert train(tiny_run, tmp_path / "run", progress=False).was_there
    (tmp_path / "run" / "evaluation.json").unlink()  # as of an earlier version still: tested again
    again = train(tiny_run, tmp_path / "run", progress=False)
    assert again.was_there and again.steps == 8 and again.evaluation is not None
    assert again.evaluation.loss == pytest.approx(before.evaluation.loss, rel=1e-5)


def test_a_run_that_was_killed_in_its_last_moment_is_cleared_up(tiny_run: TrainConfig, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(tiny_run, out, progress=False)
    left = set(out.rglob("*"))
    (out / "run.lock").touch()  # nobody holds it
    (out / "states").mkdir()
    (out / "states" / "step-000000007.safetensors").touch()
    (out / ".curves.png.abcd_012.tmp").touch()
    with locked_run(out):  # somebody does
        assert train(tiny_run, out, progress=False).was_there
        assert (out / "states").exists()
    (out / "run.lock").touch()
    assert train(tiny_run, out, progress=False).was_there
    assert set(out.rglob("*")) == left


def test_a_run_that_another_trainer_finished_meanwhile_is_not_begun_anew(
    tiny_run: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(tiny_run, keep=Keeping(models_every=1, best=True))
    joined = loop.process_group

    @contextmanager
    def others_first() -> Iterator[Any]:
        monkeypatch.setattr(loop, "process_group", joined)
        train(config, tmp_path / "run", progress=False)
        with joined() as ranks:
            yield ranks

    monkeypatch.setattr(loop, "process_group", others_first)
    found = train(config, tmp_path / "run", progress=False)
    assert found.was_there and found.steps == 8
    assert len(_lines(tmp_path / "run")) == 2 and (tmp_path / "run" / "best").exists()


def test_a_run_of_another_config_that_was_finished_meanwhile_is_refused(
    tiny_run: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined = loop.process_group

    @contextmanager
    def others_first() -> Iterator[Any]:
        monkeypatch.setattr(loop, "process_group", joined)
        train(replace(tiny_run, seed=7), tmp_path / "run", progress=False)
        with joined() as ranks:
            yield ranks

    monkeypatch.setattr(loop, "process_group", others_first)
    with pytest.raises(CheckpointError, match=r"finished run of another config: seed 7 -> 0\n"):
        train(tiny_run, tmp_path / "run", progress=False)


def test_hidden_patches_whose_weights_are_no_numbers_leave_no_model(
    tiny_run: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = loop._look

    def spoil(run: Any, desk: Any, *, in_float32: bool) -> Any:
        if in_float32:
            torch.nn.init.constant_(next(run.model.parameters()), math.inf)
        return looked(run, desk, in_float32=in_float32)

    monkeypatch.setattr(loop, "_look", spoil)
    with pytest.raises(NumericError, match="after step 8 the weights are NaN or infinite\n") as caught:
        train(replace(tiny_run, task="masked-patches"), tmp_path / "run", progress=False)
    assert caught.value.exit_code == 6
    assert not (tmp_path / "run" / "model").exists() and (tmp_path / "run" / "states").exists()


def test_checkpoints_are_kept_and_change_no_bit(tiny_run: TrainConfig, tmp_path: Path) -> None:
    config = replace(tiny_run, epochs=5, keep=Keeping(models_every=2))
    train(config, tmp_path / "kept", progress=False)
    epochs = sorted(path.name for path in (tmp_path / "kept" / "checkpoints").iterdir())
    assert epochs == ["epoch-0000", "epoch-0002", "epoch-0004", "epoch-0005"]
    train(replace(config, keep=Keeping()), tmp_path / "plain", progress=False)
    assert not (tmp_path / "plain" / "checkpoints").exists()
    assert _hash(tmp_path / "kept") == _hash(tmp_path / "plain")
    metrics = _lines(tmp_path / "kept")
    weights = {}
    for name in epochs:
        opened = open_model(tmp_path / "kept" / "checkpoints" / name)
        weights[name] = opened.model.state_dict()
        assert opened.class_names == ("blue", "red") and opened.preprocess == config.preprocess
        saved = opened.model.provenance["saved"]
        assert saved["epoch"] == int(name[-4:])
        if saved["epoch"]:
            assert saved["test_top1"] == metrics[saved["epoch"] - 1]["test_top1"]
    final = _weights(tmp_path / "kept")  # of a run's folder, the final model
    for name, weight in _first_model(config).state_dict().items():
        assert torch.equal(weights["epoch-0000"][name], weight)
        assert torch.equal(weights["epoch-0005"][name], final[name])
    assert not torch.equal(weights["epoch-0002"]["head.weight"], weights["epoch-0004"]["head.weight"])


def test_the_best_model_is_the_first_of_those_that_did_best(tiny_run: TrainConfig, tmp_path: Path) -> None:
    train(replace(tiny_run, epochs=6, keep=Keeping(best=True, models_every=1)), tmp_path / "run", progress=False)
    accuracies = [line["test_top1"] for line in _lines(tmp_path / "run")]
    best = accuracies.index(max(accuracies)) + 1
    kept, expected = _weights(tmp_path / "run" / "best"), _weights(tmp_path / "run/checkpoints" / f"epoch-{best:04}")
    assert all(torch.equal(kept[name], weight) for name, weight in expected.items())


def test_one_step_equals_the_rule_written_out(tiny_run: TrainConfig, tmp_path: Path) -> None:
    config = replace(
        tiny_run,
        model=PLAIN,
        optimizer=Optim(name="sgd", learning_rate=0.5, weight_decay=0.0, momentum=0.0, warmup=0, clip=0.1),
        augmentation=Augmentation(),
        precision="float32",
        epochs=1,
        batch_size=14,
    )
    trained = open_model(train(config, tmp_path / "run", progress=False).model).model
    model = _first_model(config)
    images = open_dataset(config.data, "train")
    order = epoch_order(14, seed=config.seed, epoch=0).tolist()
    inputs = torch.stack([to_tensor(images.read(n), config.preprocess) for n in order])
    labels = torch.tensor([images.labels[n] for n in order])
    shares = model(inputs).log_softmax(-1)
    targets = 0.9 * F.one_hot(labels, 2) + 0.1 / 2
    loss = -(targets * shares).sum(-1).mean()
    loss.backward()
    length = torch.cat([weight.grad.flatten() for weight in model.parameters()]).norm()
    assert length > 0.1  # so that the gradient is clipped
    for (name, weight), after in zip(model.named_parameters(), trained.parameters(), strict=True):
        expected = weight - 0.5 * weight.grad * 0.1 / length
        torch.testing.assert_close(after.detach(), expected.detach(), atol=1e-5, rtol=1e-4, msg=name)
    (line,) = _lines(tmp_path / "run")
    assert line["train_loss_nats"] == pytest.approx(loss.item(), rel=1e-5)
    assert line["gradient_length"] == pytest.approx(length.item(), rel=1e-4)
    assert line["train_top1"] == pytest.approx((shares.argmax(-1) == labels).double().mean().item())
    assert line["learning_rate"] == 0.5


def test_a_batch_in_parts_learns_as_the_whole_does(tiny_run: TrainConfig, tmp_path: Path) -> None:
    """14 images in batches of 4: the last one has 2 images, and of its 4 parts some have none."""
    optim = Optim(name="sgd", learning_rate=0.5, warmup=0, clip=None)
    config = replace(tiny_run, model=PLAIN, optimizer=optim, precision="float32", epochs=2)
    train(config, tmp_path / "whole", progress=False)
    whole = _weights(tmp_path / "whole")
    first = _first_model(config).state_dict()
    for parts in (2, 4):
        train(replace(config, accumulate=parts), tmp_path / str(parts), progress=False)
        for name, weight in _weights(tmp_path / str(parts)).items():
            torch.testing.assert_close(weight, whole[name], atol=2e-6, rtol=1e-5)
        for line, expected in zip(_lines(tmp_path / str(parts)), _lines(tmp_path / "whole"), strict=True):
            for number in ("train_loss_nats", "gradient_length", "train_top1"):
                assert line[number] == pytest.approx(expected[number], rel=1e-5)
    assert not torch.allclose(first["blocks.0.mlp.fc1.weight"], whole["blocks.0.mlp.fc1.weight"], atol=1e-3)


def test_the_average_is_what_is_tested_and_saved(tiny_run: TrainConfig, tmp_path: Path) -> None:
    config = replace(tiny_run, epochs=4, batch_size=14, precision="float32", keep=Keeping(models_every=1))
    train(config, tmp_path / "plain", progress=False)
    average = _first_model(config).state_dict()
    for step in (1, 2, 3, 4):  # one for each epoch
        kept = min(0.2, step / (step + 9))
        weights = _weights(tmp_path / "plain" / "checkpoints" / f"epoch-{step:04}")
        average = {name: kept * average[name] + (1 - kept) * weights[name] for name in average}
    result = train(replace(config, ema=0.2), tmp_path / "averaged", progress=False)
    found = _weights(result.model)
    for name, weight in average.items():
        torch.testing.assert_close(found[name], weight, atol=1e-6, rtol=1e-5)
        moved = not torch.equal(weight, _first_model(config).state_dict()[name])
        assert not moved or not torch.equal(found[name], weights[name])
    again = evaluate(open_model(result.model), open_dataset(config.data))
    assert result.evaluation is not None and again.loss == pytest.approx(result.evaluation.loss, rel=1e-5)


def test_steps_in_place_of_epochs_end_in_the_middle_of_one(tiny_run: TrainConfig, tmp_path: Path) -> None:
    config = replace(tiny_run, steps=6, optimizer=Optim(schedule="linear", learning_rate=0.02, warmup=2))
    assert train(config, tmp_path / "run", progress=False).steps == 6
    lines = _lines(tmp_path / "run")
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 4), (2, 6)]
    assert [line["learning_rate"] for line in lines] == pytest.approx([0.02 * 3 / 4, 0.02 * 1 / 4])
    train(replace(config, steps=8), tmp_path / "eight", progress=False)
    train(replace(config, steps=None, epochs=2), tmp_path / "epochs", progress=False)
    assert _hash(tmp_path / "eight") == _hash(tmp_path / "epochs")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_recomputing_gives_the_same_bits(tiny_run: TrainConfig, tmp_path: Path, precision: Any) -> None:
    config = replace(tiny_run, model=replace(tiny_run.model, drop_path=0.3), precision=precision)
    train(config, tmp_path / "kept", progress=False)
    train(replace(config, recompute=True), tmp_path / "recomputed", progress=False)
    assert _hash(tmp_path / "kept") == _hash(tmp_path / "recomputed")


def test_bfloat16_learns_other_bits_of_nearly_the_same(tiny_run: TrainConfig, tmp_path: Path) -> None:
    for precision in ("float32", "bfloat16"):
        train(replace(tiny_run, precision=precision), tmp_path / precision, progress=False)
    exact, half = (_lines(tmp_path / precision)[-1] for precision in ("float32", "bfloat16"))
    assert exact["train_loss_nats"] != half["train_loss_nats"]
    assert half["train_loss_nats"] == pytest.approx(exact["train_loss_nats"], rel=0.02)
    assert all(weight.dtype == torch.float32 for weight in _weights(tmp_path / "bfloat16").values())


def test_mixed_images_and_a_binary_loss_are_learned_from(tiny_run: TrainConfig, tmp_path: Path) -> None:
    config = replace(tiny_run, loss="binary", augmentation=Augmentation(mixup=0.2, cutmix=1.0, flip=True), epochs=12)
    result = train(config, tmp_path / "run", progress=False)
    lines = _lines(tmp_path / "run")
    assert result.evaluation is not None and result.evaluation.top1 == 1.0
    assert lines[-1]["train_loss_nats"] < 0.9 * lines[0]["train_loss_nats"]
    # of two classes, each taken for half true, the first loss would be 2 ln 2; it starts at their true share
    assert lines[0]["train_loss_nats"] < 2 * math.log(2) + 0.1


def test_hidden_patches_are_learned_without_classes(tiny_run: TrainConfig, tmp_path: Path) -> None:
    config = replace(tiny_run, task="masked-patches", epochs=6)
    result = train(config, tmp_path / "run", progress=False)
    assert result.evaluation is None
    with pytest.raises(CheckpointError, match="has no classification head"):
        predict(open_model(tmp_path / "run"), gather_pictures(Path(tiny_run.data) / "test"))
    lines = _lines(tmp_path / "run")
    assert lines[-1]["train_loss_nats"] < lines[0]["train_loss_nats"] < 1.05 * math.log(512)
    assert "test_top1" not in lines[0] and "train_colour_top1" in lines[0]
    assert train(config, tmp_path / "run", progress=False).evaluation is None
    started = replace(tiny_run, start=str(tmp_path / "run"), epochs=1, keep=Keeping(models_every=1))
    train(started, tmp_path / "fine-tuned", progress=False)
    start = _weights(tmp_path / "fine-tuned" / "checkpoints" / "epoch-0000")
    assert torch.equal(start["blocks.0.mlp.fc1.weight"], _weights(tmp_path / "run")["blocks.0.mlp.fc1.weight"])


def test_torch_is_left_as_it_was(tiny_run: TrainConfig, tmp_path: Path) -> None:
    before = torch.get_rng_state(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    train(replace(tiny_run, epochs=1, batch_size=14, threads=2), tmp_path / "run", progress=False)
    after = torch.get_rng_state(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_a_diverging_run_names_the_step_and_its_files_and_keeps_what_was_good(
    tiny_run: TrainConfig, tmp_path: Path
) -> None:
    wild = Optim(name="sgd", learning_rate=1e30, warmup=0, clip=None)
    config = replace(tiny_run, optimizer=wild, keep=Keeping(state_seconds=0))
    with pytest.raises(
        NumericError, match=r"is (nan|inf) at step 2, in the batch of \w+/\d.png, .* and 1 more"
    ) as caught:
        train(config, tmp_path / "run", progress=False)
    assert caught.value.exit_code == 6 and "optimizer.learning_rate" in str(caught.value)
    second = epoch_order(14, seed=0, epoch=0)[4:8].tolist()
    assert all(open_dataset(config.data, "train").image_names[sample] in str(caught.value) for sample in second[:3])
    assert len((tmp_path / "run" / "bad-batch.txt").read_text().splitlines()) == 4
    assert not (tmp_path / "run" / "model").exists()
    assert [path.name for path in (tmp_path / "run" / "states").iterdir()] == ["step-000000001.safetensors"]


def test_a_run_that_diverges_in_an_epochs_last_step_says_so_when_it_is_tested(
    tiny_run: TrainConfig, tmp_path: Path
) -> None:
    wild = Optim(name="sgd", learning_rate=1e30, warmup=0, clip=None)
    with pytest.raises(NumericError, match=r"after step 1 the logits of the test part are NaN .*\n.*learning_rate"):
        train(replace(tiny_run, optimizer=wild, batch_size=14), tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize("where", ["training_images", "save"])
def test_an_interrupted_run_leaves_no_half_of_a_model(
    tiny_run: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(preparing, where, interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_run, tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "model").exists()
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_place_that_cannot_be_written_is_refused_before_the_data_is_read(
    tiny_run: TrainConfig, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        train(replace(tiny_run, data="no data here"), tmp_path / "file" / "run", progress=False)


def test_missing_data_is_refused(tiny_run: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such data set"):
        train(replace(tiny_run, data=str(tmp_path / "missing")), tmp_path / "run", progress=False)


def test_progress_goes_to_standard_error(
    tiny_run: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")  # else the end of the line is cut off where tests have no terminal
    train(tiny_run, tmp_path / "run")
    captured = capsys.readouterr()
    assert captured.out == ""
    for word in ("computes on", "training", "8/8", "epoch 2/2", "top-1", "images/s", "MFU"):
        assert word in " ".join(captured.err.split()), word


def test_a_batch_larger_than_the_data_is_one_batch(tiny_run: TrainConfig, tmp_path: Path) -> None:
    assert train(replace(tiny_run, batch_size=1000), tmp_path / "run", progress=False).steps == 2


def test_a_finished_run_whose_data_changed_since_is_refused_with_the_difference(
    tiny_run: TrainConfig, photos: Path, tmp_path: Path
) -> None:
    config = replace(tiny_run, epochs=1)
    train(config, tmp_path / "run", progress=False)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    photos.rename(tmp_path / "elsewhere")  # another place is no other data
    (tmp_path / "elsewhere").rename(photos)
    assert train(config, tmp_path / "run", progress=False).was_there
    (photos / "train" / "red" / "0.png").unlink()
    (photos / "test" / "blue" / "9.png").write_bytes((photos / "test" / "blue" / "0.png").read_bytes())
    with pytest.raises(CheckpointError, match="finished run of this config on other data: ") as caught:
        train(config, tmp_path / "run", progress=False)
    told = str(caught.value)
    assert "train had 14 images, has 13 (red 7 -> 6); test had 6 images, has 7 (blue 3 -> 4)\nchoose another" in told
    assert caught.value.exit_code == 5
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_finished_run_without_classes_needs_no_test_part(tiny_run: TrainConfig, photos: Path, tmp_path: Path) -> None:
    config = replace(tiny_run, task="masked-patches", epochs=1)
    train(config, tmp_path / "run", progress=False)
    (tmp_path / "run" / "evaluation.json").unlink()
    again = train(config, tmp_path / "run", progress=False)
    assert again.was_there and again.evaluation is None and again.steps == 4
