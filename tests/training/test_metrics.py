from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vitreous.errors import ConfigError, NumericError
from vitreous.training import loop
from vitreous.training.config import Keeping, TrainConfig
from vitreous.training.distributed import Ranks
from vitreous.training.loop import train
from vitreous.training.metrics import Step, Tally, check_tensorboard, metrics_written, peak_memory, train_metrics

NAMES = tuple(f"{letter}.png" for letter in "abcdefgh")


def _step(number: int, *, losses: tuple[float, ...] = (1.0, 4.0), length: float = 2.0) -> Step:
    """Three images in the first part, one in the second."""
    samples = (torch.tensor([4, 0, 2]), torch.tensor([7]))
    counts = ({"top1": torch.tensor(2)}, {"top1": torch.tensor(1)})
    return Step(number, samples, tuple(torch.tensor(loss) for loss in losses), counts, torch.tensor(length))


def test_sums_are_over_images_and_steps(tmp_path: Path) -> None:
    tally = Tally(tmp_path, NAMES)
    tally.waiting += [_step(0), _step(1, length=4.0)]
    tally.settle(0.5, Ranks())
    tally.line = {}
    tally.waiting.append(_step(2, losses=(2.0, 2.0)))
    tally.settle(0.25, Ranks())
    assert tally.line == {"images": 4, "steps": 1, "length": 2, "loss": 8, "top1": 3, "seconds": 0.25}
    assert tally.epoch == {"images": 12, "steps": 3, "length": 8, "loss": 2 * (3 + 4) + 8, "top1": 9, "seconds": 0.75}
    found = train_metrics(tally.epoch, Ranks(), operations=1000, peak=64_000)
    assert found == {
        "train_loss_nats": 22 / 12,
        "train_top1": 9 / 12,
        "gradient_length": 8 / 3,
        "train_images_per_second": 16.0,
        "mfu": 16 * 1000 / 64_000,
    }
    assert "mfu" not in train_metrics(tally.epoch, Ranks(), operations=1000, peak=None)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_first_bad_step_is_named_with_the_files_of_its_part(bad: float, tmp_path: Path) -> None:
    tally = Tally(tmp_path, NAMES)
    tally.waiting += [_step(8), _step(9, losses=(1.0, bad)), _step(10, losses=(bad, bad))]
    with pytest.raises(NumericError, match=rf"the loss is {bad} at step 10, in the batch of h\.png\n"):
        tally.settle(1.0, Ranks())
    tally = Tally(tmp_path, NAMES)
    tally.waiting.append(_step(9, length=bad))
    with pytest.raises(
        NumericError, match=r"gradient's length .* of e\.png, a\.png, c\.png and 1 more, all in .*bad-batch\.txt\n"
    ) as caught:
        tally.settle(1.0, Ranks())
    assert len(str(caught.value).splitlines()) == 3
    assert (tmp_path / "bad-batch.txt").read_text().splitlines() == ["e.png", "a.png", "c.png", "h.png"]


@pytest.mark.parametrize("rank", [0, 1])
def test_all_processes_name_the_files_of_the_one_with_the_bad_loss(rank: int, tmp_path: Path) -> None:
    class Two(Ranks):
        """Rank 0 has a good loss, rank 1 a bad one; what one of them says, both get."""

        def any(self, flag: bool) -> bool:
            assert flag == (rank == 1)
            return True

        def gather_texts(self, texts: Sequence[str]) -> list[str]:
            told.append(list(texts))
            return [["the loss is nan"], ["e.png", "a.png", "c.png", "h.png"]][len(told) - 1]

    told: list[list[str]] = []
    tally = Tally(tmp_path, NAMES)
    losses = (float("nan"), 1.0) if rank else (1.0, 1.0)
    tally.waiting.append(_step(9, losses=losses, length=float("nan")))  # the length is the same in both
    with pytest.raises(NumericError, match=r"the loss is nan at step 10, in the batch of e\.png, a\.png, c\.png and 1"):
        tally.settle(1.0, Two(rank, 2))
    assert told == ([["the loss is nan"], ["e.png", "a.png", "c.png"]] if rank else [[], []])
    assert (tmp_path / "bad-batch.txt").exists() == (rank == 0)  # which writes all files


def test_a_hostile_name_is_shown_harmless(tmp_path: Path) -> None:
    tally = Tally(tmp_path, ["\x1b[31m\nred.png"] * 8)
    tally.waiting.append(_step(0, losses=(float("nan"), 0)))
    with pytest.raises(NumericError) as caught:
        tally.settle(1.0, Ranks())
    assert "\x1b" not in str(caught.value) and len(str(caught.value).splitlines()) == 3


def test_a_line_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    for _ in range(2):
        with metrics_written(tmp_path, shown=True, tensorboard=False, step=0) as write:
            write({"step": 4})
            write({"step": 4, "epoch": 1})
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    with metrics_written(tmp_path, shown=False, tensorboard=False, step=0) as write:
        write({"step": 5})
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_tensorboard_has_the_same_numbers(tiny_run: TrainConfig, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own code is behind its libraries'
        train(replace(tiny_run, keep=Keeping(tensorboard=True)), tmp_path / "run", progress=False)
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert set(events.Tags()["scalars"]) == set(lines[0]) - {"step"}
    for name in ("train_loss_nats", "test_top1", "gradient_length"):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in lines]


def test_tensorboard_that_is_missing_is_said_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'vitreous\[tensorboard\]'"):
        check_tensorboard()


def test_what_was_learned_before_an_interruption_does_not_count_for_the_speed(tmp_path: Path) -> None:
    before = {"images": 1000, "seconds": 1.0, "loss": 500.0, "steps": 100, "length": 1.0, "top1": 1}
    tally = Tally(tmp_path, NAMES, epoch=before)
    tally.waiting += [_step(100), _step(101)]
    tally.settle(2.0, Ranks())
    assert tally.epoch["images"] == 1008 and (tally.here["images"], tally.here["seconds"]) == (8, 2.0)
    run = SimpleNamespace(ranks=Ranks(0, 3), operations=1000, peak=24_000, epochs=4)
    told = loop._note(run, 1, tally, 0.5)  # type: ignore[arg-type]
    assert told == "loss 0.510, top-1 50.0%, 12 images/s, MFU 17%, epoch 2/4"


def test_where_nobody_tells_what_memory_was_taken_none_is_told() -> None:
    script = (
        "import sys; sys.modules['resource'] = None\n"  # as on Windows
        "import torch; from vitreous.training.metrics import peak_memory; print(peak_memory(torch.device('cpu')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"
    assert (peak_memory(torch.device("cpu")) or 0) > 10
