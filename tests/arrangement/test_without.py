from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitreous.arrangement.changes import shuffle_grid, tile_orders
from vitreous.arrangement.without import (
    PositionTable,
    changed_positions,
    circular_padding,
    find_position_table,
    shuffled,
    transplanted,
    zeroed,
)
from vitreous.errors import CaptureError, ConfigError, ShapeError
from vitreous.model.config import ViTConfig
from vitreous.model.positions import sincos_positions
from vitreous.model.vit import VisionTransformer

CONFIG = ViTConfig((8, 12), (4, 4), width=16, depth=2, heads=4, classes=5)
SQUARE = replace(CONFIG, image_size=(16, 16))
CNN = ViTConfig(
    (16, 16), (2, 2), stem=(1, 1), stem_width=32, stem_root="small", width=16, depth=0, heads=2, classes=5,
    class_token=False, positions="none", pooling="mean",
)  # fmt: skip


def drawn(model: nn.Module) -> nn.Module:
    """The model with all weights drawn, position tables as large as the rest."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.3)
    return model.eval()


def ours(config: ViTConfig) -> nn.Module:
    return drawn(VisionTransformer(config, generator=torch.Generator().manual_seed(0)))


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def image_for(config: ViTConfig) -> Tensor:
    return noise(3, 3, *config.image_size)


def timm_model(**options: Any) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer as TimmTransformer

    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 4, "num_classes": 5}
    return drawn(TimmTransformer(**{**sizes, **options}))


class Logits(nn.Module):
    """A model of transformers, its logits only."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).logits


def transformers_model() -> nn.Module:
    from transformers import ViTConfig as TheirConfig
    from transformers import ViTForImageClassification

    config = TheirConfig(
        image_size=16, patch_size=4, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32,
        num_labels=5,
    )  # fmt: skip
    return drawn(Logits(ViTForImageClassification(config)))


def clip_model() -> nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        image_size=16, patch_size=4, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32,
        projection_dim=5,
    )  # fmt: skip

    class Embeddings(Logits):
        def forward(self, images: Tensor) -> Tensor:
            return self.model(images).image_embeds

    return drawn(Embeddings(CLIPVisionModelWithProjection(config)))


def torchvision_model() -> nn.Module:
    from torchvision.models import VisionTransformer as TheirTransformer

    return drawn(
        TheirTransformer(
            image_size=16, patch_size=4, num_layers=2, num_heads=4, hidden_dim=16, mlp_dim=32, num_classes=5
        )
    )


def simple_vit() -> nn.Module:
    from vit_pytorch import SimpleViT

    return drawn(SimpleViT(image_size=16, patch_size=4, num_classes=5, dim=16, depth=2, heads=4, mlp_dim=32))


WITH_TABLES: dict[str, Callable[[], nn.Module]] = {
    "learned": lambda: ours(SQUARE),
    "learned, registers": lambda: ours(replace(SQUARE, registers=2, distillation=True)),
    "learned, mean": lambda: ours(replace(SQUARE, class_token=False, pooling="mean")),
    "learned, layers": lambda: ours(replace(SQUARE, positions_at="layers")),
    "learned, layers-shared": lambda: ours(replace(SQUARE, positions_at="layers-shared")),
    "learned-2d": lambda: ours(replace(SQUARE, positions="learned-2d")),
    "learned-2d, layers": lambda: ours(replace(SQUARE, positions="learned-2d", positions_at="layers")),
    "sincos-2d": lambda: ours(replace(SQUARE, positions="sincos-2d")),
    "sincos-2d, mean": lambda: ours(replace(SQUARE, positions="sincos-2d", class_token=False, pooling="mean")),
    "hybrid": lambda: ours(replace(SQUARE, stem=(1,), stem_width=32, stem_root="small")),
    "timm": timm_model,
    "timm, registers": lambda: timm_model(reg_tokens=2, no_embed_class=True),
    "transformers": transformers_model,
    "transformers, CLIP": clip_model,
    "torchvision": torchvision_model,
    "vit-pytorch, an attribute": simple_vit,
}


def found(model: nn.Module, images: Tensor) -> PositionTable:
    table = find_position_table(model, images)
    assert table is not None
    return table


def convolutions(**settings: Any) -> nn.Module:
    """A CNN of stride 1 with a map of every kind of padding."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(6, 6, (3, 5), padding=(1, 2), groups=2),
        nn.Conv2d(6, 6, (3, 4), padding="same", dilation=(1, 2)),
        nn.MaxPool2d(3, 1, 1),
        nn.ZeroPad2d((2, 0, 1, 1)),
        nn.Conv2d(6, 6, 3),
        nn.AvgPool2d(3, 1, 1, **settings),
    ).double()


def rolled(maps: Tensor) -> Tensor:
    return maps.roll((3, -2), (-2, -1))


@pytest.mark.parametrize("settings", [{}, {"count_include_pad": False}])
def test_a_cnn_of_stride_1_becomes_equivariant_to_cyclic_shifts_and_is_not_without(settings: dict[str, Any]) -> None:
    model, images = convolutions(**settings), noise(2, 3, 9, 11).double()
    with torch.no_grad():
        assert (model(rolled(images)) - rolled(model(images))).abs().max() > 0.05
        before = model(images)
        with circular_padding():
            still, moved = model(images), model(rolled(images))
        assert torch.equal(model(images), before)
    torch.testing.assert_close(moved, rolled(still), atol=1e-12, rtol=0)
    inside = (..., slice(10, -10), slice(10, -10))  # out of reach of the edge
    large = noise(1, 3, 24, 27).double()
    with torch.no_grad():
        zero_padded = model(large)
        with circular_padding():
            torch.testing.assert_close(model(large)[inside], zero_padded[inside], atol=1e-12, rtol=0)


def test_it_is_torchs_own_circular_padding() -> None:
    for own, theirs in (
        (nn.Conv2d(3, 4, 3, padding=2, stride=2, dilation=2), nn.Conv2d),
        (nn.Conv2d(3, 4, (2, 5), padding="same"), nn.Conv2d),
        (nn.Conv1d(3, 4, 5, padding=1, stride=2), nn.Conv1d),
        (nn.Conv1d(3, 4, 4, padding="same"), nn.Conv1d),
        (nn.Conv2d(3, 4, 3, padding="valid"), nn.Conv2d),
    ):
        settings = {name: getattr(own, name) for name in ("stride", "padding", "dilation")}
        expected = theirs(3, 4, own.kernel_size, **settings, padding_mode="circular")
        expected.load_state_dict(own.state_dict())
        images = noise(2, 3, *(8,) * (own.weight.ndim - 2))
        with circular_padding():
            result, alone = own(images), own(images[0])
        torch.testing.assert_close(result, expected(images))
        torch.testing.assert_close(alone, result[0])  # an image without a batch


@pytest.mark.parametrize(
    ("call", "padded"),
    [
        (lambda maps: F.max_pool2d(maps, 3, 2, 1), lambda maps: F.max_pool2d(maps, 3, 2)),
        (lambda maps: torch.max_pool2d(maps, [3], [2], [1]), lambda maps: F.max_pool2d(maps, 3, 2)),
        (lambda maps: F.max_pool2d(maps, kernel_size=3, padding=(1, 1)), lambda maps: F.max_pool2d(maps, 3)),
        (lambda maps: F.avg_pool2d(maps, 3, 2, 1), lambda maps: F.avg_pool2d(maps, 3, 2)),
        (lambda maps: F.unfold(maps, 3, padding=1, stride=2), lambda maps: F.unfold(maps, 3, stride=2)),
        (lambda maps: F.pad(maps, (1, 1, 1, 1)), lambda maps: maps),
        (lambda maps: F.pad(maps, (1, 1, 1, 1, 0, 0), value=-torch.inf), lambda maps: maps),
        (lambda maps: F.pad(maps, (1, 1, 1, 1), "constant", 0.0), lambda maps: maps),
        (lambda maps: torch.constant_pad_nd(maps, (1, 1, 1, 1)), lambda maps: maps),
        (lambda maps: torch.ops.aten.pad.default(maps, [1, 1, 1, 1]), lambda maps: maps),
        (lambda maps: torch.ops.aten.avg_pool2d(maps, [3], [2], [1]), lambda maps: F.avg_pool2d(maps, 3, 2)),
    ],
)
def test_other_calls_see_a_map_that_goes_on_with_its_other_side(
    call: Callable[[Tensor], Tensor], padded: Callable[[Tensor], Tensor]
) -> None:
    maps = noise(2, 3, 7, 9) - 5  # all below 0, so that a zero would show in a maximum
    around = torch.from_numpy(np.pad(maps.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="wrap"))
    with circular_padding():
        result = call(maps)
    assert torch.equal(result, padded(around))
    assert not torch.equal(result, call(maps))


def test_a_pad_that_cuts_off_still_does() -> None:
    maps = noise(1, 2, 5, 6)
    with circular_padding():
        result = F.pad(maps, (-2, 1, 0, -1))
    cut = maps[..., :4, 2:]
    assert torch.equal(result, torch.cat([cut, cut[..., :1]], dim=-1))


@pytest.mark.parametrize(
    "call",
    [
        lambda maps: F.pad(maps, (0, 0, 0, 0, 1, 1)),  # the shorter way around a CIFAR ResNet's block adds channels
        lambda maps: F.pad(maps, (1, 1, 1, 1), value=1.0),
        lambda maps: F.pad(maps, (1, 1, 1, 1), mode="reflect"),
        lambda maps: F.pad(maps[0], (1, 1)),  # no maps
        lambda maps: F.conv2d(maps, torch.ones(1, 2, 3, 3)),
        lambda maps: F.max_pool2d(maps, 2, ceil_mode=True),
        lambda maps: F.max_pool2d(maps, 2, return_indices=True)[1],
        lambda maps: F.adaptive_avg_pool2d(maps, 2),
    ],
)
def test_what_adds_no_zeros_around_maps_keeps_every_bit(call: Callable[[Tensor], Tensor]) -> None:
    maps = noise(1, 2, 5, 7)
    before = call(maps)
    with circular_padding():
        assert torch.equal(call(maps), before)


@pytest.mark.parametrize("size", [5, 6, 7, 8])
def test_maps_keep_their_size_also_where_windows_reach_beyond_the_edge(size: int) -> None:
    maps = noise(1, 2, size, size + 1)
    for stride in (2, 3):
        with circular_padding():
            largest = F.max_pool2d(maps, 3, stride, 1, ceil_mode=True)
            mean = F.avg_pool2d(maps, 3, stride, 1, ceil_mode=True)
        assert largest.shape == F.max_pool2d(maps, 3, stride, 1, ceil_mode=True).shape
        assert mean.shape == F.avg_pool2d(maps, 3, stride, 1, ceil_mode=True).shape
        around = torch.from_numpy(np.pad(maps.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="wrap"))
        assert largest[0, 0, 0, 0] == around[0, 0, :3, :3].max()


def test_the_order_in_memory_makes_no_difference() -> None:
    model, images = convolutions(), noise(2, 3, 9, 11).double()
    with torch.no_grad(), circular_padding():
        expected = model(images)
        result = model.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(result, expected, atol=1e-12, rtol=0)


def test_our_own_cnn_ignores_where_its_content_lies_without_zeros() -> None:
    model, images = ours(CNN), noise(2, 3, 16, 16)
    moved = images.roll((4, -6), (2, 3))  # whole strides
    with torch.no_grad():
        assert (model(moved) - model(images)).abs().max() > 0.01
        with circular_padding():
            torch.testing.assert_close(model(moved), model(images), atol=1e-5, rtol=1e-5)


def test_a_resnet_of_torchvision_ignores_it_too() -> None:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model = resnet18(num_classes=5).eval().double()
    images = noise(1, 3, 64, 64).double()
    moved = images.roll((32, 32), (2, 3))
    with torch.no_grad():
        assert (model(moved) - model(images)).abs().max() > 1e-3
        with circular_padding():
            torch.testing.assert_close(model(moved), model(images), atol=1e-10, rtol=1e-10)


def test_a_vit_without_padding_keeps_every_bit() -> None:
    model, images = ours(CONFIG), image_for(CONFIG)
    with torch.inference_mode():
        before = model(images)
        with circular_padding():
            assert torch.equal(model(images), before)


def test_a_compiled_part_is_run_eagerly_and_loses_its_zeros_too() -> None:
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    model, images = nn.Conv2d(1, 1, 3, padding=1), noise(1, 1, 5, 5)
    compiled = torch.compile(model, backend=backend)
    with torch.no_grad():
        before = compiled(images)
        with circular_padding():
            expected, result = model(images), compiled(images)
        assert torch.equal(result, expected)
        assert not torch.equal(result, before)
        assert torch.equal(compiled(images), before)
    assert len(graphs) == 1


def test_zeros_are_back_after_an_error_and_other_threads_keep_them() -> None:
    maps = noise(1, 1, 4, 4)
    before = F.pad(maps, (1, 1, 1, 1))
    elsewhere: list[Tensor] = []
    with pytest.raises(KeyError), circular_padding():
        thread = threading.Thread(target=lambda: elsewhere.append(F.pad(maps, (1, 1, 1, 1))))
        thread.start()
        thread.join()
        raise KeyError
    assert torch.equal(elsewhere[0], before)
    assert torch.equal(F.pad(maps, (1, 1, 1, 1)), before)


def test_a_map_smaller_than_its_padding_and_indices_are_refused() -> None:
    with circular_padding():
        with pytest.raises(ShapeError, match="a map of 2 x 9 is smaller than its padding 3"):
            F.conv2d(noise(1, 1, 2, 9), torch.ones(1, 1, 7, 7), padding=3)
        with pytest.raises(CaptureError, match="indices of max_pool2d"):
            F.max_pool2d(noise(1, 1, 8, 8), 3, padding=1, return_indices=True)


@pytest.mark.parametrize("name", WITH_TABLES)
def test_shuffling_the_table_is_shuffling_the_patches_back(name: str) -> None:
    model, images = WITH_TABLES[name](), noise(3, 3, 16, 16)
    if name == "hybrid":  # its stem sees beyond a patch
        model.patch_embed.backbone = nn.Conv2d(3, 128, 1)
    table = found(model, images)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(5))
    moved = shuffle_grid(images, order.argsort().expand(3, -1), 4)
    with torch.inference_mode():
        own = model(images)
        with changed_positions(table, shuffled(table, torch.Generator().manual_seed(5))):
            result = model(images)
        expected = model(moved)
        assert torch.equal(model(images), own)
    torch.testing.assert_close(result, expected, atol=3e-5, rtol=1e-4)
    assert (result - own).abs().max() > 1e-3


@pytest.mark.parametrize("name", WITH_TABLES)
def test_with_the_tables_own_values_nothing_changes_and_afterwards_not_a_bit(name: str) -> None:
    model, images = WITH_TABLES[name](), noise(3, 3, 16, 16)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    names = list(dict(model.named_parameters()))
    table = found(model, images)
    with torch.inference_mode():
        own = model(images)
        with changed_positions(table, table.values):
            torch.testing.assert_close(model(images), own, atol=1e-6, rtol=1e-6)
        with pytest.raises(KeyError), changed_positions(table, zeroed(table)):
            assert not torch.equal(model(images), own)
            raise KeyError
        assert torch.equal(model(images), own)
    assert list(model.state_dict()) == list(weights)
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert list(dict(model.named_parameters())) == names


def test_the_values_are_the_models_own_rows_for_patches() -> None:
    timm, images = timm_model(reg_tokens=2), noise(1, 3, 16, 16)
    table = found(timm, images)
    assert table.name == "pos_embed"
    assert torch.equal(table.values, timm.pos_embed[0, 3:].unflatten(0, (4, 4)))
    theirs = transformers_model()
    table = found(theirs, images)
    assert table.name == "model.vit.embeddings.position_embeddings"
    assert torch.equal(table.values.flatten(0, 1), theirs.model.vit.embeddings.position_embeddings[0, 1:])
    theirs = torchvision_model()
    assert torch.equal(found(theirs, images).values.flatten(0, 1), theirs.encoder.pos_embedding[0, 1:])


def test_rows_beside_columns_become_one_table_for_patches() -> None:
    model = ours(replace(CONFIG, positions="learned-2d"))
    table = found(model, image_for(CONFIG))
    assert table.name == "pos_embed_rows, pos_embed_columns"
    for row in range(2):
        for column in range(3):
            expected = torch.cat([model.pos_embed_rows[0, row], model.pos_embed_columns[0, column]])
            assert torch.equal(table.values[row, column], expected)


def test_tables_of_layers_lie_side_by_side() -> None:
    model = ours(replace(CONFIG, positions_at="layers"))
    table = found(model, image_for(CONFIG))
    for layer in range(2):
        expected = model.layer_positions[layer].pos_embed[0, 1:].unflatten(0, (2, 3))
        assert torch.equal(table.values[..., 16 * layer : 16 * layer + 16], expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"positions": "learned"},
        {"positions": "learned-2d"},
        {"positions": "learned-2d", "positions_at": "layers"},
        {"positions": "sincos-2d"},
    ],
)
def test_zeroed_positions_are_none(changes: dict[str, Any]) -> None:
    config = replace(CONFIG, class_token=False, pooling="mean", **changes)
    model, images = ours(config), image_for(config)
    bare = VisionTransformer(replace(config, positions="none", positions_at="stem")).eval()
    bare.load_state_dict({name: value for name, value in model.state_dict().items() if "pos" not in name})
    table = found(model, images)
    with torch.inference_mode(), changed_positions(table, zeroed(table)):
        torch.testing.assert_close(model(images), bare(images), atol=1e-6, rtol=1e-6)


def test_without_positions_and_with_mean_pooling_no_permutation_of_patches_changes_the_logits() -> None:
    config = replace(SQUARE, class_token=False, pooling="mean", positions="none")
    learned = replace(config, positions="learned")
    bare, model, images = ours(config), ours(learned), noise(2, 3, 16, 16)
    table = found(model, images)
    for seed in range(5):
        moved = shuffle_grid(images, tile_orders(seed, torch.arange(2), 4), 4)
        with torch.inference_mode():
            torch.testing.assert_close(bare(moved), bare(images), atol=1e-6, rtol=1e-6)
            assert (model(moved) - model(images)).abs().max() > 1e-3
            with changed_positions(table, zeroed(table)):
                torch.testing.assert_close(model(moved), model(images), atol=1e-6, rtol=1e-6)


def test_models_without_a_table_have_none() -> None:
    from timm.models.eva import Eva
    from torchvision.models import resnet18

    for positions in ("none", "rope", "relative", "relative-bias"):
        assert find_position_table(ours(replace(CONFIG, positions=positions)), image_for(CONFIG)) is None
    assert find_position_table(ours(CNN), noise(1, 3, 16, 16)) is None
    torch.manual_seed(0)
    assert find_position_table(resnet18(num_classes=5).eval(), noise(1, 3, 32, 32)) is None
    assert find_position_table(convolutions().float(), noise(1, 3, 9, 9)) is None
    rotary = Eva(
        img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=5, use_abs_pos_emb=False,
        use_rot_pos_emb=True,
    ).eval()  # fmt: skip
    assert find_position_table(rotary, noise(1, 3, 16, 16)) is None


def test_a_model_inside_another_and_a_compiled_one_are_found_too() -> None:
    inner, images = ours(replace(CONFIG, positions="learned-2d")), image_for(CONFIG)
    table = found(nn.Sequential(inner), images)
    with torch.inference_mode(), changed_positions(table, zeroed(table)):
        zero = inner(images)
    assert (zero - inner(images)).abs().max() > 1e-3
    model, pictures = timm_model(), noise(1, 3, 16, 16)
    compiled = torch.compile(model, backend="eager")
    table = found(compiled, pictures)
    with torch.no_grad(), changed_positions(table, zeroed(table)):
        assert not model.pos_embed[0, 1:].any()
        assert model.pos_embed[0, :1].any()


def test_fixed_positions_that_models_share_stay_as_they_are() -> None:
    config = replace(CONFIG, positions="sincos-2d", class_token=False, pooling="mean")
    shared = sincos_positions(2, 3, 16)
    before = shared.clone()
    table = found(ours(config), image_for(config))
    with changed_positions(table, zeroed(table)):
        assert torch.equal(shared, before)


def test_weights_of_another_precision_come_back_bit_for_bit() -> None:
    model, images = timm_model().bfloat16(), noise(1, 3, 16, 16)
    before = model.pos_embed.clone()
    table = found(model, images)
    with changed_positions(table, torch.full(table.values.shape, 1 / 3)):
        assert torch.equal(model.pos_embed[0, 1:], torch.full((16, 16), 1 / 3, dtype=torch.bfloat16))
    assert torch.equal(model.pos_embed, before)


def test_weights_made_in_inference_mode_can_be_changed_too() -> None:
    with torch.inference_mode():
        model = timm_model()
        inside = found(model, noise(1, 3, 16, 16))
    table = found(model, noise(1, 3, 16, 16))
    for one in (inside, table):
        with changed_positions(one, zeroed(one)):
            assert not model.pos_embed[0, 1:].any()
        assert model.pos_embed[0, 1:].any()


def test_gradients_can_be_taken_afterwards() -> None:
    model, images = timm_model(), noise(1, 3, 16, 16)
    with torch.inference_mode():
        table = found(model, images)
        with changed_positions(table, zeroed(table)):
            model(images)
    model(images).sum().backward()
    assert model.pos_embed.grad is not None


def test_the_same_table_comes_over_bit_for_bit() -> None:
    images = image_for(CONFIG)
    model, donor = ours(CONFIG), ours(CONFIG)
    with torch.no_grad():
        donor.pos_embed.mul_(-2)
    table, other = found(model, images), found(donor, images)
    assert torch.equal(transplanted(table, other), other.values)
    with torch.no_grad():
        with changed_positions(table, transplanted(table, other)):
            result = model(images)
        model.pos_embed[:, 1:] *= -2  # the class token keeps its own
        assert torch.equal(result, model(images))


def test_a_table_for_another_grid_is_moved_bilinearly_as_scipy_does() -> None:
    table = found(ours(CONFIG), image_for(CONFIG))  # 2 x 3
    other = found(ours(SQUARE), noise(1, 3, 16, 16))  # 4 x 4
    moved = transplanted(table, other)
    rows, columns = ((torch.arange(new) + 0.5) * 4 / new - 0.5 for new in (2, 3))  # edges kept
    places = np.stack(np.meshgrid(rows, columns, indexing="ij"))
    expected = [
        scipy.ndimage.map_coordinates(other.values[..., channel].double().numpy(), places, order=1, mode="nearest")
        for channel in range(16)
    ]
    np.testing.assert_allclose(moved.numpy(), np.stack(expected, axis=-1), atol=1e-6)


def test_tables_of_another_width_or_shape_are_refused() -> None:
    table = found(ours(CONFIG), image_for(CONFIG))
    other = found(ours(replace(CONFIG, width=32)), image_for(CONFIG))
    with pytest.raises(ConfigError, match="pos_embed has 32 numbers a patch, pos_embed 16"):
        transplanted(table, other)
    with pytest.raises(ShapeError, match=r"values are \(6, 16\); pos_embed has \(2, 3, 16\)"):
        changed_positions(table, table.values.flatten(0, 1)).__enter__()


class ColumnByColumn(nn.Module):
    """A ViT of one attention, its position table stored column by column."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 4, 4)
        self.positions = nn.Parameter(noise(4, 4, 8).transpose(0, 1))  # (rows, columns, width)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.embed(images).flatten(2).transpose(1, 2) + self.positions.flatten(0, 1)
        return F.scaled_dot_product_attention(patches[:, None], patches[:, None], patches[:, None])[:, 0].mean(1)


def test_a_table_that_cannot_be_changed_where_it_lies_is_refused() -> None:
    with pytest.raises(CaptureError, match="positions: these position embeddings"):
        find_position_table(ColumnByColumn().eval(), noise(1, 3, 16, 16))


def test_an_image_that_the_model_refuses_is_said() -> None:
    with pytest.raises(ShapeError, match="refused a batch"):
        find_position_table(timm_model(), noise(1, 3, 20, 20))
