from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vitreous.checkpoints.formats import clip
from vitreous.checkpoints.reading import Found, Reading
from vitreous.data.preprocess import CLIP_MEAN
from vitreous.errors import CheckpointError
from vitreous.model.vit import VisionTransformer

timm = pytest.importorskip("timm")

Build = Callable[[Reading, Mapping[str, np.ndarray]], VisionTransformer]
Randomised = Callable[[nn.Module], dict[str, np.ndarray]]
State = Callable[[str], Any]

TEXT = {
    "positional_embedding": (77, 64),
    "text_projection": (64, 12),
    "logit_scale": (),
    "token_embedding.weight": (100, 64),
    "transformer.resblocks.0.ln_1.weight": (64,),
    "ln_final.weight": (64,),
    "input_resolution": (),
    "context_length": (),
    "vocab_size": (),
}
"""What OpenAI's archive has beside the image tower."""

SMALL: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 2, "num_heads": 2}


def settings(reading: Reading) -> dict[str, Any]:
    return {decision.setting: decision for decision in reading.decisions}


def test_openais_archive_gives_its_own_codes_embedding(torch_state: State, build: Build) -> None:
    state = torch_state("clip")
    found = Found(state.shapes | TEXT, "torchscript", name="ViT-B-32")
    assert clip.recognises(found)
    reading = clip.read(found)
    images, embedding = state.outputs[0]
    with torch.no_grad():
        assert (build(reading, state.arrays)(images) - embedding).abs().max() < 1e-5
    assert set(reading.ignored) == set(TEXT)
    assert not any(decision.guessed for decision in reading.decisions)
    assert settings(reading)["activation"].reason == "OpenAI's archive: all its models use quick-GELU"
    assert (reading.config.classes, reading.preprocess.mean) == (12, CLIP_MEAN)


def test_the_image_tower_alone_is_the_same_model(torch_state: State, build: Build) -> None:
    state = torch_state("clip")
    alone = {name.removeprefix("visual."): array for name, array in state.arrays.items()}
    found = Found({name: array.shape for name, array in alone.items()}, asked={"activation": "quick-gelu"})
    assert clip.recognises(found)
    images, embedding = state.outputs[0]
    with torch.no_grad():
        assert (build(clip.read(found), alone)(images) - embedding).abs().max() < 1e-5


def test_timm_converts_the_same_file_alike(torch_state: State, build: Build) -> None:
    state = torch_state("clip")
    with torch.random.fork_rng():
        reference = timm.create_model(
            "vit_base_patch32_clip_224", img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=1, num_classes=12
        ).eval()
    weights = {name: torch.from_numpy(array) for name, array in state.arrays.items()}
    reference.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(weights, reference))
    reading = clip.read(Found(state.shapes, "torch", name="open_clip_laion2b"))
    images, _ = state.outputs[0]
    with torch.no_grad():
        assert (build(reading, state.arrays)(images) - reference(images)).abs().max() < 1e-5
    assert settings(reading)["activation"].guessed


@pytest.mark.parametrize(
    ("found", "activation", "guessed"),
    [
        ({"name": "ViT-B-32", "container": "torch"}, "quick-gelu", True),
        ({"name": "vit_b_32-quickgelu-laion400m_e32"}, "quick-gelu", True),
        ({"name": "open_clip_metaclip"}, "quick-gelu", True),
        ({"name": "CLIP-ViT-L-14-DataComp"}, "gelu", True),
        ({"name": "model"}, "gelu", True),
        ({"described": {"model_cfg": {"quick_gelu": True}}}, "quick-gelu", False),
        ({"described": {"model_cfg": {}, "preprocess_cfg": {}}}, "gelu", True),
        ({"asked": {"activation": "gelu-tanh"}}, "gelu-tanh", False),
    ],
)
def test_the_activation_has_a_reason(found: dict[str, Any], activation: str, guessed: bool, torch_state: State) -> None:
    decision = settings(clip.read(Found(torch_state("clip").shapes, **found)))["activation"]
    assert (decision.value, decision.guessed) == (activation, guessed)


def test_open_clips_configuration_tells_heads_and_preprocessing(torch_state: State) -> None:
    described = {
        "model_cfg": {"vision_cfg": {"head_width": 16}},
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resize_mode": "squash"},
    }
    reading = clip.read(Found(torch_state("clip").shapes, described=described))
    assert reading.config.heads == 4
    assert (reading.preprocess.resize, reading.preprocess.mean) == ("squash", (0.5, 0.5, 0.5))
    with pytest.raises(CheckpointError, match="preprocess_cfg cannot be used"):
        clip.read(Found(torch_state("clip").shapes, described={"preprocess_cfg": {"mean": [1]}}))


@pytest.mark.parametrize(
    ("architecture", "activation", "statistics"),
    [("vit_base_patch16_clip_224", "gelu", CLIP_MEAN), ("vit_base_patch16_siglip_224", "gelu", (0.5, 0.5, 0.5))],
)
@pytest.mark.parametrize("projection", [None, 12])
def test_a_tower_of_timms_is_read_as_timms(
    architecture: str,
    activation: str,
    statistics: tuple[float, ...],
    projection: int | None,
    build: Build,
    randomised: Randomised,
) -> None:
    with torch.random.fork_rng():
        tower = timm.create_model(architecture, num_classes=0, **SMALL).eval()
        last = nn.Linear(128, projection, bias=False) if projection else nn.Identity()
    arrays = {f"visual.trunk.{name}": array for name, array in randomised(tower).items()}
    arrays |= {f"visual.head.proj.{name}": array for name, array in randomised(last).items()}
    found = Found({name: array.shape for name, array in arrays.items()} | {"text.token_embedding.weight": (9, 4)})
    assert clip.recognises(found)
    reading = clip.read(found)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert (build(reading, arrays)(images) - last(tower(images))).abs().max() < 1e-5
    assert (reading.config.activation, reading.preprocess.mean) == (activation, statistics)
    assert set(reading.ignored) == {"text.token_embedding.weight"}


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("visual.attn_pool.query", "attention pooling"),
        ("visual.layer1.0.conv1.weight", "a ResNet"),
        ("text_decoder.ln.weight", "a decoder of captions"),
        ("visual.head.mlp.fc1.weight", "an MLP as projection"),
    ],
)
def test_other_towers_are_refused_by_name(name: str, what: str, torch_state: State) -> None:
    with pytest.raises(CheckpointError, match=f"this CLIP has {what}"):
        clip.read(Found(torch_state("clip").shapes | {name: (3,)}))
