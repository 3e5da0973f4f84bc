from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from vitreous.capture.watch import watch_attention
from vitreous.errors import ConfigError
from vitreous.model.added_positions import added_positions
from vitreous.model.config import ViTConfig
from vitreous.model.positions import resample_positions
from vitreous.model.vit import VisionTransformer

TINY = ViTConfig(image_size=(16, 16), patch_size=(4, 4), width=24, depth=3, heads=3, classes=7)
PLACES = ["layers", "layers-shared"]
TABLES = ["learned", "learned-2d"]


def a_model(config: ViTConfig = TINY) -> VisionTransformer:
    """Every weight random and not small, so that no part of the model is without effect."""
    model = VisionTransformer(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2, generator=generator)
    return model


def without_positions(model: VisionTransformer) -> VisionTransformer:
    bare = VisionTransformer(replace(model.config, positions="none", positions_at="stem")).eval()
    bare.load_state_dict({name: value for name, value in model.state_dict().items() if "pos_embed" not in name})
    return bare


def some_images(height: int = 16, width: int = 16) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_positions_by_row_and_column_are_one_behind_the_other_and_the_class_token_has_none() -> None:
    model = a_model(replace(TINY, image_size=(8, 12), positions="learned-2d"))
    added = model.tokens(some_images(8, 12)) - without_positions(model).tokens(some_images(8, 12))
    assert not added[:, 0].any()
    for row in range(2):
        for column in range(3):
            expected = torch.cat([model.pos_embed_rows[0, row], model.pos_embed_columns[0, column]])
            torch.testing.assert_close(added[1, 1 + 3 * row + column], expected, atol=1e-5, rtol=0)
    square = model.tokens(some_images(16, 16))  # another grid: both tables are resampled, each along its own axis
    assert square.shape == (2, 17, 24)


@torch.no_grad()
def test_fixed_positions_are_made_anew_for_another_grid_and_do_not_learn() -> None:
    model = VisionTransformer(replace(TINY, positions="sincos-2d"))
    assert "pos_embed" in model.state_dict() and "pos_embed" not in dict(model.named_parameters())
    assert model.pos_embed is not None and not model.pos_embed[:, 0].any()
    larger = VisionTransformer(replace(TINY, positions="sincos-2d", image_size=(24, 20)))
    larger.load_state_dict(model.state_dict() | {"pos_embed": larger.pos_embed})
    assert torch.equal(model(some_images(24, 20)), larger(some_images(24, 20)))


@pytest.mark.parametrize("positions", TABLES)
@pytest.mark.parametrize("place", PLACES)
@torch.no_grad()
def test_every_layer_starts_with_its_positions_added_as_in_a_slow_loop(place: Any, positions: Any) -> None:
    model = a_model(replace(TINY, image_size=(8, 12), positions=positions, positions_at=place))
    images, weights = some_images(8, 12), model.state_dict()
    sequence = without_positions(model).tokens(images)
    assert torch.equal(model.tokens(images), sequence)  # the stem adds none
    for layer in range(3):
        table = f"layer_positions.{layer if place == 'layers' else 0}.pos_embed"
        moved = sequence.clone()
        for token in range(7):
            if positions == "learned":
                moved[:, token] += weights[table][0, token]
            elif token > 0:
                row, column = divmod(token - 1, 3)
                moved[:, token, :12] += weights[f"{table}_rows"][0, row]
                moved[:, token, 12:] += weights[f"{table}_columns"][0, column]
        sequence = model.blocks[layer](moved)
    torch.testing.assert_close(model.forward_features(images), model.norm(sequence), atol=1e-5, rtol=0)


@pytest.mark.parametrize("positions", TABLES)
@torch.no_grad()
def test_with_one_block_the_start_of_every_layer_is_the_stem(positions: Any) -> None:
    at_stem = a_model(replace(TINY, depth=1, positions=positions))
    moved = {name: f"layer_positions.0.{name}" for name in at_stem.state_dict() if name.startswith("pos_embed")}
    for place in PLACES:
        model = VisionTransformer(replace(at_stem.config, positions_at=place)).eval()  # type: ignore[arg-type]
        model.load_state_dict({moved.get(name, name): value for name, value in at_stem.state_dict().items()})
        assert torch.equal(model(some_images()), at_stem(some_images()))


@pytest.mark.parametrize(
    ("positions", "place", "more"),
    [
        ("learned", "stem", (14 * 14 + 1) * 768),
        ("learned", "layers", 12 * (14 * 14 + 1) * 768),
        ("learned", "layers-shared", (14 * 14 + 1) * 768),
        ("learned-2d", "stem", 14 * 768),
        ("learned-2d", "layers", 12 * 14 * 768),
        ("learned-2d", "layers-shared", 14 * 768),
        ("relative", "stem", 12 * (2 * 197 - 1) * 768),
    ],
)
def test_the_rows_of_table_8_have_so_many_parameters_more_than_a_bag_of_patches(
    positions: Any, place: Any, more: int
) -> None:
    config = ViTConfig(positions=positions, positions_at=place)
    assert config.parameters == 86_416_360 + more  # ViT-B/16 without positions
    with torch.device("meta"):
        found = sum(parameter.numel() for parameter in VisionTransformer(config).parameters())
    assert found == config.parameters


@pytest.mark.parametrize("place", PLACES)
@torch.no_grad()
def test_another_grid_moves_the_tables_of_every_layer(place: Any) -> None:
    model = a_model(replace(TINY, positions_at=place))
    larger = VisionTransformer(replace(model.config, image_size=(24, 20))).eval()
    weights = {
        name: resample_positions(value, (4, 4), (6, 5), 1) if "pos_embed" in name else value
        for name, value in model.state_dict().items()
    }
    larger.load_state_dict(weights)
    assert torch.equal(model(some_images(24, 20)), larger(some_images(24, 20)))


@torch.no_grad()
def test_a_norm_before_the_blocks_comes_before_the_positions_of_the_first() -> None:
    model = a_model(replace(TINY, depth=1, norm_before_blocks=True, positions_at="layers"))
    start = model.norm_pre(model.tokens(some_images())) + model.layer_positions[0].pos_embed
    torch.testing.assert_close(model.forward_features(some_images()), model.norm(model.blocks[0](start)))


@torch.no_grad()
def test_the_first_layers_table_is_found_when_attention_is_watched() -> None:
    model = a_model(replace(TINY, positions_at="layers"))
    with watch_attention(model) as watched:
        model(some_images())
    found = watched.positions()
    assert found is not None and found.name == "layer_positions.0.pos_embed"
    assert torch.equal(found.table, model.layer_positions[0].pos_embed[0, 1:].unflatten(0, (4, 4)))


def test_every_layers_table_is_drawn_as_the_stems_is() -> None:
    model = VisionTransformer(replace(TINY, positions_at="layers"), generator=torch.Generator().manual_seed(0))
    tables = [layer.pos_embed for layer in model.layer_positions]
    assert len(tables) == 3 and not torch.equal(tables[0], tables[1])
    for table in tables:
        assert table.std().item() == pytest.approx(0.02, rel=0.1)


def test_no_tables_add_nothing() -> None:
    model = VisionTransformer(replace(TINY, positions="rope", width=48))
    assert added_positions(model.config, model.layout(), {}) is None


@pytest.mark.parametrize("positions", ["none", "sincos-2d", "rope", "relative", "relative-bias"])
def test_only_learned_tables_stand_before_layers(positions: Any) -> None:
    with pytest.raises(ConfigError, match=f"positions_at is 'layers', but positions is '{positions}'"):
        replace(TINY, positions=positions, positions_at="layers", width=48)
    with pytest.raises(ConfigError, match="positions_at is 'everywhere'; choose one of stem, layers, layers-shared"):
        replace(TINY, positions_at="everywhere")
