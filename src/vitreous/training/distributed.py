"""Several processes that train one model together: torchrun starts them, this says who they are and what they share.

Nothing here needs a second process: alone, a process is rank 0 of 1, and every function returns at once.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from vitreous.errors import CheckpointError, WorkerError
from vitreous.interrupts import ended_by_signals, stop_when_ready
from vitreous.leaving import leave_group
from vitreous.training.config import Parallel
from vitreous.training.processes import Process, how_it_ended, this_process

PATIENCE = timedelta(seconds=60)
"""How long a process waits for the others in one exchange; one that ends is noticed at once."""

DISK_PATIENCE = timedelta(hours=1)
"""How long, where one of them reads or writes the states of a run meanwhile."""

_LOST = re.compile(r"\bgloo\b|nccl|connection (closed|reset|refused)|timed out|broken pipe|tcpstore", re.IGNORECASE)
_AGENT_STORE = "TORCHELASTIC_USE_AGENT_STORE"
_ATTEMPT = "TORCHELASTIC_RESTART_COUNT"
_GROUPS = itertools.count()  # of this process: a second run in it must not meet what the first one left in the store


@dataclass(frozen=True)
class Ranks:
    """Which process this is, of how many.

    Attributes:
        rank: from 0; rank 0 writes all files.
        world: how many processes there are, on all machines together.
        local: which of those on this machine, from 0: its GPU.
        processes: what each rank is to the operating system.
        slow: the same processes as a group for exchanges that may have to wait long; None for one alone, and where
            somebody else made the group, whose own patience then counts.
    """

    rank: int = 0
    world: int = 1
    local: int = 0
    processes: tuple[Process, ...] = field(default=(), repr=False)
    slow: Any = field(default=None, repr=False)

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes files and shows progress."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; the same answer in all of them, which all must ask."""
        return self.largest(float(flag))[0] > 0

    def total(self, *numbers: float) -> tuple[float, ...]:
        """Each number summed over the processes, in float64; the same in all of them, which all must ask."""
        return self._exchanged(numbers, dist.ReduceOp.SUM)

    def largest(self, *numbers: float) -> tuple[float, ...]:
        """Of each number the largest that any process has; the same in all of them, which all must ask."""
        return self._exchanged(numbers, dist.ReduceOp.MAX)

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes, those of rank 0 first; their number may differ, all else may not."""
        if self.world == 1:
            return rows
        gathered: list[Tensor | None] = [None] * self.world
        dist.all_gather_object(gathered, rows.cpu())
        return torch.cat([part for part in gathered if part is not None])

    def gather_texts(self, texts: Sequence[str]) -> list[str]:
        """The texts of all processes, those of rank 0 first; all must ask."""
        if self.world == 1:
            return list(texts)
        gathered: list[Any] = [None] * self.world
        dist.all_gather_object(gathered, list(texts))
        return [text for part in gathered for text in part]

    def wait(self) -> None:
        """Returns when all processes have come here, some of which may have much to read."""
        if self.world > 1:
            dist.barrier(self.slow)

    def wait_for_main(self) -> None:
        """Returns when rank 0 has come here, which may have much to write; rank 0 itself waits for nobody."""
        if self.world > 1:
            dist.broadcast(torch.zeros(1), 0, self.slow)

    def _exchanged(self, numbers: tuple[float, ...], how: Any) -> tuple[float, ...]:
        if self.world == 1:
            return numbers
        exchanged = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(exchanged, how)  # on the CPU, and so through gloo, also where the model is on GPUs
        return tuple(exchanged.tolist())


@contextmanager
def process_group() -> Iterator[Ranks]:
    """Inside, the processes that torchrun started know each other; a process that is alone is rank 0 of 1.

    Tensors on the CPU are exchanged through gloo, those on GPUs through NCCL. Processes that torchrun started again
    after a loss meet under the number of their attempt: without it they would meet what the attempt before left in
    torchrun's store, and half of the restarts would hang.

    Raises:
        WorkerError: if the others cannot be reached, or if one of them is lost inside; named with its rank and, where
            it can be told, the signal that ended it.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or dist.is_initialized():
        yield Ranks() if world == 1 else Ranks(dist.get_rank(), dist.get_world_size(), _local_rank())
        return
    ranks = _join(int(os.environ["RANK"]), world)
    try:
        yield ranks
    except RuntimeError as cause:
        if not _LOST.search(str(cause)):
            raise
        with stop_when_ready():  # torchrun ends all of us now; what happened is said first
            loss = _loss(ranks, cause)
            leave_group()
        raise WorkerError(loss) from cause
    finally:
        leave_group()


def spread(model: nn.Module, ranks: Ranks, how: Parallel, device: torch.device) -> nn.Module:
    """The model as all processes train it; itself where there is only one.

    With `ddp` each holds all of it, and gradients are averaged in the backward pass: the loss of each process is the
    mean over its part, and all parts are of one size. With `fsdp` each holds a share of each block's weights, gathered
    when the block runs (PyTorch's FSDP2); its parameters are then DTensors, and so are gradients and their length.

    Args:
        model: on its device, with the same weights in all processes.
        ranks: of this process.
        how: see above.
        device: where it computes.
    """
    if ranks.world == 1:
        return model
    if how == "ddp":
        own_gpu = [device] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=own_gpu, gradient_as_bucket_view=True)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (ranks.world,))
    for block in getattr(getattr(model, "model", model), "blocks", ()):  # a task may put weights of its own around it
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def share_again(model: nn.Module) -> None:
    """Lets go of whole weights that a forward pass gathered: without a backward pass FSDP keeps those of the root."""
    for module in model.modules():
        reshard: Any = getattr(module, "reshard", None)  # of FSDPModule, whose import is slow
        if reshard is not None:
            reshard()


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which each process holds a share; itself if this one holds all. All processes must ask."""
    if not _is_shared(tensor):
        return tensor
    shared: Any = tensor
    return shared.full_tensor()


def share_of(whole_tensor: Tensor, like: Tensor) -> Tensor:
    """What this process holds of a tensor that all of them have, on the device and in the shares of `like`."""
    if not _is_shared(like):
        return whole_tensor.to(like.device)
    from torch.distributed.tensor import distribute_tensor

    placed: Any = like
    return distribute_tensor(
        whole_tensor.to(placed.to_local().device), placed.device_mesh, placed.placements, src_data_rank=None
    )


def training_tensors(model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """All that training has changed, by name: `model.NAME`, and `optimizer.NUMBER.NAME.WHAT` of each weight.

    They are the tensors themselves, or shares of them, not copies: for `whole_tensors`.
    """
    found = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    names: dict[Tensor, str] = {weight: name for name, weight in model.named_parameters()}
    for number, optimizer in enumerate(optimizers):
        for weight, kept in optimizer.state.items():
            found |= {
                f"optimizer.{number}.{names[weight]}.{what}": tensor
                for what, tensor in kept.items()
                if isinstance(tensor, Tensor)
            }
    return found


def whole_tensors(tensors: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """Copies of all tensors, whole and on the CPU, in rank 0; nothing in the others. All processes must ask."""
    gathered = {}
    for name, tensor in tensors.items():
        found = whole(tensor.detach())
        if ranks.is_main:
            gathered[name] = found.cpu() if found.device.type != "cpu" else found.clone()
    return gathered


def put_tensors(saved: Mapping[str, Tensor], model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Puts back what `training_tensors` named, whatever the number of processes was then and is now.

    Other names in `saved` are left alone.

    Raises:
        CheckpointError: if a tensor of the model is missing or of another shape, or an optimizer's is of no weight.
    """
    for name, tensor in model.state_dict().items():
        found = saved.get(f"model.{name}")
        if found is None or found.shape != tensor.shape:
            have = "is missing" if found is None else f"has shape {tuple(found.shape)}"
            raise CheckpointError(f"the state's {name} {have}, the model's has {tuple(tensor.shape)}; start anew")
        with torch.no_grad():
            tensor.copy_(share_of(found, tensor))
    weights = dict(model.named_parameters())
    for number, optimizer in enumerate(optimizers):
        groups = {weight: group for group in optimizer.param_groups for weight in group["params"]}
        optimizer.state.clear()
        start = f"optimizer.{number}."
        for name, tensor in saved.items():
            if not name.startswith(start):
                continue
            of, _, what = name.removeprefix(start).rpartition(".")
            if of not in weights or weights[of] not in groups:
                raise CheckpointError(f"the state has {name}, but that optimizer has no such weight; start anew")
            optimizer.state[weights[of]][what] = _placed(tensor, what, weights[of], groups[weights[of]])


def _placed(tensor: Tensor, what: str, weight: Tensor, group: Mapping[str, Any]) -> Tensor:
    """A tensor of an optimizer where it looks for it: beside its weight, but a count of steps mostly on the CPU."""
    if tensor.shape == weight.shape and tensor.ndim:
        return share_of(tensor.clone(), weight)
    beside = what != "step" or group.get("fused") or group.get("capturable")
    return tensor.clone().to(weight.device) if beside else tensor.clone()


def _is_shared(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")  # a DTensor; its class is quick to ask and slow to import


def _join(rank: int, world: int) -> Ranks:
    try:
        store = _store(rank, world)
        _meet(store, rank, world)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        processes: list[Any] = [None] * world
        with ended_by_signals():  # torch waits a minute for who is lost just now, and hears none meanwhile
            dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=PATIENCE)
            dist.all_gather_object(processes, this_process())
            slow = dist.new_group(backend="gloo", timeout=DISK_PATIENCE)
    except (RuntimeError, ValueError, KeyError) as cause:
        raise WorkerError(f"the other processes of this run cannot be reached: {_first_line(cause)}") from cause
    return Ranks(rank, world, _local_rank(), tuple(processes), slow)


def _store(rank: int, world: int) -> Store:
    """Where processes leave their addresses: torchrun's own store, under the number of this attempt."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    serves = rank == 0 and os.environ.get(_AGENT_STORE) != "True"
    store = TCPStore(host, port, world, is_master=serves, timeout=PATIENCE)
    return PrefixStore(f"attempt{os.environ.get(_ATTEMPT, '0')}-{next(_GROUPS)}", store)


def _meet(store: Store, rank: int, world: int) -> None:
    """Returns when all processes have come to the store.

    Signals are heard meanwhile, which they are not where torch itself waits: if one process dies on its way here,
    torchrun's signal ends the others at once.

    Raises:
        RuntimeError: if one does not come.
    """
    store.set(f"rank {rank}", "is here")
    until = time.monotonic() + PATIENCE.total_seconds()
    while missing := [other for other in range(world) if not store.check([f"rank {other}"])]:
        if time.monotonic() > until:
            raise RuntimeError(f"rank {missing[0]} did not come within {PATIENCE.total_seconds():.0f} seconds")
        time.sleep(0.02)


def _loss(ranks: Ranks, cause: Exception) -> str:
    """What a failed exchange says of the other processes: which of them is gone, and how."""
    found: list[str] = []
    until = time.monotonic() + 1.0  # a process closes its connections a moment before it can be seen to be gone
    while not found and time.monotonic() < until:
        others = [pair for pair in enumerate(ranks.processes) if pair[0] != ranks.rank]
        found = [f"rank {rank} {how}" for rank, other in others if (how := how_it_ended(other))]
        time.sleep(0.01)
    lost = "; ".join(found) or _first_line(cause)
    return f"another process of this run was lost: {lost}\nrun the same command again to go on from the last state"


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
