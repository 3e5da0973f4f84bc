from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch
from timm.layers import resample_abs_pos_embed

from vitreous.checkpoints.saving import save
from vitreous.data.preprocess import Preprocess
from vitreous.errors import CheckpointError, InputError
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer
from vitreous.training.starting import start_from

CONFIG = ViTConfig((16, 16), (4, 4), width=16, depth=2, heads=2, mlp_ratio=2.0, classes=3)
LARGER = replace(CONFIG, image_size=(24, 32))
NAMES = ("cat", "dog", "owl")


def drawn(config: ViTConfig, seed: int) -> VisionTransformer:
    """A model whose every weight is drawn, the head's too."""
    generator = torch.Generator().manual_seed(seed)
    model = VisionTransformer(config, generator=generator)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.1)
    return model


def saved(folder: Path, config: ViTConfig = CONFIG, **more: Any) -> tuple[Path, VisionTransformer]:
    model = drawn(config, 1)
    settings: dict[str, Any] = {"preprocess": Preprocess(config.image_size, "squash", 1.0), "class_names": NAMES}
    save(model, folder, **(settings | more))
    return folder, model


def test_an_equal_model_is_taken_whole(tmp_path: Path) -> None:
    folder, before = saved(tmp_path / "model")
    model = drawn(CONFIG, 2)
    remark = start_from(folder, model, class_names=NAMES)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before.state_dict()[name]), name
    assert remark.startswith("started from ") and ";" not in remark and "\n" not in remark


def test_positions_are_moved_by_the_runs_rule(tmp_path: Path) -> None:
    folder, before = saved(tmp_path / "model")
    assert before.pos_embed is not None
    table = before.pos_embed.detach()
    model = drawn(LARGER, 2)
    remark = start_from(folder, model)
    expected = resample_abs_pos_embed(table, [6, 8], [4, 4])
    assert torch.equal(model.pos_embed, expected)
    assert "positions moved from 4 x 4 patches to 6 x 8, by the rule 'timm'" in remark
    google = drawn(replace(LARGER, resampling="google"), 2)
    start_from(folder, google)
    patches = table[0, 1:].unflatten(0, (4, 4)).numpy()
    zoomed = scipy.ndimage.zoom(patches, (6 / 4, 8 / 4, 1), order=1)
    assert google.pos_embed is not None
    np.testing.assert_allclose(google.pos_embed[0, 1:].detach(), zoomed.reshape(48, 16), atol=1e-6)
    assert torch.equal(google.pos_embed[:, :1], table[:, :1])


@pytest.mark.parametrize("positions", ["learned", "learned-2d", "sincos-2d", "rope", "relative-bias", "none"])
def test_a_larger_image_is_seen_as_the_checkpoint_sees_it(tmp_path: Path, positions: Any) -> None:
    config = replace(CONFIG, positions=positions, resampling="deit")
    folder, before = saved(tmp_path / "model", config)
    model = drawn(replace(config, image_size=(24, 32)), 2)
    start_from(folder, model)
    images = torch.randn(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # a model resamples its positions itself where an image is of another size
        torch.testing.assert_close(model.eval()(images), before.eval()(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("where", ["layers", "layers-shared"])
def test_positions_of_every_layer_are_moved(tmp_path: Path, where: Any) -> None:
    before = drawn(replace(CONFIG, positions_at=where), 1)
    folder = tmp_path / "model"
    save(before, folder, preprocess=Preprocess(CONFIG.image_size, "squash", 1.0))
    model = drawn(replace(LARGER, positions_at=where), 2)
    start_from(folder, model)
    images = torch.randn(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(images), before.eval()(images), atol=1e-5, rtol=1e-5)


def test_other_classes_begin_at_zero_and_the_hidden_layer_goes(tmp_path: Path) -> None:
    folder, before = saved(tmp_path / "model", replace(CONFIG, hidden_head=True))
    model = drawn(replace(CONFIG, classes=7), 2)
    remark = start_from(folder, model)
    assert model.head is not None and model.pre_logits is None
    assert not model.head.weight.any() and not model.head.bias.any()
    assert "its head of 3 classes left out, its hidden layer, too, a new one of 7 starts at zero" in remark
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model.eval().forward_features(images), before.eval().forward_features(images))
        assert not model(images).any()  # every class is as likely


def test_as_many_classes_of_other_names_begin_anew(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path / "model")
    for names, is_kept in (((), True), (NAMES, True), (("cat", "owl", "dog"), False), (("a", "b", "c"), False)):
        model = drawn(CONFIG, 2)
        start_from(folder, model, class_names=names)
        assert model.head is not None and bool(model.head.weight.any()) == is_kept, names


def test_a_model_without_a_head_gets_one_and_one_with_loses_it(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path / "headless", replace(CONFIG, classes=0), class_names=())
    model = drawn(CONFIG, 2)
    assert start_from(folder, model).endswith("; a new one of 3 starts at zero")
    assert model.head is not None and not model.head.weight.any()
    folder, before = saved(tmp_path / "with")
    headless = drawn(replace(CONFIG, classes=0), 2)
    assert start_from(folder, headless).endswith("; its head left out")
    assert all(torch.equal(weight, before.state_dict()[name]) for name, weight in headless.state_dict().items())


@pytest.mark.parametrize("to", ["google", "transformers"])
def test_other_formats_are_read_too(tmp_path: Path, to: Any) -> None:
    config = replace(CONFIG, activation="gelu-tanh")
    before = drawn(config, 1)
    place = tmp_path / ("model.npz" if to == "google" else "model")
    save(before, place, to=to, preprocess=Preprocess(config.image_size, "squash", 1.0))
    model = drawn(config, 2)
    start_from(place, model)
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weight, before.state_dict()[name], msg=name)


def test_settings_for_training_only_are_the_runs(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path / "model", replace(CONFIG, layer_scale=0.1))
    model = drawn(replace(CONFIG, layer_scale=1e-5, dropout=0.1, drop_path=0.2, attention_width=16), 2)
    start_from(folder, model)
    assert model.config.dropout == 0.1


def test_another_architecture_is_refused_with_the_difference(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path / "model")
    for changes, words in (
        ({"width": 32, "mlp_ratio": 1.0}, "width is 16 there and 32 here; mlp_ratio is 2.0 there and 1.0 here"),
        ({"heads": 4}, "heads is 2 there and 4 here"),
        ({"pooling": "mean"}, "pooling is class there and mean here; norm_after_pooling is False there and True here"),
        ({"layer_scale": 0.1}, "layer_scale is none there and learned here"),
        ({"positions": "none"}, "positions is learned there and none here"),
        ({"patch_size": (2, 2)}, r"patch_size is \[4, 4\] there and \[2, 2\] here"),
        ({"activation": "gelu-tanh"}, "activation is gelu there and gelu-tanh here"),
    ):
        model = drawn(replace(CONFIG, **changes), 2)
        weights = {name: weight.clone() for name, weight in model.state_dict().items()}
        with pytest.raises(CheckpointError, match=words) as refused:
            start_from(folder, model)
        assert refused.value.exit_code == 5 and len(str(refused.value).splitlines()) <= 3
        assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    with pytest.raises(CheckpointError, match="registers is 0 there and 1 here\nset"):
        start_from(folder, drawn(replace(CONFIG, width=8, depth=1, heads=4, patch_size=(8, 8), registers=1), 2))
    with pytest.raises(CheckpointError, match="; and 1 more\nset"):
        start_from(
            folder, drawn(replace(CONFIG, width=8, depth=1, heads=4, patch_size=(8, 8), registers=1, qk_norm=True), 2)
        )


def test_keys_along_the_sequence_cannot_be_moved(tmp_path: Path) -> None:
    config = replace(CONFIG, positions="relative")
    folder, _ = saved(tmp_path / "model", config)
    start_from(folder, drawn(config, 2))
    with pytest.raises(CheckpointError, match="no meaning for 6 x 8"):
        start_from(folder, drawn(replace(config, image_size=(24, 32)), 2))


def test_other_colours_are_named(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path / "model")
    same = Preprocess((16, 16), "squash", 1.0)
    assert "\n" not in start_from(folder, drawn(CONFIG, 2), preprocess=same)
    other = replace(same, std=(0.5, 0.5, 0.5))
    assert "std (0.5, 0.5, 0.5)" in start_from(folder, drawn(CONFIG, 2), preprocess=other).splitlines()[1]


def test_broken_and_foreign_models_are_refused(tmp_path: Path) -> None:
    broken = drawn(CONFIG, 1)
    with torch.no_grad():
        broken.blocks[0].mlp.fc1.bias[0] = torch.nan
    save(broken, tmp_path / "broken", preprocess=Preprocess((16, 16), "squash", 1.0))
    with pytest.raises(CheckpointError, match="NaN"):
        start_from(tmp_path / "broken", drawn(CONFIG, 2))
    with pytest.raises(InputError):
        start_from(tmp_path / "nothing.safetensors", drawn(CONFIG, 2))
    with pytest.raises(CheckpointError, match="vitreous convert MODEL FOLDER"):
        start_from("timm:vit_tiny_patch16_224@random", drawn(CONFIG, 2))
