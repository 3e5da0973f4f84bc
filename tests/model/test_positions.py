from __future__ import annotations

import math
from itertools import product
from typing import Any, get_args

import numpy as np
import pytest
import scipy.ndimage
import torch
import transformers
from timm.layers import gen_relative_position_index, resample_abs_pos_embed
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.models.vision_transformer import interpolate_embeddings
from transformers.models.beit.modeling_beit import BeitEmbeddings, BeitRelativePositionBias
from transformers.models.clip.modeling_clip import CLIPVisionEmbeddings
from transformers.models.deit.modeling_deit import DeiTEmbeddings
from transformers.models.dinov2.modeling_dinov2 import Dinov2Embeddings
from transformers.models.dinov2_with_registers.modeling_dinov2_with_registers import Dinov2WithRegistersEmbeddings
from transformers.models.dinov3_vit.modeling_dinov3_vit import DINOv3ViTRopePositionEmbedding, apply_rotary_pos_emb
from transformers.models.siglip.modeling_siglip import SiglipVisionEmbeddings
from transformers.models.siglip2.modeling_siglip2 import Siglip2VisionEmbeddings
from transformers.models.vit.modeling_vit import ViTEmbeddings
from transformers.models.vit_msn.modeling_vit_msn import ViTMSNEmbeddings
from vit_pytorch.simple_vit import posemb_sincos_2d

from vitreous.errors import ConfigError, ShapeError
from vitreous.model.config import Resampling
from vitreous.model.positions import (
    RULES,
    patch_offsets,
    resample_offsets,
    resample_positions,
    rotate,
    rotation,
    sequence_offsets,
    sincos_positions,
)

NAMES = get_args(Resampling)
NEW_GRIDS = [(7, 7), (4, 6), (3, 2), (2, 18), (12, 3), (9, 4), (1, 1)]


def a_table(tokens: int, width: int = 8) -> Tensor:
    return torch.randn(1, tokens, width, generator=torch.Generator().manual_seed(0))


def slow_weights(old: int, new: int, rule: Resampling) -> np.ndarray:
    """(new, old): share of every old place in every new one, along one axis, as a sum over a kernel."""
    linear = rule in ("timm-npz", "google", "flexivit", "siglip2")
    wide = rule in ("timm", "open_clip", "flexivit", "siglip2", "transformers-registers", "dinov2-registers")
    sharpness = -0.5 if wide else -0.75
    longer = 0.1 if rule in ("dino", "dinov2") else 0.0

    def kernel(distance: float) -> float:
        x = abs(distance)
        if linear:
            return max(1 - x, 0.0)
        if x < 1:
            return (sharpness + 2) * x**3 - (sharpness + 3) * x**2 + 1
        return sharpness * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    weights = np.zeros((new, old))
    for place in range(new):
        step = old / (new + longer)
        centre = (place + 0.5) * step - 0.5
        if rule in ("google", "torchvision"):
            centre = place * (old - 1) / max(new - 1, 1)
        stretch = max(step, 1.0) if wide else 1.0
        reach = range(math.floor(centre - 2 * stretch) - 1, math.ceil(centre + 2 * stretch) + 2)
        for other in reach:
            if not wide:  # the border's value goes on
                weights[place, min(max(other, 0), old - 1)] += kernel(other - centre)
            elif 0 <= other < old:  # what lies outside does not count
                weights[place, other] += kernel((other - centre) / stretch)
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("rule", NAMES)
def test_an_equal_grid_gives_the_same_tensor(rule: Resampling) -> None:
    table = a_table(1 + 12)
    assert resample_positions(table, (3, 4), (3, 4), 1, rule) is table


@pytest.mark.parametrize("rule", NAMES)
@pytest.mark.parametrize("old_grid", [(6, 6), (4, 9)])
def test_every_rule_equals_a_slow_sum(rule: Resampling, old_grid: tuple[int, int]) -> None:
    table = a_table(2 + 36)
    for new_grid in NEW_GRIDS:
        found = resample_positions(table, old_grid, new_grid, 2, rule)[0, 2:].unflatten(0, new_grid)
        grid = table[0, 2:].double().unflatten(0, old_grid).numpy()
        down, across = (slow_weights(*sizes, rule) for sizes in zip(old_grid, new_grid, strict=True))
        np.testing.assert_allclose(found.numpy(), np.einsum("Rr,Cc,rcw->RCw", down, across, grid), atol=1e-5)


def test_every_name_that_a_config_knows_has_a_rule() -> None:
    assert set(RULES) == set(NAMES)


@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize("new_grid", NEW_GRIDS)
def test_it_equals_timms(prefix: int, new_grid: tuple[int, int]) -> None:
    table = a_table(prefix + 36)
    theirs = resample_abs_pos_embed(table, list(new_grid), [6, 6], num_prefix_tokens=prefix)
    assert torch.equal(resample_positions(table, (6, 6), new_grid, prefix), theirs)
    theirs = resample_abs_pos_embed(
        table, list(new_grid), [6, 6], num_prefix_tokens=prefix, interpolation="bilinear", antialias=False
    )
    assert torch.equal(resample_positions(table, (6, 6), new_grid, prefix, "timm-npz"), theirs)


SMALL = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "image_size": 24, "patch_size": 4}
THEIRS = [
    (ViTEmbeddings, transformers.ViTConfig, "transformers", 1),
    (Dinov2Embeddings, transformers.Dinov2Config, "transformers", 1),
    (DeiTEmbeddings, transformers.DeiTConfig, "deit", 2),
    (ViTMSNEmbeddings, transformers.ViTMSNConfig, "msn", 1),
    (BeitEmbeddings, transformers.BeitConfig, "beit", 1),
    (CLIPVisionEmbeddings, transformers.CLIPVisionConfig, "transformers", 1),
    (SiglipVisionEmbeddings, transformers.SiglipVisionConfig, "transformers", 0),
    (Dinov2WithRegistersEmbeddings, transformers.Dinov2WithRegistersConfig, "transformers-registers", 1),
]


@pytest.mark.parametrize(("embeddings", "config", "rule", "prefix"), THEIRS)
def test_it_equals_transformers(embeddings: Any, config: Any, rule: Resampling, prefix: int) -> None:
    extra = {"use_absolute_position_embeddings": True} if config is transformers.BeitConfig else {}
    module, table = embeddings(config(**SMALL, **extra)), a_table(prefix + 36)
    if hasattr(module, "position_embeddings"):
        module.position_embeddings.data = table
    else:
        module.position_embedding.weight.data = table[0]
    for rows, columns in NEW_GRIDS:
        tokens = torch.zeros(1, prefix + rows * columns, 8)
        theirs = module.interpolate_pos_encoding(tokens, 4 * rows, 4 * columns)
        torch.testing.assert_close(resample_positions(table, (6, 6), (rows, columns), prefix, rule), theirs)


def test_it_equals_siglip2s() -> None:
    table = a_table(36)
    for new_grid in NEW_GRIDS:
        theirs = Siglip2VisionEmbeddings.resize_positional_embeddings(
            table[0].unflatten(0, (6, 6)), torch.tensor([new_grid]), max_length=math.prod(new_grid)
        )
        torch.testing.assert_close(resample_positions(table, (6, 6), new_grid, 0, "siglip2"), theirs)


@pytest.mark.parametrize("side", [1, 2, 5, 9])
def test_it_equals_torchvisions(side: int) -> None:
    table = a_table(1 + 36)
    theirs = interpolate_embeddings(4 * side, 4, {"encoder.pos_embedding": table})["encoder.pos_embedding"]
    torch.testing.assert_close(resample_positions(table, (6, 6), (side, side), 1, "torchvision"), theirs)


@pytest.mark.parametrize("old_grid", [(6, 6), (4, 9), (1, 36)])
def test_googles_rule_is_scipys_linear_zoom(old_grid: tuple[int, int]) -> None:
    table = a_table(1 + 36)
    for new_grid in NEW_GRIDS:
        zoom = [new / old for new, old in zip(new_grid, old_grid, strict=True)]
        theirs = scipy.ndimage.zoom(table[0, 1:].unflatten(0, old_grid).numpy(), (*zoom, 1), order=1)
        ours = resample_positions(table, old_grid, new_grid, 1, "google")[0, 1:].unflatten(0, new_grid)
        np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)


def test_scipys_zeros_at_the_last_row_are_not_taken_over() -> None:
    table = a_table(24 * 24)
    grid = table[0].unflatten(0, (24, 24)).numpy()
    assert not scipy.ndimage.zoom(grid, (22 / 24, 22 / 24, 1), order=1)[-1].any()
    theirs = scipy.ndimage.zoom(grid, (22 / 24, 22 / 24, 1), order=1, mode="nearest")
    ours = resample_positions(table, (24, 24), (22, 22), 0, "google")[0].unflatten(0, (22, 22))
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)


@pytest.mark.parametrize("rule", NAMES)
def test_a_grid_of_as_many_patches_but_another_form_is_resampled(rule: Resampling) -> None:
    table = a_table(36)
    assert not torch.equal(resample_positions(table, (6, 6), (4, 9), 0, rule), table)


@pytest.mark.parametrize("rule", NAMES)
def test_prefix_tokens_keep_their_positions(rule: Resampling) -> None:
    table = a_table(3 + 16)
    assert torch.equal(resample_positions(table, (4, 4), (9, 5), 3, rule)[:, :3], table[:, :3])


@pytest.mark.parametrize("rule", NAMES)
def test_a_constant_table_stays_constant(rule: Resampling) -> None:
    table = torch.full((1, 16, 2), 0.5)
    torch.testing.assert_close(resample_positions(table, (4, 4), (7, 3), 0, rule), torch.full((1, 21, 2), 0.5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_resampled_in_single_and_comes_back_as_it_was(dtype: torch.dtype) -> None:
    table = a_table(16).to(dtype)
    expected = resample_positions(table.float(), (4, 4), (6, 6), 0).to(dtype)
    torch.testing.assert_close(resample_positions(table, (4, 4), (6, 6), 0), expected, rtol=0, atol=0)


@pytest.mark.parametrize("rule", NAMES)
def test_resampled_positions_can_be_trained(rule: Resampling) -> None:
    table = a_table(1 + 16).requires_grad_()
    resample_positions(table, (4, 4), (5, 6), 1, rule).sum().backward()
    assert table.grad is not None
    torch.testing.assert_close(table.grad.sum(), torch.tensor(8.0 * (1 + 30)))  # each new place sums to 1


def test_a_table_of_another_length_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"it is \(1, 17, width\)"):
        resample_positions(a_table(16), (4, 4), (5, 5), prefix=1)


def test_a_rule_that_nobody_has_is_refused() -> None:
    with pytest.raises(ConfigError, match="rule is 'nearest'; choose one of timm, timm-npz"):
        resample_positions(a_table(16), (4, 4), (5, 5), 0, "nearest")  # type: ignore[arg-type]


@pytest.mark.parametrize(("rows", "columns", "width"), [(3, 5, 8), (14, 14, 64), (7, 2, 12)])
def test_fixed_positions_equal_a_slow_loop(rows: int, columns: int, width: int) -> None:
    found = sincos_positions(rows, columns, width)
    quarter = width // 4
    for row, column, i in product(range(rows), range(columns), range(quarter)):
        frequency = 1 / 10_000 ** (i / (quarter - 1))
        x, y = column * frequency, row * frequency
        expected = torch.tensor([math.sin(x), math.cos(x), math.sin(y), math.cos(y)])
        torch.testing.assert_close(found[row * columns + column, i::quarter], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("rows", "columns", "width"), [(3, 5, 8), (14, 14, 192), (24, 7, 64)])
def test_fixed_positions_equal_vit_pytorchs(rows: int, columns: int, width: int) -> None:
    torch.testing.assert_close(
        sincos_positions(rows, columns, width), posemb_sincos_2d(rows, columns, width), rtol=0, atol=3e-6
    )


@pytest.mark.parametrize("width", [4, 10])
def test_a_width_without_quarters_is_refused(width: int) -> None:
    with pytest.raises(ConfigError, match="a multiple of 4, at least 8"):
        sincos_positions(2, 2, width)


def slow_rotate(token: np.ndarray, row: float, column: float, base: float) -> np.ndarray:
    """Pairs of numbers as complex ones, turned by e to the i angle; row and column from -1 to 1."""
    half = len(token) // 2
    pairs = token[:half] + 1j * token[half:]
    for index in range(half):
        place, step = (row, index) if index < half // 2 else (column, index - half // 2)
        pairs[index] *= np.exp(2j * np.pi * place / base ** (2 * step / half))
    return np.concatenate([pairs.real, pairs.imag])


@pytest.mark.parametrize(("rows", "columns", "head_dim", "base"), [(3, 5, 8, 100.0), (4, 2, 16, 10_000.0)])
@pytest.mark.parametrize("prefix", [0, 3])
def test_turned_queries_equal_a_slow_loop(rows: int, columns: int, head_dim: int, base: float, prefix: int) -> None:
    queries = torch.randn(2, 3, prefix + rows * columns, head_dim, generator=torch.Generator().manual_seed(0))
    found = rotate(queries, rotation(rows, columns, head_dim, base), prefix)
    assert torch.equal(found[:, :, :prefix], queries[:, :, :prefix])
    for row, column in product(range(rows), range(columns)):
        token = prefix + row * columns + column
        centre = (2 * row + 1) / rows - 1, (2 * column + 1) / columns - 1
        expected = slow_rotate(queries[1, 2, token].double().numpy(), *centre, base)
        np.testing.assert_allclose(found[1, 2, token].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(("rows", "columns"), [(14, 14), (3, 16)])
def test_turned_queries_equal_those_of_dinov3_in_transformers(rows: int, columns: int) -> None:
    config = transformers.DINOv3ViTConfig(hidden_size=128, num_attention_heads=2, patch_size=4)
    cosine, sine = DINOv3ViTRopePositionEmbedding(config).eval()(torch.zeros(1, 3, 4 * rows, 4 * columns))
    queries, keys = torch.randn(2, 1, 2, 5 + rows * columns, 64, generator=torch.Generator().manual_seed(0))
    turns = rotation(rows, columns, 64, 100.0)
    torch.testing.assert_close(turns, torch.stack([sine, cosine]), rtol=0, atol=2e-6)
    theirs = apply_rotary_pos_emb(queries, keys, cosine, sine)
    torch.testing.assert_close((rotate(queries, turns, 5), rotate(keys, turns, 5)), theirs, rtol=0, atol=1e-5)


def test_a_score_depends_on_the_way_from_query_to_key_alone() -> None:
    turns = rotation(4, 6, 8, 100.0)
    query, key = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))
    queries, keys = (rotate(token.expand(1, 1, 24, 8), turns, 0)[0, 0] for token in (query, key))
    scores = (queries @ keys.T).view(4, 6, 4, 6)
    torch.testing.assert_close(scores[0, 1, 2, 4], scores[1, 2, 3, 5])
    assert not torch.isclose(scores[0, 1, 2, 4], scores[2, 1, 0, 4], atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_turned_in_single_and_comes_back_as_it_was(dtype: torch.dtype) -> None:
    queries = torch.randn(1, 2, 1 + 6, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    turns = rotation(2, 3, 8, 100.0)
    expected = rotate(queries.float(), turns, 1).to(dtype)
    torch.testing.assert_close(rotate(queries, turns, 1), expected, rtol=0, atol=0)


def test_turns_of_another_grid_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"they are \(batch, heads, 7, 8\)"):
        rotate(torch.zeros(1, 2, 6, 8), rotation(2, 3, 8, 100.0), 1)


def test_a_head_without_quarters_is_refused() -> None:
    with pytest.raises(ConfigError, match="a multiple of 4"):
        rotation(2, 2, 6, 100.0)


def test_offsets_along_the_sequence_count_from_the_farthest_key_ahead() -> None:
    offsets = sequence_offsets(5)
    assert offsets.dtype == torch.int64
    for query, key in product(range(5), range(5)):
        assert offsets[query, key] == query - key + 4


@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (2, 5), (4, 1)])
@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_offsets_of_patches_equal_a_slow_loop(rows: int, columns: int, prefix: int) -> None:
    offsets, tokens = patch_offsets(rows, columns, prefix), prefix + rows * columns
    ways = list(product(range(1 - rows, rows), range(1 - columns, columns)))
    last = len(ways)
    assert offsets.dtype == torch.int64
    for query, key in product(range(tokens), range(tokens)):
        if query < prefix or key < prefix:
            expected = last + 2 if query < prefix and key < prefix else last + (key < prefix)
        else:
            (down, across), (row, column) = divmod(query - prefix, columns), divmod(key - prefix, columns)
            expected = ways.index((down - row, across - column))
        assert offsets[query, key] == expected


@pytest.mark.parametrize("has_class_token", [True, False])
@pytest.mark.parametrize("grid", [(14, 14), (3, 7)])
def test_offsets_of_patches_equal_timms(grid: tuple[int, int], has_class_token: bool) -> None:
    theirs = gen_relative_position_index(grid, class_token=has_class_token)
    assert torch.equal(patch_offsets(*grid, int(has_class_token)), theirs)


@pytest.mark.parametrize("new_grid", [(4, 4), (6, 6), (3, 5), (2, 2)])
def test_scores_of_offsets_equal_those_of_beit_in_transformers(new_grid: tuple[int, int]) -> None:
    module = BeitRelativePositionBias(transformers.BeitConfig(image_size=16, patch_size=4, num_attention_heads=2))
    module.relative_position_bias_table.data = table = a_table(7 * 7 + 3, width=2)[0]
    ours = resample_offsets(table, (4, 4), new_grid, 1)[patch_offsets(*new_grid, 1)]  # (queries, keys, heads)
    torch.testing.assert_close(ours.permute(2, 0, 1)[None], module(new_grid), rtol=0, atol=1e-6)


@pytest.mark.parametrize("prefix", [0, 2])
def test_a_table_of_offsets_of_another_form_equals_a_slow_sum(prefix: int) -> None:
    table = a_table(3 * 9 + 3 * (prefix > 0), width=2)[0]
    found = resample_offsets(table, (2, 5), (4, 3), prefix)
    down, across = slow_weights(3, 7, "timm-npz"), slow_weights(9, 5, "timm-npz")
    expected = np.einsum("Rr,Cc,rch->RCh", down, across, table[:27].double().unflatten(0, (3, 9)).numpy())
    np.testing.assert_allclose(found[:35].unflatten(0, (7, 5)).numpy(), expected, atol=1e-6)
    assert torch.equal(found[35:], table[27:])


def test_a_table_of_offsets_for_an_equal_grid_is_the_same_tensor() -> None:
    table = a_table(3 * 9 + 3, width=2)[0].half()
    assert resample_offsets(table, (2, 5), (2, 5), 1) is table
    assert resample_offsets(table, (2, 5), (3, 3), 1).dtype == torch.float16


def test_a_table_of_offsets_of_another_length_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"it is \(30, heads\)"):
        resample_offsets(torch.zeros(27, 2), (2, 5), (3, 3), 1)


MADE = [
    (sincos_positions, (3, 4, 8)),
    (rotation, (3, 4, 8, 50.0)),
    (sequence_offsets, (7,)),
    (patch_offsets, (3, 4, 1)),
]


@pytest.mark.parametrize(("make", "arguments"), MADE)
def test_what_is_computed_is_kept_for_the_next_layer_and_real(make: Any, arguments: tuple[float, ...]) -> None:
    with FakeTensorMode():  # an exporter's: tensors without numbers
        make(*arguments)
    with torch.inference_mode(), torch.device("meta"):
        first = make(*arguments)
    assert type(first) is Tensor
    assert first.device.type == "cpu"
    assert not first.is_inference()  # or it could not be trained with
    assert make(*arguments) is first


@pytest.mark.parametrize(("make", "arguments"), MADE)
def test_what_is_computed_can_be_compiled(make: Any, arguments: tuple[float, ...]) -> None:
    compiled = torch.compile(lambda: make(*arguments) + 1, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(), make(*arguments) + 1)
