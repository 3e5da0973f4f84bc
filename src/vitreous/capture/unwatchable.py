"""Models that cannot be watched, told before they run, with the remedy."""

from __future__ import annotations

import itertools
import re

import torch
from torch import Tensor, nn

from vitreous.errors import CaptureError

ATTENTION = re.compile(r"aten::(\w*attention\w*|_?softmax)")
"""In the graph of a scripted module."""


def refuse_unwatchable(model: nn.Module) -> None:
    """Raises CaptureError if `model` is no Python model with weights, or if it has a part that is not."""
    if not isinstance(model, nn.Module):
        raise CaptureError(
            f"{type(model).__name__} is not a torch.nn.Module\n"
            "of an exported program watch .module(); of other compiled programs the Python model they were made from"
        )
    for name, module in model.named_modules():
        where = f"its module {name}" if name else "the model"
        if isinstance(module, torch.jit.ScriptModule) and (not name or ATTENTION.search(str(module.inlined_graph))):
            raise CaptureError(
                f"{where} is TorchScript: its calls are not seen\nwatch the Python model it was made from"
            )
        if "make_graphed_callables" in getattr(getattr(module, "forward", None), "__qualname__", ""):
            raise CaptureError(
                f"{where} replays a CUDA graph: its calls are not seen\n"
                "watch the model before torch.cuda.make_graphed_callables"
            )
    weights = list(itertools.chain(model.parameters(), model.buffers()))
    missing = sum(is_without_numbers(weight) for weight in weights)
    if missing:
        raise CaptureError(
            f"{missing} of the model's {len(weights)} weights have no numbers (meta device or fake tensors)\n"
            "load the weights before looking inside: load_state_dict(..., assign=True)"
        )


def is_without_numbers(tensor: Tensor) -> bool:
    """Whether a tensor has a shape only: on the meta device, or fake."""
    return tensor.is_meta or type(tensor).__name__ == "FakeTensor"


def refuse_unreal(returned: Tensor) -> None:
    """Raises CaptureError if a call that is attention gave back no plain numbers."""
    if torch._C._functorch.is_functorch_wrapped_tensor(returned):
        raise CaptureError(
            "attention was called under vmap, grad or another transform of torch.func\nrun the model without it"
        )
    if is_without_numbers(returned):
        raise CaptureError("attention made no numbers (meta device or fake tensors)\nrun the model on real images")
    if returned.is_nested or type(returned).__name__ == "DTensor":
        raise CaptureError(
            f"attention over a {'nested tensor' if returned.is_nested else 'DTensor'} is not shown\n"
            "run the model on one plain batch, on one device"
        )
