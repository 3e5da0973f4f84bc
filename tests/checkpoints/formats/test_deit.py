from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vitreous.checkpoints.formats import deit
from vitreous.checkpoints.reading import Found, Reading
from vitreous.model.vit import VisionTransformer

timm = pytest.importorskip("timm")

Build = Callable[[Reading, Mapping[str, np.ndarray]], VisionTransformer]
Randomised = Callable[[nn.Module], dict[str, np.ndarray]]

SMALL: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 2, "num_heads": 2}


def test_deit_iii_gives_its_own_codes_logits(torch_state: Callable[[str], Any], build: Build) -> None:
    state = torch_state("deit3")
    found = Found(state.shapes, "torch")
    assert deit.recognises(found)
    reading = deit.read(found)
    for images, logits in state.outputs:
        with torch.no_grad():
            assert (build(reading, state.arrays)(images) - logits).abs().max() < 1e-5
    reasons = {decision.setting: decision.reason for decision in reading.decisions}
    assert reasons["positions of the prefix"] == "the table has patches only; adding 0 is exact"
    assert reading.preprocess.crop_fraction == 1
    assert not any(decision.guessed for decision in reading.decisions)


@pytest.mark.parametrize(
    ("architecture", "name"),
    [("deit_base_distilled_patch16_224", "weights"), ("deit_base_patch16_224", "deit_base_patch16_224-b5f2ef4d")],
)
def test_deit_gives_timms_logits(architecture: str, name: str, build: Build, randomised: Randomised) -> None:
    with torch.random.fork_rng():
        model = timm.create_model(architecture, num_classes=5, **SMALL)
    arrays = randomised(model)
    found = Found({key: array.shape for key, array in arrays.items()}, "torch", name=name)
    assert deit.recognises(found)
    reading = deit.read(found)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert (build(reading, arrays)(images) - model(images)).abs().max() < 1e-5
    assert (reading.config.resampling, reading.preprocess.crop_fraction) == ("deit", 0.875)


def test_plain_weights_without_the_name_are_not_its_own(randomised: Randomised) -> None:
    with torch.random.fork_rng():
        arrays = randomised(timm.create_model("deit_base_patch16_224", **SMALL))
    assert not deit.recognises(Found({key: array.shape for key, array in arrays.items()}, name="vit_base"))
