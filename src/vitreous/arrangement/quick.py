"""Linear layers over tokens at the speed of convolutions, on CPUs where torch's own are slow.

On x86, torch hands `F.linear` in float32 to Intel's MKL, which leaves AVX-512 unused on AMD's CPUs; its convolutions
are oneDNN's, which does not. A linear layer is a convolution of 1 x 1 over tokens that lie side by side. Results differ
by rounding; `benchmarks/arrangement_cost.py` has the times.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


def quick_linear() -> AbstractContextManager[object]:
    """Inside, linear layers over tokens are computed the quicker way; on other CPUs nothing changes.

    Enter it before anything that watches calls: what watches still sees linear layers.
    """
    return _AsConvolution() if _pays() else nullcontext()


class _AsConvolution(TorchFunctionMode):
    """Lets every call through but linear layers of many tokens."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.linear:
            given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
            if _fits(**given):
                return _convolved(**given)
        return func(*args, **kwargs)


def _fits(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether these are tokens, (batch, tokens, width), in float32 on a CPU."""
    is_plain = input.is_cpu and weight.is_cpu and not weight.is_quantized and weight.layout == torch.strided
    is_plain = is_plain and input.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return is_plain and input.ndim == 3 and weight.ndim == 2 and input.is_contiguous() and input.numel() > 0


def _convolved(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(batch, tokens, width) -> (batch, tokens, new width), which is how channels last lie in memory."""
    side_by_side = input.transpose(1, 2).unsqueeze(2)  # (batch, width, 1, tokens)
    return F.conv2d(side_by_side, weight[:, :, None, None], bias).squeeze(2).transpose(1, 2)


def _pays() -> bool:
    """Whether this is a CPU on which it is quicker: AMD's with AVX-512."""
    if not hasattr(torch.cpu, "get_capabilities") or not torch.backends.mkldnn.is_available():
        return False  # torch tells the CPU's name since 2.11
    found = torch.cpu.get_capabilities()
    return "AMD" in str(found.get("cpu_name", "")) and bool(found.get("avx512_f")) and torch.backends.mkl.is_available()
