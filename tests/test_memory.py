from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vitreous.errors import MemoryLimitError
from vitreous.memory import memory_of_machine, shortage_named
from vitreous.model.forward import run_model


class Huge(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.empty(2**62, dtype=torch.uint8)


def test_what_torch_raises_on_the_cpu_is_told_with_its_amount() -> None:
    told = pytest.raises(MemoryLimitError, match=r"not enough memory for 4,294,967,296\.00 GiB more\nbuy some")
    with told, shortage_named("buy some"):
        torch.empty(2**62, dtype=torch.uint8)


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")]
)
def test_what_python_and_cuda_raise_is_told(error: Exception) -> None:
    with pytest.raises(MemoryLimitError, match=r"^there is not enough memory\nbuy some$"), shortage_named("buy some"):
        raise error


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"), shortage_named("buy some"):
        raise RuntimeError("shapes do not match")


def test_a_model_that_runs_out_of_memory_is_not_told_to_look_at_its_preprocessing() -> None:
    with pytest.raises(MemoryLimitError, match=r"Huge ran out of memory on a batch of \(2, 3, 4, 4\)\ngive it fewer"):
        run_model(Huge(), torch.zeros(2, 3, 4, 4))


def test_a_machine_has_some() -> None:
    assert memory_of_machine() is None or memory_of_machine() > 2**28
