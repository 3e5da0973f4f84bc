from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from vitreous.checkpoints.loaded import LoadedModel
from vitreous.data.labelled import LabelledImages
from vitreous.data.preprocess import Preprocess
from vitreous.data.transforms import to_tensor
from vitreous.errors import CheckpointError, ConfigError, InputError, MemoryLimitError, NumericError
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer
from vitreous.training import features as module
from vitreous.training.features import Features, layer_features

CONFIG = ViTConfig((8, 8), (4, 4), width=16, depth=3, heads=2, classes=5)
PREPROCESS = Preprocess((8, 8), "squash", 1.0)
CNN = ViTConfig(
    (8, 8), (2, 2), stem=(1, 1), stem_width=32, stem_root="small", width=16, depth=0, heads=2, classes=5,
    class_token=False, positions="none", pooling="mean",
)  # fmt: skip


def opened(config: ViTConfig) -> LoadedModel:
    """A model whose weights are all drawn, its head and class token too."""
    generator = torch.Generator().manual_seed(0)
    model = VisionTransformer(config, generator=generator).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.1)
    return LoadedModel(model, "tiny", PREPROCESS, (), "vitreous", "")


def noise(index: int) -> Image.Image:
    if index > 6:
        raise InputError(f"{index}.png: is spoilt")
    generator = torch.Generator().manual_seed(index)
    return Image.fromarray(torch.randint(0, 256, (9, 11, 3), generator=generator, dtype=torch.uint8).numpy())


def dataset(images: int = 7) -> LabelledImages:
    labels = tuple(n % 2 for n in range(images))
    return LabelledImages("noise", "train", ("even", "odd"), labels, tuple(f"{n}.png" for n in range(images)), noise)


def inputs() -> Tensor:
    return torch.stack([to_tensor(noise(n), PREPROCESS) for n in range(7)])


@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_layers_equal_timms(pooling: str) -> None:
    from timm.models.vision_transformer import VisionTransformer as TimmTransformer

    config = replace(CONFIG, pooling=pooling, registers=2)
    loaded = opened(config)
    timm = TimmTransformer(
        img_size=8, patch_size=4, embed_dim=16, depth=3, num_heads=2, num_classes=5, reg_tokens=2,
        global_pool="token" if pooling == "class" else "avg", class_token=True,
    ).eval()  # fmt: skip
    timm.load_state_dict(loaded.model.state_dict())
    found = layer_features(loaded, dataset(), batch_size=3, workers=0)
    assert found.layers == ("embedding", "layer 0", "layer 1", "layer 2", "read-out")
    with torch.no_grad():
        _, blocks = timm.forward_intermediates(inputs(), return_prefix_tokens=True, output_fmt="NLC")
        embedded = timm._pos_embed(timm.patch_embed(inputs()))
        read_out = timm.forward_head(timm.forward_features(inputs()), pre_logits=True)
    torch.testing.assert_close(found.values[0], embedded[:, 3:].mean(1), atol=1e-5, rtol=1e-5)
    for value, (tokens, before) in zip(found.values[1:-1], blocks, strict=True):
        expected = before[:, 0] if pooling == "class" else tokens.mean(1)
        torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.values[-1], read_out, atol=1e-5, rtol=1e-5)
    assert found.labels.tolist() == [0, 1, 0, 1, 0, 1, 0] and found.samples.tolist() == list(range(7))


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        replace(CONFIG, pooling="class+mean"),
        replace(CONFIG, pooling="map"),
        replace(CONFIG, hidden_head=True),
        CNN,
    ],
)
def test_the_read_out_is_what_the_head_reads(config: ViTConfig) -> None:
    loaded = opened(config)
    model = loaded.model
    assert isinstance(model, VisionTransformer) and model.head is not None
    found = layer_features(loaded, dataset(), workers=0)
    with torch.no_grad():
        torch.testing.assert_close(model.head(found.values[-1]), model(inputs()), atol=1e-5, rtol=1e-5)


def test_a_distilled_model_has_the_mean_of_both_vectors() -> None:
    loaded = opened(replace(CONFIG, distillation=True, classes=0))
    found = layer_features(loaded, dataset(), workers=0)
    with torch.no_grad():
        torch.testing.assert_close(found.values[-1], loaded.model(inputs()), atol=1e-5, rtol=1e-5)


def test_layers_of_a_cnn_are_its_stages() -> None:
    loaded = opened(CNN)
    model = loaded.model
    assert isinstance(model, VisionTransformer)
    found = layer_features(loaded, dataset(), workers=0)
    assert found.layers == ("stage 0", "stage 1", "read-out")
    stem = model.patch_embed.backbone
    with torch.no_grad():
        maps = [stem.stages[0](stem.stem(inputs()))]
        maps.append(stem.stages[1](maps[0]))
    for value, features in zip(found.values, maps, strict=False):
        torch.testing.assert_close(value, features.mean((2, 3)), atol=1e-5, rtol=1e-5)


def test_some_images_are_those_of_all() -> None:
    loaded = opened(CONFIG)
    whole = layer_features(loaded, dataset(), workers=0)
    some = layer_features(loaded, dataset(), samples=torch.tensor([5, 0, 2]), batch_size=2, workers=0)
    assert some.samples.tolist() == [0, 2, 5] and some.labels.tolist() == [0, 0, 1]
    for of_some, of_all in zip(some.values, whole.values, strict=True):
        torch.testing.assert_close(of_some, of_all[[0, 2, 5]], atol=1e-6, rtol=1e-5)
    assert some.rows(torch.tensor([5, 0])).tolist() == [2, 0]
    with pytest.raises(ConfigError, match="image 6 are asked for"):
        some.rows(torch.tensor([0, 6]))


def test_worker_processes_change_nothing() -> None:
    loaded = opened(CONFIG)
    ours, theirs = (layer_features(loaded, dataset(), batch_size=3, workers=workers) for workers in (0, 1))
    assert all(torch.equal(one, other) for one, other in zip(ours.values, theirs.values, strict=True))


def test_no_hook_is_left_on_the_model_even_when_it_fails() -> None:
    loaded = opened(CONFIG)
    layer_features(loaded, dataset(), workers=0)
    with pytest.raises(InputError, match="spoilt"):
        layer_features(loaded, dataset(9), workers=0)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in loaded.model.modules())


def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = opened(CONFIG)
    with pytest.raises(ConfigError, match="batch_size is 0"):
        layer_features(loaded, dataset(), batch_size=0)
    with pytest.raises(InputError, match="no image"):
        layer_features(loaded, dataset(), samples=torch.tensor([], dtype=torch.int64))
    with pytest.raises(CheckpointError, match="vitreous convert"):
        layer_features(replace(loaded, model=nn.Linear(2, 2), kind="timm"), dataset())
    monkeypatch.setattr(module, "MEMORY_LIMIT", 5 * 16 * 4 * 7 - 1)
    with pytest.raises(MemoryLimitError, match="7 images"):
        layer_features(loaded, dataset(), workers=0)
    monkeypatch.undo()
    model = loaded.model
    assert isinstance(model, VisionTransformer)
    with torch.no_grad():
        model.blocks[1].mlp.fc2.bias[0] = torch.nan
    with pytest.raises(NumericError, match="layer 1 is NaN"):
        layer_features(loaded, dataset(), workers=0)


def test_features_know_their_place() -> None:
    some = Features(("a",), (torch.zeros(2, 1),), torch.zeros(2), torch.tensor([3, 8]))
    assert some.rows(torch.tensor([8, 3, 8])).tolist() == [1, 0, 1]
