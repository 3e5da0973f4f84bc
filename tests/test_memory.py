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
    ("error", "told"),
    [
        (MemoryError(), "not enough memory\nbuy some"),
        (torch.OutOfMemoryError("CUDA out of memory."), "not enough memory\nbuy some"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.00 GiB free."),
            "not enough memory for 2.00 GiB more\nbuy some",
        ),
    ],
)
def test_what_python_and_cuda_raise_is_told(error: Exception, told: str) -> None:
    with pytest.raises(MemoryLimitError) as caught, shortage_named("buy some"):
        raise error
    assert str(caught.value) == f"there is {told}"


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"), shortage_named("buy some"):
        raise RuntimeError("shapes do not match")


def test_a_model_that_runs_out_of_memory_is_not_told_to_look_at_its_preprocessing() -> None:
    with pytest.raises(MemoryLimitError, match=r"Huge ran out of memory on a batch of \(2, 3, 4, 4\)\ngive it fewer"):
        run_model(Huge(), torch.zeros(2, 3, 4, 4))


def test_a_machine_has_some() -> None:
    assert memory_of_machine() is None or memory_of_machine() > 2**28
