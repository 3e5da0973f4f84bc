from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import timm
import torch
from timm.layers import SwiGLUPacked
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import Tensor, nn

from vitreous.capture.watch import watch_attention
from vitreous.errors import ShapeError
from vitreous.model.config import ViTConfig
from vitreous.model.vit import DropPath, VisionTransformer

TINY = ViTConfig(image_size=(16, 16), patch_size=(4, 4), width=24, depth=3, heads=3, classes=7)


def a_model(config: ViTConfig = TINY, seed: int = 0) -> VisionTransformer:
    """Every weight random and not small, so that no part of the model is without effect."""
    model = VisionTransformer(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2, generator=generator)
    return model


def some_images(height: int = 16, width: int = 16, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def timms(config: ViTConfig, **more: Any) -> nn.Module:
    return TimmVisionTransformer(
        img_size=config.image_size,
        patch_size=config.patch_size,
        num_classes=config.classes,
        embed_dim=config.width,
        depth=config.depth,
        num_heads=config.heads,
        mlp_ratio=config.mlp_ratio,
        class_token=config.class_token,
        reg_tokens=config.registers,
        global_pool={"class": "token", "mean": "avg", "map": "map"}[config.pooling],
        fc_norm=config.has_norm_after_pooling,
        qkv_bias=config.qkv_bias,
        init_values=config.layer_scale,
        pos_embed={"learned": "learn", "none": "none"}[config.positions],
        pre_norm=config.norm_before_blocks,
        qk_norm=config.qk_norm,
        **{"act_layer": config.activation.replace("-", "_")} | more,
    ).eval()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"registers": 4},
        {"pooling": "mean"},
        {"pooling": "mean", "class_token": False},
        {"pooling": "mean", "class_token": False, "registers": 2, "norm_after_pooling": False},
        {"norm_after_pooling": True},
        {"layer_scale": 0.1},
        {"image_size": (12, 20)},
        {"image_size": (24, 16), "patch_size": (8, 4)},
        {"qkv_bias": False},
        {"mlp_ratio": 2.0},
        {"positions": "none"},
        {"classes": 0},
        {"pooling": "map"},
        {"pooling": "map", "class_token": False, "classes": 0, "activation": "gelu-tanh"},
        {"qk_norm": True},
        {"norm_before_blocks": True, "patch_bias": False, "activation": "quick-gelu"},
        {"activation": "gelu-tanh"},
    ],
)
@torch.no_grad()
def test_logits_equal_timms_with_the_same_weights(changes: dict[str, Any]) -> None:
    ours = a_model(replace(TINY, **changes))
    theirs = timms(ours.config)
    theirs.load_state_dict(ours.state_dict())
    images = some_images(*ours.config.image_size)
    torch.testing.assert_close(ours(images), theirs(images), atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.forward_features(images), theirs.forward_features(images), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(16, 16), (24, 24), (20, 8), (8, 12)])
@pytest.mark.parametrize("registers", [0, 2])
@torch.no_grad()
def test_images_of_another_size_give_timms_logits(size: tuple[int, int], registers: int) -> None:
    ours = a_model(replace(TINY, registers=registers))
    theirs = timms(ours.config, dynamic_img_size=True)
    theirs.load_state_dict(ours.state_dict())
    images = some_images(*size)
    torch.testing.assert_close(ours(images), theirs(images), atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_gated_mlp_is_timms_with_the_gate_first() -> None:
    ours = a_model(replace(TINY, gated_mlp=True, mlp_ratio=2.0))
    both_halves = replace(ours.config, mlp_ratio=4.0)  # as timm counts
    theirs = timms(both_halves, mlp_layer=SwiGLUPacked, act_layer=nn.SiLU)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(some_images()), theirs(some_images()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("classes", [7, 0])
@torch.no_grad()
def test_a_distilled_model_is_timms_and_averages_its_two_heads(classes: int) -> None:
    ours = a_model(replace(TINY, distillation=True, classes=classes))
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3}
    theirs = VisionTransformerDistilled(num_classes=classes, **sizes).eval()
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(some_images()), theirs(some_images()), atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_hybrid_with_timms_constants_is_timms() -> None:
    config = ViTConfig(
        (64, 96), (32, 32), stem=(1, 1, 1, 1), stem_constants="timm", width=192, depth=2, heads=3, classes=5
    )
    stem = timm.models.resnetv2.ResNetV2(
        (1, 1, 1, 1), num_classes=0, global_pool="", in_chans=3, preact=False, stem_type="same",
        conv_layer=partial(timm.layers.StdConv2dSame, eps=1e-8),
    )  # fmt: skip
    sizes = {"img_size": (64, 96), "embed_dim": 192, "depth": 2, "num_heads": 3, "num_classes": 5}
    theirs = TimmVisionTransformer(
        embed_layer=partial(timm.layers.HybridEmbed, backbone=stem), patch_size=1, **sizes
    ).eval()
    ours = a_model(config)
    theirs.load_state_dict(ours.state_dict())
    images = some_images(64, 96)
    torch.testing.assert_close(ours(images), theirs(images), atol=1e-4, rtol=0)


@torch.no_grad()
def test_norms_around_the_patch_embedding_are_those_of_a_slow_loop() -> None:
    model = a_model(replace(TINY, image_size=(8, 12), patch_norms=True))
    images = some_images(8, 12)
    embed, config = model.patch_embed, model.config
    for row, column in [(0, 0), (1, 2)]:
        pixels = images[1, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].reshape(-1)
        normed = _slow_norm(pixels, embed.pixel_norm.weight, embed.pixel_norm.bias)
        token = embed.proj.weight.flatten(1) @ normed + embed.proj.bias
        expected = _slow_norm(token, embed.norm.weight, embed.norm.bias)
        torch.testing.assert_close(embed(images)[1, row * config.columns + column], expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_relative_keys_are_those_of_the_papers_appendix_in_a_slow_loop() -> None:
    model = a_model(replace(TINY, image_size=(4, 8), positions="relative", depth=1))
    attention, place = model.blocks[0].attn, model._place(model.layout(), torch.device("cpu"))
    sequence = torch.randn(1, 3, 24, generator=torch.Generator().manual_seed(2))
    queries, keys, values = attention.qkv(sequence)[0].chunk(3, dim=-1)  # each (tokens, width)
    mixed = torch.zeros(3, 24)
    for head in range(3):
        part = slice(8 * head, 8 * head + 8)
        for i in range(3):
            offsets = [attention.relative_keys[i - j + 2, part] for j in range(3)]  # one for each distance
            scores = [queries[i, part] @ (keys[j, part] + offsets[j]) / math.sqrt(8) for j in range(3)]
            share = torch.stack(scores).softmax(dim=0)
            mixed[i, part] = sum(share[j] * values[j, part] for j in range(3))
    torch.testing.assert_close(attention(sequence, place)[0], attention.proj(mixed), atol=1e-5, rtol=0)
    with pytest.raises(ShapeError, match="resize the image"):
        model(some_images(8, 8))


@torch.no_grad()
@pytest.mark.parametrize("positions", ["rope", "relative", "relative-bias"])
def test_a_block_that_needs_to_know_the_places_says_so_and_any_other_does_not(positions: Any) -> None:
    sequence = torch.randn(1, 17, 24, generator=torch.Generator().manual_seed(2))
    model = a_model()
    assert torch.equal(
        model.blocks[0](sequence), model.blocks[0](sequence, model._place(model.layout(), sequence.device))
    )
    with pytest.raises(ShapeError, match="call the model, not its block"):
        a_model(replace(TINY, positions=positions)).blocks[0](sequence)


@pytest.mark.parametrize(
    "changes",
    [
        {"pooling": "map"},
        {"pooling": "class+mean", "hidden_head": True},
        {"distillation": True},
        {"gated_mlp": True, "qk_norm": True},
        {"positions": "learned-2d", "norm_before_blocks": True},
        {"positions": "sincos-2d"},
        {"positions": "rope", "registers": 2},
        {"positions": "relative"},
        {"positions": "relative-bias"},
        {"positions": "relative-bias", "class_token": False, "pooling": "mean"},
        {"patch_norms": True, "attention_width": 48},
        {"positions_at": "layers"},
        {"positions_at": "layers-shared", "registers": 2},
        {"positions_at": "layers", "positions": "learned-2d", "norm_before_blocks": True},
        {"positions_at": "layers-shared", "positions": "learned-2d"},
        {"stem": (), "image_size": (32, 32), "patch_size": (8, 8)},
        {"stem": (1, 1), "stem_root": "small", "stem_width": 8, "image_size": (12, 8)},
        {"stem": (1, 2), "stem_width": 32, "image_size": (32, 32), "patch_size": (16, 8)},
    ],
)
def test_every_part_is_counted_learns_and_is_watched_without_a_changed_bit(changes: dict[str, Any]) -> None:
    model = a_model(replace(TINY, **changes))
    assert sum(parameter.numel() for parameter in model.parameters()) == model.config.parameters
    images = some_images(*model.config.image_size)
    with watch_attention(model) as watched:
        logits = model(images)
    assert len(watched.layers) == 3 and watched.layout == model.layout()
    assert torch.equal(logits, model(images))
    logits.square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@torch.no_grad()
def test_the_base_model_equals_timms_own_by_name() -> None:
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=5).eval()
    ours = VisionTransformer(ViTConfig(width=192, heads=3, classes=5)).eval()
    ours.load_state_dict(theirs.state_dict())
    images = some_images(224, 224, batch=1)
    torch.testing.assert_close(ours(images), theirs(images), atol=1e-5, rtol=0)


@torch.no_grad()
def test_it_follows_equations_1_to_4_in_slow_loops() -> None:
    config = ViTConfig(image_size=(4, 6), patch_size=(2, 2), width=6, depth=2, heads=2, classes=3, hidden_head=True)
    model = a_model(config)
    images = some_images(4, 6)
    expected = torch.stack([_slow_logits(model, image) for image in images.double()])
    torch.testing.assert_close(model(images).double(), expected, atol=1e-5, rtol=0)


def _slow_logits(model: VisionTransformer, image: Tensor) -> Tensor:
    """One image, one token at a time, in float64; only the paper's symbols."""
    w = {name: value.double() for name, value in model.state_dict().items()}
    config = model.config
    z = [w["cls_token"][0, 0]]
    for row in range(config.rows):
        for column in range(config.columns):
            x_p = image[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].reshape(-1)
            z.append(w["patch_embed.proj.weight"].flatten(1) @ x_p + w["patch_embed.proj.bias"])
    z = [token + w["pos_embed"][0, i] for i, token in enumerate(z)]  # equation 1
    for layer in range(config.depth):
        b = {n.removeprefix(f"blocks.{layer}."): v for n, v in w.items() if n.startswith(f"blocks.{layer}.")}
        normed = [_slow_norm(token, b["norm1.weight"], b["norm1.bias"]) for token in z]
        z = [token + branch for token, branch in zip(z, _slow_msa(normed, b, config.heads), strict=True)]
        normed = [_slow_norm(token, b["norm2.weight"], b["norm2.bias"]) for token in z]
        z = [token + _slow_mlp(n, b) for token, n in zip(z, normed, strict=True)]  # equation 3
    y = _slow_norm(z[0], w["norm.weight"], w["norm.bias"])  # equation 4
    y = torch.tanh(w["pre_logits.weight"] @ y + w["pre_logits.bias"])
    return w["head.weight"] @ y + w["head.bias"]


def _slow_msa(z: list[Tensor], b: dict[str, Tensor], heads: int) -> list[Tensor]:
    width = len(z[0])
    d = width // heads
    qkv = [b["attn.qkv.weight"] @ token + b["attn.qkv.bias"] for token in z]
    mixed = [torch.zeros(width, dtype=torch.float64) for _ in z]
    for head in range(heads):
        part = slice(head * d, (head + 1) * d)
        q, k, v = ([token[at * width :][part] for token in qkv] for at in range(3))
        for i in range(len(z)):
            scores = [math.exp(float(q[i] @ k[j]) / math.sqrt(d)) for j in range(len(z))]
            for j in range(len(z)):
                mixed[i][part] += scores[j] / sum(scores) * v[j]
    return [b["attn.proj.weight"] @ token + b["attn.proj.bias"] for token in mixed]


def _slow_mlp(token: Tensor, b: dict[str, Tensor]) -> Tensor:
    hidden = b["mlp.fc1.weight"] @ token + b["mlp.fc1.bias"]
    hidden = torch.tensor([float(h) * (1 + math.erf(float(h) / math.sqrt(2))) / 2 for h in hidden], dtype=torch.float64)
    return b["mlp.fc2.weight"] @ hidden + b["mlp.fc2.bias"]


def _slow_norm(token: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = token - token.mean()
    return centred / torch.sqrt((centred**2).mean() + 1e-6) * weight + bias


@torch.no_grad()
def test_without_positions_shuffled_patches_give_the_same_logits() -> None:
    model = a_model(replace(TINY, positions="none", pooling="mean", registers=1))
    images = some_images()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(2))
    patches = images.unfold(2, 4, 4).unfold(3, 4, 4).flatten(2, 3)  # (batch, channels, patches, 4, 4)
    shuffled = patches[:, :, order].unflatten(2, (4, 4)).permute(0, 1, 2, 4, 3, 5).reshape(2, 3, 16, 16)
    torch.testing.assert_close(model(shuffled), model(images))
    before, after = model.forward_features(images), model.forward_features(shuffled)
    torch.testing.assert_close(after[:, 2:], before[:, 2:][:, order])


@torch.no_grad()
def test_with_positions_shuffled_patches_give_other_logits() -> None:
    model = a_model()
    assert not torch.allclose(model(some_images().flip(-1)), model(some_images()), atol=1e-3)


@torch.no_grad()
def test_an_image_does_not_see_the_rest_of_its_batch() -> None:
    model = a_model()
    images = some_images(batch=3)
    torch.testing.assert_close(model(images)[1:2], model(images[1:2]))


@torch.no_grad()
def test_both_read_outs_are_what_their_names_say() -> None:
    config = replace(TINY, registers=2, classes=0, norm_after_pooling=False)
    by_class, by_mean = a_model(config), a_model(replace(config, pooling="mean"))
    images = some_images()
    sequence = by_class.forward_features(images)
    torch.testing.assert_close(by_class(images), sequence[:, 0])
    torch.testing.assert_close(by_mean(images), sequence[:, 3:].mean(1))


@torch.no_grad()
def test_the_class_token_reads_the_same_before_and_after_the_norm() -> None:
    before, after = a_model(), a_model(replace(TINY, norm_after_pooling=True))
    weights = {name.replace("norm.", "fc_norm.", 1) if name.startswith("norm.") else name: value
               for name, value in before.state_dict().items()}  # fmt: skip
    after.load_state_dict(weights)
    torch.testing.assert_close(after(some_images()), before(some_images()))


def test_tokens_are_class_registers_patches() -> None:
    model = a_model(replace(TINY, registers=2, positions="none"))
    tokens = model.tokens(some_images())
    assert model.cls_token is not None and model.reg_token is not None
    assert torch.equal(tokens[1, :1], model.cls_token[0])
    assert torch.equal(tokens[1, 1:3], model.reg_token[0])
    assert torch.equal(tokens[:, 3:], model.patch_embed(some_images()))


def test_a_patch_embedding_without_bias_is_linear() -> None:
    model = a_model(replace(TINY, patch_bias=False))
    assert not model.patch_embed(torch.zeros(1, 3, 16, 16)).any()


def test_the_layout_says_which_token_is_which() -> None:
    layout = a_model(replace(TINY, registers=2)).layout()
    assert (layout.prefix, layout.rows, layout.columns, layout.class_token) == (3, 4, 4, 0)
    layout = a_model(replace(TINY, class_token=False, pooling="mean")).layout(8, 24)
    assert (layout.prefix, layout.rows, layout.columns, layout.class_token) == (0, 2, 6, None)
    assert (layout.patch_height, layout.patch_width) == (4, 4)


def test_dropout_and_drop_path_act_only_while_training() -> None:
    model = a_model(replace(TINY, dropout=0.5, drop_path=0.5))
    images = some_images()
    assert torch.equal(model(images), model(images))
    model.train()
    assert not torch.equal(model(images), model(images))


def test_drop_path_leaves_out_whole_images_and_keeps_the_mean() -> None:
    branch = torch.ones(20_000, 2, 3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dropped = DropPath(0.25).train()(branch)
    of_each = dropped.flatten(1)
    assert (of_each == of_each[:, :1]).all()
    assert sorted(set(of_each[:, 0].tolist())) == pytest.approx([0, 1 / 0.75])
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)


def test_drop_path_rates_grow_evenly_from_0() -> None:
    model = VisionTransformer(replace(TINY, drop_path=0.2))
    assert [block.drop_path.rate for block in model.blocks] == pytest.approx([0, 0.1, 0.2])  # type: ignore[union-attr]


def test_half_precision_runs() -> None:
    model = a_model().to(torch.bfloat16)
    logits = model(some_images(24, 16).to(torch.bfloat16))
    assert logits.dtype == torch.bfloat16 and logits.isfinite().all()


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 1, 16, 16), (1, 3, 16)])
def test_images_of_another_form_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"this model takes \(batch, 3, image_height, image_width\)"):
        a_model()(torch.zeros(shape))


@pytest.mark.parametrize("size", [(15, 16), (16, 18), (0, 16), (3, 3)])
def test_an_image_that_patches_do_not_fill_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ShapeError, match=rf"{size[0]} x {size[1]} pixels does not divide into patches of 4 x 4"):
        a_model()(torch.zeros(1, 3, *size))
