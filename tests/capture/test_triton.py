"""The kernels: what they take, that they compile, and that the operator does without them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from vitreous.capture import blocked
from vitreous.capture.operator import AttentionOperator, RowStatistics
from vitreous.tokens import TokenLayout

kernels = pytest.importorskip("vitreous.capture.triton", reason="triton is not installed")
triton = pytest.importorskip("triton")

HERE = Path(__file__).parent
LAYOUT = TokenLayout(5, 9, 11, 16, 8, 0)


@pytest.mark.parametrize(
    ("operator", "cost", "prefix"),
    [
        (AttentionOperator(*torch.randn(2, 1, 2, 104, 8).double(), 0.3), LAYOUT.token_distances, 5),
        (AttentionOperator(*torch.randn(2, 1, 2, 104, 8), -0.3), LAYOUT.token_distances, 5),
        (AttentionOperator(*torch.randn(2, 1, 2, 104, 8), 0.3), lambda rows: LAYOUT.token_distances(rows), 5),
        (AttentionOperator(*torch.randn(2, 1, 2, 104, 8), 0.3), LAYOUT.token_distances, 4),
        (AttentionOperator(weights=torch.rand(1, 2, 104, 104)), LAYOUT.token_distances, 5),
    ],
    ids=["float64", "negative scale", "another cost", "another prefix", "weights"],
)
def test_what_the_kernels_do_not_know_is_left_to_torch(operator: AttentionOperator, cost: Any, prefix: int) -> None:
    weights = torch.rand(1, 2, 104)
    ours = kernels.statistics(operator, cost, prefix, weights)
    theirs = blocked.statistics(operator, cost, prefix, weights)
    assert isinstance(ours, RowStatistics) and ours.entropy.dtype == theirs.entropy.dtype
    for name in ("entropy", "cost", "prefix_mass", "rest_mass", "log_sum_exp", "pulled"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name


def test_the_kernels_are_for_queries_and_keys_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def small(dtype: torch.dtype = torch.float32, head_dim: int = 8, scale: float = 1.0) -> AttentionOperator:
        return AttentionOperator(*torch.zeros(2, 1, 1, 4, head_dim, dtype=dtype), scale)

    assert not kernels.is_for(small())
    monkeypatch.setattr(AttentionOperator, "device", torch.device("cuda"))
    assert (
        kernels.is_for(small())
        and kernels.is_for(small(torch.float32, 128))
        and kernels.is_for(small(torch.float16, 256))
    )
    for other in (small(torch.float32, 129), small(torch.float16, 257), small(torch.float64), small(scale=0.0)):
        assert not kernels.is_for(other)
    assert not kernels.is_for(AttentionOperator(weights=torch.zeros(1, 1, 4, 4)))


@pytest.mark.parametrize(("kernel", "capability"), [("_statistics", 80), ("_statistics", 90), ("_pull", 90)])
def test_the_kernels_compile_without_a_gpu(
    kernel: str, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interpreter takes Python that the compiler does not."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    function = getattr(kernels, kernel)
    vector = ("*fp32", "i32", "i32", "i32")
    kinds = dict.fromkeys(("queries", "keys", "bias"), ("*bf16", "i32", "i32", "i32", "i32")) | {
        "sums": ("*fp32",) * 5, "counts": ("i32",) * 3, "prefix": "i32", "grid": ("fp32",) * 4,
        "factors": ("fp32",) * 2, "weights": vector, "logs": vector, "pulled": "*fp32",
    }  # fmt: skip
    constants = {"COSTED": True, "BIASED": True, "OWN": 64, "OTHER": 64, "HEAD_DIM": 64, "PADDED_DIM": 64}
    names = list(function.arg_names)
    source = ASTSource(
        function,
        {name: kinds.get(name, "constexpr") for name in names},
        {(names.index(name),): value for name, value in constants.items() if name in names},
    )
    options = {"num_warps": 4, "num_stages": 2, "enable_fp_fusion": True}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert compiled.metadata.shared < 99 * 2**10  # bytes a program may have on the smallest of these GPUs


@pytest.mark.parametrize("interpreted", ["1", *["0"] * torch.cuda.is_available()])
def test_every_sum_of_the_kernels(interpreted: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / "triton_kernels.py"]
    environment = {**os.environ, "TRITON_INTERPRET": interpreted, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=HERE.parents[1])
    assert run.returncode == 0 and "skipped" not in run.stdout, run.stdout


def test_the_operator_does_without_triton() -> None:
    script = (
        "import sys; sys.modules['triton'] = None; import torch, vitreous.capture.operator as operator; "
        "operator.AttentionOperator(torch.ones(1, 1, 2, 4), torch.ones(1, 1, 2, 4)).entropy(); "
        "print('vitreous.capture.triton' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.stdout == "False\n", run.stderr
