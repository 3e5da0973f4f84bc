from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vitreous.checkpoints.formats import big_vision, google
from vitreous.checkpoints.reading import Found
from vitreous.checkpoints.sources import open_model
from vitreous.data import pipelines
from vitreous.errors import CheckpointError, ConfigError
from vitreous.model.config import ViTConfig
from vitreous.model.positions import resample_positions
from vitreous.model.vit import VisionTransformer

PLAIN = ("vit", "vit_hidden_head", "vit_gap", "vit_wide_image", "vit_linen_names", "vit_faint")
HYBRID = ("r_ti_16", "r26_s_32", "r50_b_16", "r50_l_32", "r50_l_16")
CONFIG = ViTConfig(
    image_size=(32, 32), patch_size=(8, 8), width=24, depth=2, heads=3, mlp_ratio=40 / 24, classes=5,
    activation="gelu-tanh", norm_after_pooling=False, resampling="google",
)  # fmt: skip


@pytest.mark.parametrize("name", PLAIN + HYBRID)
def test_the_logits_are_those_of_googles_code(name: str, google_cases: Any, build: Any) -> None:
    case = google_cases[name]
    model = build(google.read(case.found(image_size=case.image_size)), case.arrays)
    with torch.no_grad():
        logits = model(case.images)
    assert (logits - case.outputs["logits"]).abs().max() <= 1e-4
    assert logits.std() > 0.3  # the classes differ


@pytest.mark.parametrize("name", ["vit", "vit_gap", "r_ti_16"])
def test_the_pooled_features_are_those_of_googles_code(name: str, google_cases: Any, build: Any) -> None:
    case = google_cases[name]
    arrays = {key: array for key, array in case.arrays.items() if not key.startswith("head/")}
    shapes = {key: array.shape for key, array in arrays.items()}
    model = build(google.read(Found(shapes, "npz", asked={"image_size": case.image_size})), arrays)
    with torch.no_grad():
        assert (model(case.images) - case.outputs["features"]).abs().max() <= 1e-4


def test_the_tokens_are_those_of_googles_code(google_cases: Any, build: Any) -> None:
    case = google_cases["vit_tokens"]
    with torch.no_grad():
        tokens = build(google.read(case.found()), case.arrays).forward_features(case.images)
    assert (tokens - case.outputs["tokens"]).abs().max() <= 1e-4


@pytest.mark.parametrize("name", ["stem_odd", "stem_even", "stem_faint"])
def test_a_stem_pads_odd_and_even_maps_as_googles_code_does(name: str, google_cases: Any, build: Any) -> None:
    case, blocks = google_cases[name], google_cases["vit"]
    arrays = blocks.arrays | case.arrays  # Google ran the stem alone; the blocks of another model stand behind it
    shapes = {key: array.shape for key, array in arrays.items()}
    model = build(google.read(Found(shapes, "npz")), arrays)
    with torch.no_grad():
        patches = model.patch_embed(case.images)
    assert (patches - case.outputs["map"].flatten(1, 2)).abs().max() <= 1e-4


def test_another_epsilon_would_show_in_the_faint_case(google_cases: Any, build: Any) -> None:
    case = google_cases["vit_faint"]
    reading = google.read(case.found())
    model = build(replace(reading, config=replace(reading.config, norm_eps=1e-5)), case.arrays)
    with torch.no_grad():
        assert (model(case.images) - case.outputs["logits"]).abs().max() > 0.01


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("vit", {}),
        ("vit_hidden_head", {"hidden_head": True}),
        ("vit_gap", {"class_token": False, "pooling": "mean"}),
        ("vit_tokens", {"classes": 0}),
    ],
)
def test_names_and_shapes_tell_the_architecture(name: str, changes: dict[str, Any], google_cases: Any) -> None:
    assert google.read(google_cases[name].found()).config == replace(CONFIG, **changes)


@pytest.mark.parametrize(
    ("name", "stem", "patch"),
    [("r_ti_16", (), 32), ("r26_s_32", (2, 2, 2, 2), 32), ("r50_b_16", (3, 4, 9), 16), ("r50_l_32", (3, 4, 6, 3), 32)],
)
def test_names_tell_the_stages_of_a_stem(name: str, stem: tuple[int, ...], patch: int, google_cases: Any) -> None:
    case = google_cases[name]
    config = google.read(case.found(image_size=case.image_size)).config
    assert (config.stem, config.patch_size) == (stem, (patch, patch))
    assert (config.stem_width, config.channels) == (64, 3)


def test_what_googles_code_has_fixed_is_stated_with_its_reason(google_cases: Any) -> None:
    reading = google.read(google_cases["vit"].found())
    decided = {decision.setting: decision for decision in reading.decisions}
    assert decided["activation"].value == "gelu-tanh"
    assert decided["norm_eps"].value == 1e-6
    assert decided["resampling"].value == "google"
    assert decided["pooling"].reason == "there is a class token"
    assert decided["image_size"].value == [32, 32]
    assert not any(decision.guessed for decision in reading.decisions)
    assert reading.preprocess == pipelines.google((32, 32))


def test_positions_that_are_no_square_need_the_image_size(google_cases: Any) -> None:
    with pytest.raises(CheckpointError, match=r"24 patches.*no square grid.*\n?.*image_size="):
        google.read(google_cases["vit_wide_image"].found())


def test_an_optimisers_checkpoint_is_read_without_its_state(google_cases: Any, build: Any) -> None:
    case = google_cases["vit"]
    arrays = {f"opt/target/{name}": array for name, array in case.arrays.items()}
    shapes = {name: array.shape for name, array in arrays.items()} | {"opt/state/step": (), "extra/seconds": (1,)}
    reading = google.read(Found(shapes, "npz"))
    assert set(reading.ignored) == {"opt/state/step", "extra/seconds"}
    with torch.no_grad():
        assert (build(reading, arrays)(case.images) - case.outputs["logits"]).abs().max() <= 1e-4


def test_without_a_head_its_hidden_layer_is_left_out_and_said_so(google_cases: Any) -> None:
    shapes = google_cases["vit_hidden_head"].shapes
    del shapes["head/kernel"], shapes["head/bias"]
    reading = google.read(Found(shapes, "npz"))
    assert (reading.config.classes, reading.config.hidden_head) == (0, False)
    assert set(reading.ignored) == {"pre_logits/kernel", "pre_logits/bias"}


def test_without_a_table_of_positions_there_are_none_and_the_image_size_is_a_guess(google_cases: Any) -> None:
    shapes = google_cases["vit"].shapes
    del shapes["Transformer/posembed_input/pos_embedding"]
    reading = google.read(Found(shapes, "npz"))
    guesses = {decision.setting: decision.value for decision in reading.decisions if decision.guessed}
    assert reading.config.positions == "none"
    assert guesses == {"image_size": [224, 224]}
    assert google.read(Found(shapes, "npz", asked={"image_size": (64, 32)})).config.image_size == (64, 32)


def test_every_file_is_recognised_by_one_of_the_two_formats(google_cases: Any) -> None:
    older = "bv_very_old_positions"  # named as vision_transformer's, and the same model
    for name, case in google_cases.index.items():
        found = Found({key: tuple(shape) for key, shape in case["shapes"].items()}, "npz")
        if not name.startswith("stem"):
            assert google.recognises(found) == (case["library"] == "vision_transformer" or name == older), name
            assert big_vision.recognises(found) != google.recognises(found), name


@pytest.mark.parametrize("name", ["MixerBlock_0/LayerNorm_0/scale", "stem/kernel", "embedding/kernel"])
def test_other_networks_are_not_recognised(name: str) -> None:
    found = Found({name: (3, 4)}, "npz")
    assert not google.recognises(found)
    assert not big_vision.recognises(found)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("Transformer/encoderblock_0/MlpBlock_3/Dense_2/kernel", (24, 24), "no place for .*Dense_2/kernel"),
        ("block3/unit1/conv1/kernel", (1, 1, 3, 3), "no place for 'block3/unit1/conv1/kernel'"),
        ("Transformer/encoderblock_5/LayerNorm_0/scale", (24,), "not numbered from 0 on; there are 0, 1, 5"),
        ("pre_logits/kernel", (24, 32), r"pre_logits/kernel is \(24, 32\); a hidden head as wide as a token"),
        ("embedding/kernel", (192, 24), r"embedding/kernel is \(192, 24\); it has 4 axes"),
        ("Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel", (24, 3, 5), "3 heads of 5"),
        ("head/kernel", (24, 0), r"head/kernel is \(24, 0\)"),
    ],
)
def test_what_does_not_belong_is_refused_by_name(name: str, shape: Any, message: str, google_cases: Any) -> None:
    shapes = google_cases["vit"].shapes | {name: shape}
    with pytest.raises(CheckpointError, match=message) as refused:
        google.read(Found(shapes, "npz"))
    assert len(str(refused.value).splitlines()) <= 3


@pytest.mark.parametrize("name", ["Transformer/encoder_norm/bias", "cls", "head/bias", "block2/unit1/gn_proj/scale"])
def test_a_missing_array_is_named(name: str, google_cases: Any, tmp_path: Path) -> None:
    arrays = google_cases["vit" if name == "cls" else "r26_s_32"].arrays
    np.savez(tmp_path / "file.npz", **{key: array for key, array in arrays.items() if key != name})
    with pytest.raises(CheckpointError, match="no square grid" if name == "cls" else f"'{name}' is missing"):
        open_model(tmp_path / "file.npz")


def test_other_names_for_attention_are_refused(google_cases: Any) -> None:
    shapes = {name.replace("Attention_1", "Attention_7"): shape for name, shape in google_cases["vit"].shapes.items()}
    with pytest.raises(CheckpointError, match="has no MultiHeadDotProductAttention_1 and no MultiHeadDotProduct"):
        google.read(Found(shapes, "npz"))


def test_the_parameters_counted_are_those_of_googles_own_models(google_cases: Any) -> None:
    for key, count in google_cases.parameters.items():
        name, side, classes, *hidden = key.split()
        assert full_size(name, int(side), int(classes), bool(hidden)).parameters == count, key
    assert google_cases.parameters["R50+ViT-L_16 224 1000"] == 316_483_624


@pytest.mark.parametrize(
    ("old", "side", "new_side", "prefix"), [("3x3+1", 3, 5, 1), ("4x4+1", 4, 2, 1), ("7x7", 7, 12, 0), ("4x4", 4, 4, 0)]
)
def test_positions_move_to_another_grid_as_in_googles_code(
    old: str, side: int, new_side: int, prefix: int, google_cases: Any
) -> None:
    table = torch.from_numpy(google_cases.drawn.draw(f"positions/{old}", (1, side * side + prefix, 4)))
    stored = google_cases.stored[f"positions/{old}-{new_side}x{new_side}{'+1' * prefix}"]
    moved = resample_positions(table, (side, side), (new_side, new_side), prefix, "google")
    assert np.abs(moved.numpy() - stored).max() <= 1e-6


def full_size(name: str, side: int, classes: int, hidden_head: bool) -> ViTConfig:
    sizes = {"Ti": (192, 12, 3), "S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "H": (1280, 32, 16)}
    stems = {"R": (), "R26": (2, 2, 2, 2), "R50": (3, 4, 6, 3) if "_32" in name else (3, 4, 9)}
    resnet, _, size = name.removesuffix("-gap-norep").rpartition("ViT-")
    width, depth, heads = sizes[size.split("_")[0]]
    patch = 32 if resnet == "R+" else int(size.split("_")[1])  # R+Ti/16 has patches of 32 pixels, whatever its name
    is_mean = "gap" in name
    return ViTConfig(
        image_size=(side, side), patch_size=(patch, patch), width=width, depth=depth, heads=heads, classes=classes,
        hidden_head=hidden_head, stem=stems.get(resnet.removesuffix("+")), class_token=not is_mean,
        pooling="mean" if is_mean else "class",
    )  # fmt: skip


@pytest.mark.parametrize("name", [*PLAIN, "vit_tokens", *HYBRID])
def test_what_was_read_is_written_again_bit_for_bit(name: str, google_cases: Any, build: Any) -> None:
    case = google_cases[name]
    reading = google.read(case.found(image_size=case.image_size))
    tensors = build(reading, case.arrays).state_dict()
    written = google.write(reading.config, tensors)
    if name != "vit_linen_names":
        assert written.keys() == case.arrays.keys()
        for key, array in written.items():
            is_group_norm = case.arrays[key].ndim == 4 and array.ndim == 1
            assert array.shape == (case.arrays[key].shape[-1:] if is_group_norm else case.arrays[key].shape)
            assert array.tobytes() == case.arrays[key].tobytes(), key
    shapes = {key: array.shape for key, array in written.items()}
    again = google.read(Found(shapes, "npz", asked={"image_size": case.image_size}))
    assert again.config == reading.config
    reread = build(again, written).state_dict()
    assert reread.keys() == tensors.keys()
    assert all(torch.equal(reread[key], tensors[key]) for key in tensors)


def test_linen_names_are_written_as_the_published_ones(google_cases: Any, build: Any) -> None:
    case = google_cases["vit_linen_names"]
    reading = google.read(case.found())
    written = google.write(reading.config, build(reading, case.arrays).state_dict())
    assert written.keys() == google_cases["vit"].arrays.keys()


Make = Callable[..., tuple[ViTConfig, dict[str, Tensor], VisionTransformer]]


@pytest.fixture
def made() -> Make:
    def make(**changes: Any) -> tuple[ViTConfig, dict[str, Tensor], VisionTransformer]:
        config = replace(CONFIG, **changes)
        generator = torch.Generator().manual_seed(0)
        model = VisionTransformer(config, generator=generator).eval()
        for parameter in model.parameters():
            parameter.data.normal_(std=0.2, generator=generator)
        return config, model.state_dict(), model

    return make


@pytest.mark.parametrize(
    "changes",
    [
        {"qkv_bias": False, "patch_bias": False},
        {"positions": "sincos-2d"},
        {"positions": "none"},
        {"norm_after_pooling": True},
        {"image_size": (32, 48), "channels": 1},
        {"classes": 0},
    ],
)
def test_what_can_be_said_in_googles_words_keeps_its_logits(changes: dict[str, Any], made: Make, build: Any) -> None:
    config, tensors, model = made(**changes)
    written = google.write(config, tensors)
    found = Found({key: array.shape for key, array in written.items()}, "npz", asked={"image_size": config.image_size})
    images = torch.randn(2, config.channels, *config.image_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(build(google.read(found), written)(images), model(images), atol=1e-6, rtol=0)


@pytest.mark.parametrize("changes", [{}, {"class_token": False, "pooling": "mean"}, {"image_size": (32, 48)}])
def test_timm_reads_what_is_written(changes: dict[str, Any], made: Make, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm.models.vision_transformer")
    config, tensors, model = made(**changes)
    np.savez(tmp_path / "model.npz", **google.write(config, tensors))
    other = timm.VisionTransformer(
        img_size=config.image_size, patch_size=8, embed_dim=24, depth=2, num_heads=3, mlp_ratio=40.5 / 24,
        num_classes=5, class_token=config.class_token, global_pool="token" if config.class_token else "avg",
        fc_norm=False, act_layer=partial(nn.GELU, approximate="tanh"),
    )  # fmt: skip
    other.eval().load_pretrained(str(tmp_path / "model.npz"))
    images = torch.randn(2, 3, *config.image_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(other(images), model(images), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"registers": 4}, "registers"),
        ({"distillation": True}, "a distillation token"),
        ({"stem": (), "stem_constants": "timm"}, "timm's constants in the stem"),
        ({"stem": (), "stem_root": "small"}, "a 3x3 root in the stem"),
        (
            {
                "stem": (),
                "depth": 0,
                "class_token": False,
                "positions": "none",
                "pooling": "mean",
                "norm_after_pooling": False,
            },
            "a stem without blocks behind it",
        ),
        ({"positions_at": "layers"}, "positions before every layer"),
        ({"positions_at": "layers-shared"}, "positions before every layer"),
        ({"patch_norms": True}, "norms of patches"),
        ({"norm_before_blocks": True}, "a norm before the blocks"),
        ({"qk_norm": True}, "norms of queries and keys"),
        ({"attention_width": 48}, "heads of 16, which do not add up to the width"),
        ({"gated_mlp": True}, "a gated MLP"),
        ({"layer_scale": 1e-5}, "layer scale"),
        ({"positions": "rope"}, "positions 'rope'"),
        ({"positions": "learned-2d"}, "positions 'learned-2d'"),
        ({"pooling": "map"}, "pooling 'map'"),
        ({"pooling": "class+mean"}, "pooling 'class\\+mean'"),
        ({"pooling": "mean"}, "a class token beside pooling 'mean'"),
        ({"pooling": "mean", "class_token": False, "norm_after_pooling": True}, "a LayerNorm after pooling 'mean'"),
        ({"norm_eps": 1e-5}, "a LayerNorm epsilon of 1e-05; it has 1e-06"),
        ({"activation": "gelu"}, "activation 'gelu'; it has 'gelu-tanh'"),
    ],
)
def test_what_googles_code_has_no_word_for_is_refused(changes: dict[str, Any], word: str) -> None:
    config = replace(CONFIG, **({"width": 48, "heads": 3} if changes.get("positions") == "rope" else {}), **changes)
    with pytest.raises(ConfigError, match=word) as refused:
        google.write(config, {})
    assert len(google.google_differences(config)) == 1
    assert "to='timm'" in str(refused.value)


def test_all_that_cannot_be_said_is_listed_at_once() -> None:
    with pytest.raises(ConfigError, match="registers; layer scale; activation"):
        google.write(replace(CONFIG, registers=1, layer_scale=0.1, activation="gelu"), {})


def test_written_arrays_are_copies_in_c_order_and_bfloat16_becomes_float32(made: Make) -> None:
    config, tensors, model = made()
    written = google.write(config, tensors)
    kernel = written["head/kernel"].copy()
    model.head.weight.data.zero_()
    assert np.array_equal(written["head/kernel"], kernel)
    assert all(array.flags.c_contiguous and array.dtype == np.float32 for array in written.values())
    halves = {name: tensor.bfloat16() for name, tensor in made()[1].items()}
    array = google.write(config, halves)["head/kernel"]
    assert array.dtype == np.float32
    assert np.array_equal(array, halves["head.weight"].float().numpy().T)
