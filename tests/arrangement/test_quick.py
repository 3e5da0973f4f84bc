from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from vitreous.arrangement import quick
from vitreous.arrangement.quick import quick_linear
from vitreous.capture.watch import watch_attention
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer


class Counting(TorchFunctionMode):
    """Counts the calls that reach it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[Any] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[func] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick, "_pays", lambda: True)


@pytest.mark.usefixtures("pays")
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_linear_layer_gives_the_same_numbers(has_bias: bool) -> None:
    torch.manual_seed(0)
    layer, tokens = nn.Linear(24, 40, bias=has_bias), torch.randn(3, 5, 24)
    with torch.no_grad(), Counting() as seen, quick_linear():
        found = layer(tokens)
    assert seen.calls[torch.conv2d] == 1 and seen.calls[F.linear] == 0
    torch.testing.assert_close(found, layer(tokens), atol=1e-6, rtol=1e-5)
    assert found.is_contiguous() and found.shape == (3, 5, 40)


@pytest.mark.usefixtures("pays")
def test_a_models_answers_stay_and_its_attention_is_seen() -> None:
    model = VisionTransformer(ViTConfig((8, 8), (4, 4), width=16, depth=2, heads=2, classes=5)).eval()
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(images)
        with quick_linear(), watch_attention(model) as watched:
            found = model(images)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert len(watched.layers) == 2 and watched.layout.rows == 2


@pytest.mark.usefixtures("pays")
def test_what_does_not_fit_is_left_to_torch() -> None:
    layer = nn.Linear(24, 40)
    others = [torch.randn(5, 24), torch.randn(2, 3, 5, 24), torch.randn(3, 24, 5).mT, torch.zeros(0, 5, 24)]
    for tokens in others:
        with torch.no_grad(), Counting() as seen, quick_linear():
            found = layer(tokens)
        assert seen.calls[F.linear] == 1 and seen.calls[torch.conv2d] == 0
        assert torch.equal(found, layer(tokens))
    with torch.no_grad(), Counting() as seen, quick_linear():
        layer.double()(torch.randn(3, 5, 24).double())
    assert seen.calls[F.linear] == 1


def test_other_cpus_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for found, expected in (
        ({"cpu_name": "AMD EPYC", "avx512_f": True}, torch.backends.mkl.is_available()),
        ({"cpu_name": "AMD EPYC", "avx512_f": False}, False),
        ({"cpu_name": "Intel(R) Xeon(R)", "avx512_f": True}, False),
        ({}, False),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found, raising=False)
        assert quick._pays() == (expected and torch.backends.mkldnn.is_available())
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not quick._pays()
