"""What every test relies on: no network, one thread, and a torchvision that imports."""

from __future__ import annotations

import os
import socket
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported

import pytest
import torch

from vitreous.checkpoints.optional import let_torchvision_import

let_torchvision_import()  # a torchvision that was built for another torch


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
