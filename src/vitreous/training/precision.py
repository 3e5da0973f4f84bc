"""Where a run computes, and in which numbers: what `auto` means on the machine at hand."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from vitreous.errors import ConfigError
from vitreous.training.config import TrainConfig

_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "sve_bf16", "bf16")
"""Of a CPU: those that multiply bfloat16. x86 names the first two, Arm the others."""


@dataclass(frozen=True)
class Arithmetic:
    """Where and how a model computes.

    Attributes:
        device: the processor.
        is_half: whether layers compute in bfloat16. Weights and losses stay in float32; on a GPU norms do, too.
        reason: why, as the rest of a sentence.
        compiles: whether torch compiles the model.
    """

    device: torch.device
    is_half: bool
    reason: str
    compiles: bool

    @property
    def precision(self) -> str:
        """`bfloat16` or `float32`."""
        return "bfloat16" if self.is_half else "float32"

    @property
    def dtype(self) -> torch.dtype:
        """Of the layers' products."""
        return torch.bfloat16 if self.is_half else torch.float32

    @property
    def processor(self) -> str:
        """The GPU's name, or the CPU's instructions."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else _cpu()

    def autocast(self) -> AbstractContextManager[object]:
        """Inside, layers compute as chosen."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_half)

    def __str__(self) -> str:
        compiled = ", compiled" if self.compiles else ""
        return f"computes on {self.processor} in {self.precision}{compiled}: {self.reason}"


def choose_arithmetic(config: TrainConfig, local: int = 0) -> Arithmetic:
    """What the config asks for, `auto` settled by the hardware.

    A GPU is taken where there is one. bfloat16 is taken where the hardware multiplies it: it has float32's range, so
    that no loss needs to be scaled, and is faster. With AVX-512's bfloat16 on one core of a shared server, forward and
    backward of ViT-Ti/4 for 32 images took 0.42 s of processor time in it and 1.09 s in float32 (medians of 7). A CPU
    that has to convert each number gains nothing, and stays in float32.

    Args:
        config: of the run.
        local: which process of this machine this is; each has a GPU of its own.

    Raises:
        ConfigError: if a GPU is asked for where there is none, or fewer than processes.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if config.device == "cuda" and not gpus:
        raise ConfigError("device is cuda, but torch sees no NVIDIA GPU here; use device cpu, or auto")
    is_gpu = config.device != "cpu" and gpus > 0
    if is_gpu and local >= gpus:
        raise ConfigError(
            f"there are {gpus} GPUs for more processes; start one for each GPU (torchrun --nproc-per-node)"
        )
    device = torch.device("cuda", local) if is_gpu else torch.device("cpu")
    is_half, reason = _half(config, device)
    compiles = config.compile == "on" or (config.compile == "auto" and is_gpu)
    return Arithmetic(device, is_half, reason, compiles)


def bfloat16_instructions(capabilities: dict[str, object]) -> tuple[str, ...]:
    """Those instructions of a CPU that multiply bfloat16; `capabilities` as torch.cpu.get_capabilities gives them."""
    return tuple(name for name in _INSTRUCTIONS if capabilities.get(name))


def _half(config: TrainConfig, device: torch.device) -> tuple[bool, str]:
    if config.precision != "auto":
        return config.precision == "bfloat16", "the config asks for it"
    if device.type == "cuda":
        has_it = torch.cuda.is_bf16_supported(including_emulation=False)
        return has_it, f"the GPU {'multiplies' if has_it else 'does not multiply'} bfloat16"
    found = bfloat16_instructions(_cpu_capabilities())
    return bool(found), f"the CPU has {' and '.join(found) if found else 'no instructions for bfloat16'}"


def _cpu() -> str:
    return f"CPU with {torch.backends.cpu.get_cpu_capability()}"


def _cpu_capabilities() -> dict[str, object]:
    """What the CPU can do; torch has told it all in one place since 2.11, and by two private functions before."""
    if hasattr(torch.cpu, "get_capabilities"):
        return dict(torch.cpu.get_capabilities())
    known = {"amx_bf16": "_is_amx_tile_supported", "avx512_bf16": "_is_avx512_bf16_supported"}
    return {name: getattr(torch.cpu, function, bool)() for name, function in known.items()}
