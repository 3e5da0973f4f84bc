"""Tiny models of our own, and other people's rebuilt from drawn weights beside the outputs of their own code."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vitreous.checkpoints.containers.contract import Shapes
from vitreous.checkpoints.reading import Found, Reading
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer

REFERENCES = Path(__file__).parents[1] / "references"

Build = Callable[[Reading, Mapping[str, np.ndarray]], VisionTransformer]


MakeModel = Callable[..., VisionTransformer]


@dataclass(frozen=True)
class GoogleCase:
    """One file of Google's, see tests/references/make_google.py.

    Attributes:
        arrays: of the file.
        images: (2, 3, image_height, image_width), what the outputs belong to.
        outputs: of Google's code, by kind.
    """

    arrays: dict[str, np.ndarray]
    images: Tensor
    outputs: dict[str, Tensor]

    @property
    def shapes(self) -> Shapes:
        return {name: array.shape for name, array in self.arrays.items()}

    @property
    def image_size(self) -> tuple[int, int]:
        return self.images.shape[-2], self.images.shape[-1]

    def found(self, **asked: Any) -> Found:
        return Found(self.shapes, "npz", asked=asked)


class GoogleCases:
    """Every case by name."""

    def __init__(self) -> None:
        stored = np.load(REFERENCES / "google.npz")
        self.stored = {name: stored[name] for name in stored.files}
        index = json.loads(self.stored.pop("index").tobytes())
        self.index: dict[str, Any] = index["cases"]
        self.parameters: dict[str, int] = index["parameters"]
        self.drawn = drawn()

    def __getitem__(self, name: str) -> GoogleCase:
        case = self.index[name]
        arrays = self.drawn.draw_all(case["shapes"], case["factors"])
        if case["bfloat16"]:
            arrays = {name: self.drawn.as_bfloat16(array) for name, array in arrays.items()}
        images = self.drawn.draw_images(*case["image_size"]) * np.float32(case["factors"].get("images", 1))
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
        own = {key.partition("/")[2]: value for key, value in self.stored.items() if key.startswith(f"{name}/")}
        outputs = {kind: torch.from_numpy(value) for kind, value in own.items()}
        return GoogleCase(arrays, pixels, outputs)


@dataclass(frozen=True)
class TorchState:
    """One state dict of Meta's and others', see tests/references/make_torch_states.py.

    Attributes:
        shapes: of all its tensors, buffers too.
        arrays: of its parameters.
        outputs: by image, (2, 3, image_height, image_width), what the project's own code makes of it.
    """

    shapes: Shapes
    arrays: dict[str, np.ndarray]
    outputs: list[tuple[Tensor, Tensor]]


@pytest.fixture(scope="session")
def torch_state() -> Callable[[str], TorchState]:
    """A case by name."""
    drawn()  # which the script below imports
    stored = np.load(REFERENCES / "torch_states.npz")
    index = json.loads(stored["index"].tobytes())

    def torch_state(name: str) -> TorchState:
        case = index[name]
        shapes = {key: tuple(shape) for key, shape in case["shapes"].items()}
        arrays = _script("make_torch_states").weights_of({key: shapes[key] for key in case["drawn"]})
        outputs = []
        for height, width in case["sizes"]:
            images = torch.from_numpy(drawn().draw_images(height, width)).permute(0, 3, 1, 2)
            outputs.append((images, torch.from_numpy(stored[f"{name}/{height}x{width}"])))
        return TorchState(shapes, arrays, outputs)

    return torch_state


def drawn() -> ModuleType:
    """tests/references/drawn.py, which Google's side draws with, too."""
    return _script("drawn")


@cache
def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, REFERENCES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(name, module)  # scripts import each other
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def google_cases() -> GoogleCases:
    return GoogleCases()


@pytest.fixture(scope="session")
def build() -> Build:
    """A model from a reading and the arrays of a file."""

    def build(reading: Reading, arrays: Mapping[str, np.ndarray]) -> VisionTransformer:
        with torch.device("meta"):
            model = VisionTransformer(reading.config)
        weights = {
            ours: part.make(*(as_tensor(arrays[name]) for name in part.sources)).float().contiguous()
            for ours, part in reading.plan.items()
        }
        model.load_state_dict(weights, assign=True)
        return model.eval()

    return build


@pytest.fixture(scope="session")
def randomised() -> Callable[[nn.Module], dict[str, np.ndarray]]:
    """Fills another library's model with numbers that are never trivial, and gives its state dict as arrays.

    Class tokens, layer scales, biases and heads often start as zeros, so that a dropped one would not show.
    """

    def randomised(model: nn.Module) -> dict[str, np.ndarray]:
        model.eval()
        for name, weight in model.named_parameters():
            draw = torch.randn(weight.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
            kernel = weight.ndim > 1 and name.endswith("weight")
            scale = math.prod(weight.shape[1:]) ** -0.5 if kernel else 0.3
            ones = weight.ndim == 1 and name.endswith(("weight", "gamma", "gamma_1", "gamma_2"))
            weight.data = draw * scale + float(ones)
        return {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}

    return randomised


def as_tensor(array: np.ndarray) -> Tensor:
    if array.dtype.kind == "V":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


@pytest.fixture
def make_model() -> MakeModel:
    """A tiny model with every weight random and not small."""

    def make(**changes: object) -> VisionTransformer:
        sizes: dict[str, object] = {"image_size": [16, 16], "patch_size": [4, 4], "width": 24, "depth": 2}
        config = ViTConfig.from_dict(sizes | {"heads": 3, "classes": 5} | changes)
        model = VisionTransformer(config).eval()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.2, generator=generator)
        return model

    return make


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
