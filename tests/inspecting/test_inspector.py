from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import vitreous
from vitreous.data.inputs import short_names
from vitreous.data.preprocess import HALF_MEAN, HALF_STD, Preprocess
from vitreous.errors import CaptureError, ConfigError, InputError, ShapeError
from vitreous.inspecting.inspector import inspect_model
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer

CONFIG = ViTConfig(image_size=(16, 24), patch_size=(4, 8), width=24, depth=3, heads=4, classes=6, registers=2)
PREPROCESS = Preprocess((16, 24), "squash", 1.0, "bicubic", HALF_MEAN, HALF_STD)


def small_model(config: ViTConfig = CONFIG) -> VisionTransformer:
    model = VisionTransformer(config, generator=torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight.mul_(2)  # first weights attend to all tokens alike, which would hide mistakes
    return model


def own_attention(model: VisionTransformer, images: Tensor) -> list[Tensor]:
    """Equations 5 to 7 of the paper's appendix, for every layer: (images, heads, tokens, tokens) float64."""
    found = []
    sequence = model.tokens(images)
    for block in model.blocks:
        normed = block.norm1(sequence)
        q, k, _ = block.attn.qkv(normed).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4).double()
        found.append((q @ k.mT / 6**0.5).softmax(-1))
        sequence = block(sequence)
    return found


@torch.no_grad()
def test_every_number_is_the_definition_on_the_models_own_maps() -> None:
    model = small_model()
    images = torch.randn(5, 3, 16, 24)
    found = inspect_model(model, images, batch_size=2, shown=3)
    attention = own_attention(model, images)
    layout = found.layout
    assert (layout.prefix, layout.rows, layout.columns, layout.class_token) == (3, 4, 3, 0)
    apart = torch.zeros(15, 15, dtype=torch.float64)
    apart[3:, 3:] = layout.distances()

    for layer, one in enumerate(attention):
        distance = (one * apart).sum(-1)[:, :, 3:]  # (images, heads, patches)
        mass = one[:, :, 3:, :3].sum(-1)
        entropy = -(one * one.log2()).sum(-1)  # (images, heads, tokens)
        close(found.attention_distance[layer], distance.mean((0, 2)))
        close(found.attention_distance_spread[layer], distance.mean(2).std(0, correction=0), 1e-3)
        close(found.attention_distance_renormalized[layer], (distance / one[:, :, 3:, 3:].sum(-1)).mean((0, 2)))
        close(found.attention_entropy[layer], entropy.mean((0, 2)))
        close(found.attention_entropy_spread[layer], entropy.mean(2).std(0, correction=0), 1e-3)
        close(found.prefix_mass[layer], mass.mean((0, 2)))
        close(found.prefix_mass_spread[layer], mass.mean(2).std(0, correction=0), 1e-3)
        for head in range(4):
            for name, values, highest in (
                ("attention_distance", distance, math.hypot(3 * 4, 2 * 8)),
                ("attention_entropy", entropy, math.log2(15)),
                ("prefix_mass", mass, 1.0),
            ):
                counts, _ = np.histogram(values[:, head].numpy(), 64, (0, highest))
                assert getattr(found, f"{name}_histogram")[layer, head].tolist() == counts.tolist(), name
        close(found.class_attention[:, layer].flatten(2), one[:3, :, 0, 3:])

    product = torch.eye(15, dtype=torch.float64)
    for one in attention:
        product = (0.5 * torch.eye(15) + 0.5 * one.mean(1)) @ product
    close(found.rollout.flatten(1), product[:3, 0, 3:])
    close(found.rollout_mean.flatten(), product[:, 0, 3:].mean(0))
    assert found.images == 5 and found.rollout.shape == (3, 4, 3) and len(found.thumbnails) == 3
    assert found.position_similarity is not None and found.position_similarity.shape == (4, 3, 4, 3)
    expected = torch.nn.functional.cosine_similarity(model.pos_embed[0, 3], model.pos_embed[0, 3 + 7], dim=0)
    assert float(found.position_similarity[0, 0, 2, 1]) == pytest.approx(float(expected), abs=1e-6)
    assert found.filters is not None and found.filters.shape[1:] == (3, 4, 8)


def close(found: Tensor, expected: Tensor, rtol: float = 1e-5) -> None:
    torch.testing.assert_close(found.double(), expected, rtol=rtol, atol=1e-6)


@torch.no_grad()
def test_batches_of_any_size_give_the_same_numbers() -> None:
    model, images = small_model(), torch.randn(7, 3, 16, 24)
    one, all_at_once = (inspect_model(model, images, batch_size=size, shown=7) for size in (1, 7))
    for name in ("attention_distance", "attention_entropy", "prefix_mass", "rollout", "class_attention"):
        torch.testing.assert_close(getattr(one, name), getattr(all_at_once, name), rtol=1e-5, atol=1e-6)


def test_a_model_without_class_token_is_read_out_by_its_patches() -> None:
    config = ViTConfig(image_size=(16, 16), patch_size=(4, 4), width=24, depth=2, heads=4, class_token=False,
                       pooling="mean", classes=0)  # fmt: skip
    model, images = small_model(config), torch.randn(2, 3, 16, 16)
    found = inspect_model(model, images)
    with torch.no_grad():
        attention = own_attention(model, images)
    close(found.class_attention[:, 1].flatten(2), attention[1].mean(2))
    assert found.layout.class_token is None and not found.predictions
    assert float(found.prefix_mass.abs().max()) == 0


def test_pictures_go_through_the_models_own_preprocessing(tmp_path: Path) -> None:
    for index, colour in enumerate(("red", "blue")):
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"{index}.png")
    model = small_model()
    vitreous.save(model, tmp_path / "model", preprocess=PREPROCESS, class_names=list("abcdef"))
    found = inspect_model(vitreous.load(tmp_path / "model"), tmp_path)
    assert found.image_names == ("0.png", "1.png")
    assert found.thumbnails[:, 5, 7].tolist() == [[255, 0, 0], [0, 0, 255]]
    assert [len(image) for image in found.predictions] == [5, 5]
    assert {name for image in found.predictions for name, _ in image} <= set("abcdef")
    assert found.provenance["file_hash"].startswith("sha256:")
    assert found.provenance["preprocess"] == PREPROCESS.to_dict()


def test_predictions_are_the_softmax_of_the_models_logits() -> None:
    model, images = small_model(), torch.randn(2, 3, 16, 24)
    nn.init.normal_(model.head.weight)
    found = inspect_model(model, images, class_names=list("abcdef"))
    with torch.no_grad():
        likely = model(images).softmax(-1).sort(descending=True)
    for image in range(2):
        assert [name for name, _ in found.predictions[image]] == ["abcdef"[i] for i in likely.indices[image, :5]]
        assert [p for _, p in found.predictions[image]] == pytest.approx(likely.values[image, :5].tolist())


def test_features_are_not_taken_for_logits() -> None:
    model = small_model()
    model.head = nn.Identity()
    assert inspect_model(model, torch.randn(1, 3, 16, 24)).predictions == ()


def test_thumbnails_of_an_unknown_preprocessing_are_stretched_and_said_to_be() -> None:
    images = torch.linspace(-3, 5, 2 * 3 * 16 * 24).view(2, 3, 16, 24)
    found = inspect_model(small_model(), images)
    assert found.thumbnails.amin() == 0 and found.thumbnails.amax() == 255
    assert any(note.startswith("thumbnails: ") for note in found.provenance["notes"])


def test_a_model_without_positions_or_patches_says_so() -> None:
    config = ViTConfig(image_size=(16, 16), patch_size=(4, 4), width=24, depth=1, heads=4, classes=2, positions="none")
    found = inspect_model(small_model(config), torch.randn(1, 3, 16, 16))
    assert found.position_similarity is None and found.position_structure == {}
    assert any(note.startswith("position similarity: ") for note in found.provenance["notes"])


def test_the_callers_random_state_and_the_model_are_left_alone() -> None:
    model = small_model()
    state, weights = torch.get_rng_state(), {name: value.clone() for name, value in model.state_dict().items()}
    inspect_model(model, torch.zeros(1, 3, 16, 24) + 0.1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("images", "options", "error", "message"),
    [
        (torch.zeros(3, 16, 24), {}, ShapeError, "not .batch, channels"),
        (torch.zeros(0, 3, 16, 24), {}, InputError, "the batch is empty"),
        (torch.zeros(2, 3, 16, 24), {"names": ["one"]}, ConfigError, "1 names for 2 images"),
        (torch.zeros(2, 3, 16, 24), {"batch_size": 0}, ConfigError, "batch_size is 0"),
        ("digits", {}, ConfigError, "pass preprocess="),
        ("no-such-file.png", {"preprocess": PREPROCESS}, InputError, "no such file"),
        (torch.zeros(1, 3, 17, 24), {}, ShapeError, "17"),
    ],
)
def test_what_cannot_be_inspected_is_refused(images: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        inspect_model(small_model(), images, **options)


def test_a_model_without_attention_is_refused() -> None:
    with pytest.raises(CaptureError, match="no attention among tokens was seen"):
        inspect_model(nn.Conv2d(3, 4, 3).eval(), torch.zeros(1, 3, 8, 8))


def test_names_are_as_short_as_they_can_be_with_all_different() -> None:
    assert short_names(("in/a/1.png", "in/b/1.png"), [1, 0]) == ("b/1.png", "a/1.png")
    assert short_names(("in/a/1.png", "in/a/2.png"), [0, 1]) == ("1.png", "2.png")
    assert short_names(("one.png",), [0]) == ("one.png",)
    assert short_names(("/x/one.png", "two.png"), [0, 1]) == ("/x/one.png", "two.png")
