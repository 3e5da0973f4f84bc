from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer
from vitreous.training import throughput
from vitreous.training.throughput import PEAKS, peak_operations, training_operations

SMALL: dict[str, Any] = {
    "image_size": (32, 48),
    "patch_size": (16, 16),
    "classes": 5,
    "width": 16,
    "heads": 2,
    "depth": 2,
}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "registers": {"registers": 3, "distillation": True},
    "wide attention": {"attention_width": 32, "mlp_ratio": 3.0},
    "gated": {"gated_mlp": True, "patch_norms": True},
    "map pooling": {"pooling": "map", "class_token": False},
    "both poolings": {"pooling": "class+mean", "hidden_head": True},
    "relative": {"positions": "relative"},
    "rope": {"positions": "rope", "qk_norm": True},
    "root": {"stem": (), "stem_width": 8},
    "hybrid": {"stem": (2, 1), "stem_width": 8},
    "hybrid of odd size": {"stem": (1, 2, 1), "stem_width": 8, "image_size": (48, 80)},
    "small root": {"stem": (1, 2), "stem_width": 8, "stem_root": "small"},
    "convolutions": {
        "stem": (1, 1),
        "stem_width": 8,
        "stem_root": "small",
        "depth": 0,
        "class_token": False,
        "positions": "none",
        "pooling": "mean",
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_operations_are_those_that_torch_counts(kind: str) -> None:
    config = ViTConfig(**SMALL | KINDS[kind])
    with torch.device("meta"):  # no kernel of the CPU, which torch's counter does not know
        model, images = VisionTransformer(config), torch.empty(1, 3, *config.image_size)
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    assert training_operations(config) == counter.get_total_flops()


def test_vit_b_16_needs_the_operations_that_its_paper_gives() -> None:
    # 17.6 GFLOPs a forward pass (DeiT, table 5, counts a multiplication with its addition as one), times three
    assert training_operations(ViTConfig()) == pytest.approx(3 * 2 * 17.58e9, rel=0.01)


def test_a_gpu_is_found_by_its_name_and_an_unknown_one_has_no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    def peak(name: str, precision: torch.dtype = torch.bfloat16) -> float | None:
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
        return peak_operations(torch.device("cuda", 0), precision, 1)

    assert peak("NVIDIA H200") == 989e12
    assert peak("NVIDIA H100 PCIe") == 756e12 and peak("NVIDIA H100 80GB HBM3") == 989e12
    assert peak("NVIDIA L40S") == 362e12 and peak("NVIDIA L4") == 121e12
    assert peak("NVIDIA GeForce GTX 1080") is None
    assert peak("NVIDIA H200", torch.float32) is None
    assert all(1e13 < value < 1e16 for value in PEAKS.values())


def test_the_peak_of_a_cpu_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    throughput._measured_peak.cache_clear()
    seconds = iter([9.0, *[0.5] * (throughput._TRIES - 2), 0.25])
    monkeypatch.setattr(throughput, "_seconds", lambda matrix: next(seconds))
    expected = 2 * 512**3 / 0.25  # the product of two 512 x 512 matrices in the shortest time
    assert peak_operations(torch.device("cpu"), torch.float32, 1) == expected
    assert peak_operations(torch.device("cpu"), torch.float32, 1) == expected  # without another try
    throughput._measured_peak.cache_clear()
