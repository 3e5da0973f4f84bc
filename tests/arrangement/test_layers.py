from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitreous.arrangement.layers import SpatialLayers
from vitreous.errors import CaptureError, ShapeError
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer

VIT = ViTConfig((8, 12), (4, 4), width=16, depth=3, heads=2, classes=5)
HYBRID = ViTConfig(
    (16, 16), (4, 4), stem=(1, 2), stem_width=32, stem_root="small", width=16, depth=2, heads=2, classes=5
)  # fmt: skip
CNN = replace(HYBRID, depth=0, class_token=False, positions="none", pooling="mean")


def images(height: int, width: int, batch: int = 3) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def own(config: ViTConfig) -> VisionTransformer:
    return VisionTransformer(config, generator=torch.Generator().manual_seed(0)).eval()


def hooked(model: nn.Module, modules: Sequence[nn.Module], batch: Tensor) -> list[Tensor]:
    """What a hand-written hook on each module sees, copied at once."""
    found: list[Tensor] = []
    handles = [module.register_forward_hook(lambda _, __, value: found.append(value.clone())) for module in modules]
    with torch.no_grad():
        model(batch)
    for handle in handles:
        handle.remove()
    return found


def check_maps(layers: SpatialLayers, batch: Tensor, expected: Sequence[Tensor], names: Sequence[str]) -> Any:
    """Features of the named layers equal (batch, channels, rows, columns); grids are theirs; the output comes back."""
    output, features = layers.read(batch)
    assert list(features) == list(layers.names)
    assert all(value.shape[1:3] == grid for value, grid in zip(features.values(), layers.grids, strict=True))
    assert all(value.dtype == torch.float32 for value in features.values())
    for name, value in zip(names, expected, strict=True):
        torch.testing.assert_close(features[name], value.permute(0, 2, 3, 1).float(), rtol=0, atol=0)
    return output


def no_hook_is_on(model: nn.Module) -> bool:
    return not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def on_grid(tokens: Tensor, prefix: int, rows: int) -> Tensor:
    """(batch, tokens, width) -> (batch, width, rows, columns)."""
    return tokens[:, prefix:].unflatten(1, (rows, -1)).permute(0, 3, 1, 2)


def units(count: int) -> list[str]:
    return [f"unit {number}" for number in range(count)]


BLOCKS = ["layer 0", "layer 1", "layer 2"]


@pytest.mark.parametrize(
    ("config", "prefix"),
    [
        (VIT, 1),
        (replace(VIT, registers=2), 3),
        (replace(VIT, class_token=False, pooling="mean", positions="rope"), 0),
        (replace(VIT, distillation=True), 2),
    ],
)
def test_layers_of_our_vit_are_what_its_first_block_sees_and_what_blocks_return(config: ViTConfig, prefix: int) -> None:
    model, batch = own(config), images(8, 12)
    layers = SpatialLayers(model, batch)
    with torch.no_grad():
        embedded = model.tokens(batch)
    expected = [on_grid(tokens, prefix, 2) for tokens in [embedded, *hooked(model, list(model.blocks), batch)]]
    output = check_maps(layers, batch, expected, ["embedding", *BLOCKS])
    torch.testing.assert_close(output, model(batch), rtol=0, atol=0)
    assert layers.names == ("embedding", *BLOCKS) and layers.grids == ((2, 3),) * 4
    assert (layers.kind, layers.patch_size) == ("ViT", (4, 4)) and layers.strides == ((4, 4),) * 4


def test_positions_added_in_every_layer_are_no_layers_but_the_first_is_in_the_embedding() -> None:
    model, batch = own(replace(VIT, positions_at="layers")), images(8, 12)
    with torch.no_grad():
        for weight in model.layer_positions.parameters():
            weight.normal_(generator=torch.Generator().manual_seed(1))
    layers = SpatialLayers(model, batch)
    embedded = hooked(model, [model.layer_positions[0]], batch)[0]
    check_maps(layers, batch, [on_grid(embedded, 1, 2)], ["embedding"])
    assert layers.names == ("embedding", *BLOCKS)


@pytest.mark.parametrize(("config", "kind"), [(HYBRID, "hybrid"), (CNN, "CNN")])
def test_units_of_our_resnet_are_layers_alone_and_before_a_transformer(config: ViTConfig, kind: str) -> None:
    model, batch = own(config), images(16, 16)
    layers = SpatialLayers(model, batch)
    stages = model.patch_embed.backbone.stages
    expected = hooked(model, [unit for stage in stages for unit in stage.blocks], batch)
    check_maps(layers, batch, expected, units(3))
    assert layers.kind == kind and layers.grids[:3] == ((16, 16), (8, 8), (8, 8))
    assert layers.strides[:3] == ((1, 1), (2, 2), (2, 2))
    assert layers.names[3:] == (("embedding", "layer 0", "layer 1") if kind == "hybrid" else ())
    assert layers.patch_size == ((4, 4) if kind == "hybrid" else (2, 2))


def test_layers_of_timms_vit_are_its_intermediates() -> None:
    from timm.models.vision_transformer import VisionTransformer as TimmTransformer

    torch.manual_seed(0)
    model = TimmTransformer(img_size=16, patch_size=4, embed_dim=16, depth=3, num_heads=2, reg_tokens=2).eval()
    batch = images(16, 16)
    with torch.no_grad():
        expected = model.forward_intermediates(batch, intermediates_only=True)  # maps
        embedded = model._pos_embed(model.patch_embed(batch))
    layers = SpatialLayers(model, batch)
    check_maps(layers, batch, [on_grid(embedded, 3, 4), *expected], ["embedding", *BLOCKS])
    assert layers.kind == "ViT" and layers.patch_size == (4, 4)


def test_layers_of_transformers_vit_are_its_hidden_states() -> None:
    from transformers import ViTConfig as Settings
    from transformers import ViTForImageClassification

    torch.manual_seed(0)
    settings = Settings(
        image_size=16, patch_size=4, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32
    )
    model, batch = ViTForImageClassification(settings).eval(), images(16, 16)
    with torch.no_grad():
        expected = model(batch, output_hidden_states=True)
    layers = SpatialLayers(model, batch)
    maps = [on_grid(state, 1, 4) for state in expected.hidden_states[:4]]
    output = check_maps(layers, batch, maps, ["embedding", *BLOCKS])
    torch.testing.assert_close(output.logits, expected.logits, rtol=0, atol=0)
    assert layers.kind == "ViT"


def test_layers_of_torchvisions_vit_are_its_encoder_blocks() -> None:
    from torchvision.models import VisionTransformer as TorchvisionTransformer

    torch.manual_seed(0)
    model, batch = TorchvisionTransformer(16, 4, 3, 2, 16, 32).eval(), images(16, 16)
    layers = SpatialLayers(model, batch)
    modules = [model.encoder.dropout, *model.encoder.layers]
    expected = [on_grid(tokens, 1, 4) for tokens in hooked(model, modules, batch)]
    check_maps(layers, batch, expected, ["embedding", *BLOCKS])
    assert layers.kind == "ViT"


def test_branches_that_the_model_adds_up_are_read_where_they_are_summed() -> None:
    from vit_pytorch import ViT

    torch.manual_seed(0)
    model = ViT(image_size=16, patch_size=4, num_classes=5, dim=16, depth=3, heads=2, mlp_dim=32, dim_head=8).eval()
    batch, states = images(16, 16), []
    with torch.no_grad():
        sequence = model.to_patch_embedding(batch)
        sequence = torch.cat([model.cls_token.expand(len(batch), 1, -1), sequence], dim=1) + model.pos_embedding
        states.append(sequence)
        for attention, feed_forward in model.transformer.layers:
            sequence = attention(sequence) + sequence
            sequence = feed_forward(sequence) + sequence
            states.append(sequence)
    layers = SpatialLayers(model, batch)
    check_maps(layers, batch, [on_grid(state, 1, 4) for state in states], ["embedding", *BLOCKS])
    assert layers.names == ("embedding", *BLOCKS)


def test_of_many_layers_16_are_read_evenly_spaced_with_the_first_and_the_last() -> None:
    layers = SpatialLayers(own(replace(VIT, depth=30)), images(8, 12))
    assert len(layers.names) == 16 and layers.names[0] == "embedding" and layers.names[-1] == "layer 29"
    assert layers.names[1:] == tuple(f"layer {number}" for number in range(1, 30, 2))
    assert len(SpatialLayers(own(replace(VIT, depth=15)), images(8, 12)).names) == 16


class TokensFirst(nn.Module):
    """Runs one and the same layer twice, on (tokens, batch, width); a hidden list that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0)
        self.layers = nn.ModuleList([layer, layer])

    def forward(self, images: Tensor) -> Tensor:
        sequence = self.patches(images).flatten(2).permute(2, 0, 1)
        for layer in self.layers:
            sequence = layer(sequence)
        return sequence.mean(dim=0)


def test_tokens_before_the_batch_and_a_layer_that_runs_twice_are_told_apart() -> None:
    torch.manual_seed(0)
    model = TokensFirst().eval()
    batch = images(8, 12, batch=6)  # as many images as patches
    layers = SpatialLayers(model, batch)
    with torch.no_grad():
        states = [model.patches(batch).flatten(2).permute(2, 0, 1)]
        for _ in range(2):
            states.append(model.layers[0](states[-1]))
    expected = [on_grid(state.transpose(0, 1), 0, 2) for state in states]
    check_maps(layers, batch, expected, ["embedding", "layer 0", "layer 1"])


def test_inference_mode_and_half_precision_change_no_layer() -> None:
    from torchvision.models import mobilenet_v3_small  # adds in place

    model, batch = mobilenet_v3_small(num_classes=3).eval(), images(64, 64, batch=1)
    with torch.inference_mode():
        inside = SpatialLayers(model, batch.clone())
        inside.read(batch)
    assert inside.names == SpatialLayers(model, batch).names
    half = own(VIT).bfloat16()
    assert SpatialLayers(half, images(8, 12)).read(images(8, 12))[1]["layer 0"].dtype == torch.float32


def test_features_stay_as_they_were_when_the_model_works_on_in_place() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3), nn.Flatten()).eval()
    _, features = SpatialLayers(model, images(8, 8)).read(images(8, 8))
    with torch.no_grad():
        expected = model[0](images(8, 8)).permute(0, 2, 3, 1)
    assert expected.min() < 0
    torch.testing.assert_close(features["unit 0"], expected, rtol=0, atol=0)


class Failing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fails = False

    def forward(self, features: Tensor) -> Tensor:
        if self.fails:
            raise RuntimeError("out of order")
        return features.mean((2, 3))


def test_no_hook_is_left_even_when_the_pass_fails() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), Failing()).eval()
    layers = SpatialLayers(model, images(8, 8))
    assert no_hook_is_on(model)
    model[-1].fails = True
    for fails in (lambda: SpatialLayers(model, images(8, 8)), lambda: layers.read(images(8, 8))):
        with pytest.raises(ShapeError, match="out of order"):
            fails()
        assert no_hook_is_on(model)


class Mixer(nn.Module):
    """Patches in a sequence, without attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.last = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.patches(images).flatten(2).transpose(1, 2)).mean(dim=1)


def windows() -> nn.Module:
    from torchvision.models import SwinTransformer

    return SwinTransformer([4, 4], 8, [2], [2], [2, 2])


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.ReLU(), nn.Linear(5, 5)),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 8), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Flatten()),
        Mixer,
        windows,
    ],
    ids=["no map", "one position", "mixer", "windows"],
)
def test_a_model_without_a_map_is_refused(build: Callable[[], nn.Module]) -> None:
    model = build().eval()
    with pytest.raises(CaptureError, match="has no layer whose map can be placed in the image") as caught:
        SpatialLayers(model, images(8, 8))
    assert len(str(caught.value).splitlines()) <= 3
    assert no_hook_is_on(model)


def test_images_of_another_size_and_layers_that_do_not_run_are_refused() -> None:
    model = own(VIT)
    layers = SpatialLayers(model, images(8, 12))
    with pytest.raises(ShapeError, match="find the layers anew"):
        layers.read(images(8, 8))
    model.blocks = model.blocks[:2]
    with pytest.raises(CaptureError, match="layer 2 of VisionTransformer did not run"):
        layers.read(images(8, 12))


def test_finding_layers_leaves_the_images_as_they_are() -> None:
    batch = images(8, 8)
    SpatialLayers(nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3), nn.Flatten()).eval(), batch)
    assert torch.equal(batch, images(8, 8))


class Pyramid(nn.Module):
    """Convolutions, then attention among ever fewer tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.patches = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 2, stride=2)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(self.stem(images)).flatten(2).transpose(1, 2)[:, None]
        tokens = nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)[:, :, ::4]
        return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).mean(dim=2)


def test_convolutions_before_attention_that_cannot_be_placed_are_no_layers() -> None:
    with pytest.raises(CaptureError, match="attends among 4 tokens"):
        SpatialLayers(Pyramid().eval(), images(8, 8))
