from __future__ import annotations

from typing import Any

import pytest
import torch

from vitreous.errors import ConfigError
from vitreous.training import precision
from vitreous.training.config import TrainConfig
from vitreous.training.precision import bfloat16_instructions, choose_arithmetic


def _on_cpu(monkeypatch: pytest.MonkeyPatch, **capabilities: object) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(precision, "_cpu_capabilities", lambda: capabilities)


def _on_gpu(monkeypatch: pytest.MonkeyPatch, *, has_bfloat16: bool = True, count: int = 2) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bfloat16)


def test_a_cpu_takes_bfloat16_where_it_multiplies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _on_cpu(monkeypatch, avx512_bf16=True, amx_bf16=False, avx2=True)
    arithmetic = choose_arithmetic(TrainConfig())
    assert (arithmetic.precision, arithmetic.dtype, arithmetic.compiles) == ("bfloat16", torch.bfloat16, False)
    assert str(arithmetic).startswith("computes on CPU with ")
    assert str(arithmetic).endswith(" in bfloat16: the CPU has avx512_bf16")
    _on_cpu(monkeypatch, avx512_bf16=False, avx2=True)
    arithmetic = choose_arithmetic(TrainConfig())
    assert (arithmetic.precision, arithmetic.device.type) == ("float32", "cpu")
    assert "no instructions for bfloat16" in str(arithmetic)


def test_the_instructions_are_those_that_the_system_tells_of() -> None:
    assert bfloat16_instructions({"amx_bf16": True, "avx512_bf16": True, "avx2": True}) == ("amx_bf16", "avx512_bf16")
    assert bfloat16_instructions({"avx2": True, "amx_int8": True}) == ()
    has_it = "avx512_bf16" in _cpu_flags() or "amx_bf16" in _cpu_flags()
    assert bool(bfloat16_instructions(precision._cpu_capabilities())) == has_it


def _cpu_flags() -> str:
    try:
        with open("/proc/cpuinfo") as file:  # noqa: PTH123 (as it is)
            return next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        pytest.skip("this system does not tell what its CPU can do")


def test_what_the_config_asks_for_is_done_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    _on_cpu(monkeypatch)
    config = TrainConfig(precision="bfloat16", compile="on")
    arithmetic = choose_arithmetic(config)
    assert (arithmetic.precision, arithmetic.compiles) == ("bfloat16", True)
    assert "compiled: the config asks for it" in str(arithmetic)
    with arithmetic.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with choose_arithmetic(TrainConfig(precision="float32")).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_each_process_takes_a_gpu_of_its_own_and_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    _on_gpu(monkeypatch)
    arithmetic = choose_arithmetic(TrainConfig(), local=1)
    assert arithmetic.device == torch.device("cuda", 1) and arithmetic.compiles
    assert str(arithmetic) == "computes on NVIDIA H200 in bfloat16, compiled: the GPU multiplies bfloat16"
    settings: list[tuple[dict[str, Any], str, bool]] = [
        ({"device": "cpu"}, "cpu", False),
        ({"compile": "off"}, "cuda", False),
    ]
    for changes, device, compiles in settings:
        arithmetic = choose_arithmetic(TrainConfig(**changes))
        assert (arithmetic.device.type, arithmetic.compiles) == (device, compiles)
    _on_gpu(monkeypatch, has_bfloat16=False)
    assert choose_arithmetic(TrainConfig()).precision == "float32"


def test_gpus_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _on_cpu(monkeypatch)
    with pytest.raises(ConfigError, match="device is cuda, but torch sees no NVIDIA GPU"):
        choose_arithmetic(TrainConfig(device="cuda"))
    _on_gpu(monkeypatch, count=2)
    with pytest.raises(ConfigError, match="2 GPUs for more processes"):
        choose_arithmetic(TrainConfig(), local=2)
