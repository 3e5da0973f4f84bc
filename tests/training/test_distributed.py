"""What one process does alone; several are in tests/faults/test_kills.py."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import TCPStore

from vitreous.errors import CheckpointError, WorkerError
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer
from vitreous.training.config import MaskedPatches, Optim
from vitreous.training.distributed import (
    Ranks,
    process_group,
    put_tensors,
    share_of,
    spread,
    training_tensors,
    whole,
    whole_tensors,
)
from vitreous.training.masked import MaskedPatchLearner
from vitreous.training.optimizer import make_optimizers

TINY = ViTConfig(image_size=(8, 8), patch_size=(4, 4), width=8, depth=2, heads=2, classes=3)


def make(seed: int, optimizer: str) -> tuple[VisionTransformer, list[torch.optim.Optimizer]]:
    model = VisionTransformer(TINY, generator=torch.Generator().manual_seed(seed))
    return model, make_optimizers(model, Optim(name=optimizer))  # type: ignore[arg-type]


def learn(model: nn.Module, optimizers: list[torch.optim.Optimizer], steps: range) -> list[Tensor]:
    for step in steps:
        images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        for optimizer in optimizers:
            optimizer.zero_grad()
        F.cross_entropy(model(images), torch.tensor([0, 1, 2, 0])).backward()
        for optimizer in optimizers:
            optimizer.step()
    return [weight.detach().clone() for weight in model.parameters()]


def test_a_process_that_is_alone_is_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with process_group() as ranks:
        assert (ranks.rank, ranks.world, ranks.is_main) == (0, 1, True)
        assert ranks.any(True) and not ranks.any(False)
        assert ranks.total(1.5, 2.0) == (1.5, 2.0) == ranks.largest(1.5, 2.0)
        rows = torch.arange(6).reshape(3, 2)
        assert torch.equal(ranks.gather(rows), rows)
        assert ranks.gather_texts(["a", "b"]) == ["a", "b"]
        ranks.wait()
        ranks.wait_for_main()
        model = nn.Linear(2, 2)
        assert spread(model, ranks, "ddp", torch.device("cpu")) is model
        assert whole(rows) is rows and torch.equal(share_of(rows, rows.float()), rows)


def test_others_that_cannot_be_reached_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitreous.training.distributed.PATIENCE", timedelta(seconds=1))
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(WorkerError, match="the other processes of this run cannot be reached"), process_group():
        pass
    monkeypatch.delenv("MASTER_ADDR")
    with pytest.raises(WorkerError, match="MASTER_ADDR"), process_group():
        pass


def test_a_process_that_does_not_come_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitreous.training.distributed.PATIENCE", timedelta(seconds=1))
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    with pytest.raises(WorkerError, match="rank 1 did not come within 1 seconds"), process_group():
        pass


def test_shares_are_of_single_blocks_also_where_a_task_has_weights_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else every process would hold the whole model in each pass."""
    shared: list[nn.Module] = []
    monkeypatch.setattr("torch.distributed.device_mesh.init_device_mesh", lambda *_: None)
    monkeypatch.setattr("torch.distributed.fsdp.fully_shard", lambda module, mesh: shared.append(module))
    model, _ = make(0, "adamw")
    for learner in (model, MaskedPatchLearner(model, MaskedPatches())):
        spread(learner, Ranks(0, 2), "fsdp", torch.device("cpu"))
        assert shared == [*model.blocks, learner]
        shared.clear()


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "muon"])
def test_what_is_put_back_goes_on_with_the_same_bits(optimizer: str) -> None:
    expected = learn(*make(0, optimizer), range(6))
    model, optimizers = make(0, optimizer)
    learn(model, optimizers, range(3))
    saved = whole_tensors(training_tensors(model, optimizers), Ranks())
    learn(model, optimizers, range(3, 4))  # copies: what is learned later does not change them
    another, its_optimizers = make(1, optimizer)
    learn(another, its_optimizers, range(2))
    put_tensors(saved | {"average.head.weight": torch.zeros(1)}, another, its_optimizers)
    found = learn(another, its_optimizers, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_before_the_first_step_there_is_the_model_alone() -> None:
    model, optimizers = make(0, "adamw")
    assert training_tensors(model, optimizers).keys() == {f"model.{name}" for name in model.state_dict()}


def test_tensors_that_do_not_fit_are_refused() -> None:
    model, optimizers = make(0, "adamw")
    learn(model, optimizers, range(1))
    saved = whole_tensors(training_tensors(model, optimizers), Ranks())
    with pytest.raises(CheckpointError, match=r"head.weight is missing, the model's has \(3, 8\)"):
        put_tensors({name: t for name, t in saved.items() if name != "model.head.weight"}, model, optimizers)
    with pytest.raises(CheckpointError, match=r"head.weight has shape \(2, 8\)"):
        put_tensors(saved | {"model.head.weight": torch.zeros(2, 8)}, model, optimizers)
    with pytest.raises(CheckpointError, match="that optimizer has no such weight"):
        put_tensors(saved | {"optimizer.0.tail.weight.exp_avg": torch.zeros(1)}, model, optimizers)


def test_only_the_main_process_has_the_whole_tensors(tmp_path: Path) -> None:
    assert whole_tensors({"a": torch.ones(2)}, Ranks(rank=1, world=2)) == {}
