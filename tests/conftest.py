"""What every test relies on: no network, one thread, and a torchvision that imports."""

from __future__ import annotations

import importlib.util
import os
import socket
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported

import pytest
import torch

_OPERATORS: list[torch.library.Library] = []  # a library's definitions live as long as it does


def _let_torchvision_import() -> None:
    """Declares two of torchvision's operators where its compiled part was built for another torch.

    A torchvision for CUDA beside a torch for CPU cannot load its extension, and then fails to import because
    it describes operators that are not there. Models need neither of them.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return
    for extension in Path(found.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(str(extension))
            return
        except (OSError, RuntimeError):
            continue
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _OPERATORS.append(library)


_let_torchvision_import()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this machine can be reached: anything else is refused as if the cable were out."""
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise ConnectionRefusedError("tests have no network")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)
