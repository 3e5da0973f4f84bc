from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vitreous.checkpoints.sources import open_model
from vitreous.training.config import Optim, TrainConfig
from vitreous.training.loop import train
from vitreous.training.settings_file import to_yaml

SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path

from vitreous.training.loop import train
from vitreous.training.settings_file import read_config

out = Path(sys.argv[1])
config = read_config(out / "run.yaml")
for how in ("ddp", "fsdp"):
    result = train(replace(config, parallel=how), out / how, progress=False)
    (out / f"{how}-{result.steps}").touch()
    train(replace(config, parallel=how, task="masked-patches", epochs=2), out / f"masked-{how}", progress=False)
"""


def test_two_processes_learn_what_one_does(tiny_run: TrainConfig, tmp_path: Path) -> None:
    """With an average, parts of a batch, and a last batch of two images, which not all parts have one of."""
    config = replace(
        tiny_run,
        model=replace(tiny_run.model, dropout=0.0),  # each process draws its own
        optimizer=Optim(name="sgd", learning_rate=0.5, warmup=2, clip=0.5, weight_decay=0.1),
        precision="float32",
        accumulate=2,
        ema=0.5,
        epochs=2,  # the model is tested, and not saved, in between
    )
    train(config, tmp_path / "alone", progress=False)
    train(replace(config, task="masked-patches", epochs=2), tmp_path / "masked-alone", progress=False)
    (tmp_path / "run.yaml").write_text(to_yaml(config))
    (tmp_path / "script.py").write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ran = subprocess.run([*torchrun, tmp_path / "script.py", tmp_path], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr[-3000:]
    alone = open_model(tmp_path / "alone").model.state_dict()
    *_, expected = [json.loads(line) for line in (tmp_path / "alone" / "metrics.jsonl").read_text().splitlines()]
    for how in ("ddp", "fsdp"):
        assert (tmp_path / f"{how}-8").exists()
        together = open_model(tmp_path / how).model.state_dict()
        for name, weight in alone.items():
            torch.testing.assert_close(together[name], weight, atol=1e-5, rtol=1e-4)
        *_, line = [json.loads(line) for line in (tmp_path / how / "metrics.jsonl").read_text().splitlines()]
        for number in ("train_loss_nats", "train_top1", "gradient_length", "test_loss_nats", "test_top1"):
            assert line[number] == pytest.approx(expected[number], rel=1e-4), (how, number)
        masked = open_model(tmp_path / f"masked-{how}").model.state_dict()
        for name, weight in open_model(tmp_path / "masked-alone").model.state_dict().items():
            torch.testing.assert_close(masked[name], weight, atol=1e-5, rtol=1e-4)
