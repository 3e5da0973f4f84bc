from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from vitreous.arrangement import one_pass
from vitreous.arrangement.changes import (
    hide_patches,
    random_order,
    roll_each,
    roll_offsets,
    shift,
    shift_directions,
    shuffle_grid,
    tile_orders,
)
from vitreous.arrangement.inputs import ImageSet
from vitreous.arrangement.measure import measure_arrangement
from vitreous.arrangement.read_out import ReadOut
from vitreous.arrangement.result import Arrangement, ModelArrangement
from vitreous.checkpoints.loaded import LoadedModel
from vitreous.data.gather import Pictures
from vitreous.data.labelled import LabelledImages
from vitreous.data.preprocess import Preprocess
from vitreous.data.transforms import to_tensor
from vitreous.errors import CaptureError, CheckpointError, ConfigError, InputError, NumericError
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer

PREPROCESS = Preprocess((8, 8), "squash", 1.0)
NAMES = ("even", "odd", "other")
VIT = ViTConfig((8, 8), (2, 2), width=16, depth=2, heads=2, classes=3)
BAG = replace(VIT, positions="none", class_token=False, pooling="mean")
CNN = ViTConfig(
    (8, 8), (2, 2), stem=(1, 1), stem_width=32, stem_root="small", width=16, depth=0, heads=2, classes=3,
    class_token=False, positions="none", pooling="mean",
)  # fmt: skip


def opened(config: ViTConfig, name: str = "tiny", *, scale: float = 0.3, seed: int = 0) -> LoadedModel:
    """A model whose weights are all drawn, large enough that its answers differ."""
    generator = torch.Generator().manual_seed(seed)
    model = VisionTransformer(config, generator=generator).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * scale)
        if model.head is not None:  # so that no class is every image's
            model.head.bias -= model(1.3 * torch.randn(16, 3, *config.image_size, generator=generator)).mean(0)
    return LoadedModel(model, name, replace(PREPROCESS, image_size=config.image_size), NAMES, "vitreous", "")


def noise(index: int) -> Image.Image:
    if index > 39:
        raise InputError(f"{index}.png: is spoilt")
    generator = torch.Generator().manual_seed(index)
    return Image.fromarray(torch.randint(0, 256, (8, 8, 3), generator=generator, dtype=torch.uint8).numpy())


def pictures(count: int = 14, *, labels: bool = True) -> ImageSet:
    names = tuple(f"{n}.png" for n in range(count))
    labelled = LabelledImages("noise", "test", NAMES, tuple(n % 3 for n in range(count)), names, noise)
    return ImageSet("noise", Pictures(names, noise), torch.arange(count), labelled if labels else None)


def inputs(count: int = 14) -> Tensor:
    return torch.stack([to_tensor(noise(n), PREPROCESS) for n in range(count)])


def measured(models: Sequence[LoadedModel], images: ImageSet | None = None, **options: Any) -> Arrangement:
    settings = {"grids": (1, 2, 4), "resamples": 50, "batch_size": 5, "workers": 0} | options
    return measure_arrangement(models, pictures() if images is None else images, **settings)


def numbers(plain: Any) -> list[float]:
    """All numbers of plain data, in order."""
    if isinstance(plain, dict):
        return [number for value in plain.values() for number in numbers(value)]
    if isinstance(plain, list | tuple):
        return [number for value in plain for number in numbers(value)]
    return [float(plain)] if isinstance(plain, int | float) else []


def same(one: ModelArrangement, other: ModelArrangement, tolerance: float = 1e-5) -> bool:
    found = [numbers(Arrangement("", 1, True, (), 0, 1, None, (model,), (), ()).to_dict()) for model in (one, other)]
    return len(found[0]) == len(found[1]) and np.allclose(*found, atol=tolerance, rtol=tolerance)


def test_a_vit_without_positions_answers_alike_to_shuffled_patches() -> None:
    """The closed form: attention and the mean over patches do not know their order."""
    without, with_table = measured([opened(BAG, "bag"), opened(replace(BAG, positions="learned"), "table")]).models
    for k in (1, 2, 4):  # tiles of 8, 4 and 2 pixels: whole patches
        answers = without.shuffled[k]
        assert answers.agreement.value == 1
        assert answers.divergence.value == pytest.approx(0, abs=1e-9)
        assert answers.cosine.value == pytest.approx(1, abs=1e-9)
    assert with_table.shuffled[2].divergence.value > 1e-3 and with_table.shuffled[2].cosine.value < 0.999


def test_tiles_smaller_than_patches_change_its_answers() -> None:
    found = measured([opened(replace(BAG, patch_size=(4, 4)))], grids=(1, 2, 8)).models[0]
    assert found.shuffled[2].divergence.value == pytest.approx(0, abs=1e-9)
    assert found.shuffled[8].divergence.value > 1e-3


def test_one_tile_and_no_patch_hidden_are_the_unchanged() -> None:
    loaded = opened(VIT)
    found = measured([loaded]).models[0]
    with torch.no_grad():
        answers_by_hand = loaded.model(inputs()).argmax(1)
    right = (answers_by_hand == torch.arange(14) % 3).double().mean().item()
    assert len(answers_by_hand.unique()) == 3
    for answers in (found.shuffled[1], *(by_share[0] for by_share in found.occluded.values())):
        assert answers.accuracy is not None and answers.accuracy.value == pytest.approx(right)
        assert (answers.agreement.value, answers.divergence.value) == (1, 0)
        assert answers.cosine.value == pytest.approx(1)


def test_with_everything_hidden_all_images_get_one_answer() -> None:
    loaded = opened(VIT)
    found = measured([loaded]).models[0]
    with torch.no_grad():
        after, before = loaded.model(torch.zeros(1, 3, 8, 8)).double(), loaded.model(inputs()).double()
    answer = int(after.argmax())
    stays = (before.argmax(1) == answer).double().mean().item()
    divergence = (before.softmax(1) * (before.log_softmax(1) - after.log_softmax(1))).sum(1).mean().item()
    for by_share in found.occluded.values():
        hidden = by_share[1]
        assert hidden.accuracy is not None
        assert hidden.accuracy.value == pytest.approx(np.mean([n % 3 == answer for n in range(14)]))
        assert hidden.agreement.value == pytest.approx(stays)
        assert hidden.divergence.value == pytest.approx(divergence, rel=1e-5)


def test_numbers_equal_a_slow_loop() -> None:
    """Image by image, by the definitions, with nothing but the changes taken from the package."""
    loaded = opened(VIT)
    found = measured([loaded], grids=(1, 2), shares=(0.5,), seed=3).models[0]
    model, images = loaded.model, inputs()
    assert isinstance(model, VisionTransformer) and model.pos_embed is not None

    def divergence(change: Any) -> float:
        total = 0.0
        for n in range(14):
            samples = torch.tensor([n])
            with torch.no_grad():
                before = model(images[n : n + 1]).double().softmax(1)
                after = change(images[n : n + 1], samples).double().softmax(1)
            total += float((before * (before / after).log()).sum()) / 14
        return total

    def without_positions(image: Tensor, samples: Tensor) -> Tensor:
        assert isinstance(model, VisionTransformer) and model.pos_embed is not None
        own = model.pos_embed.detach().clone()
        with torch.no_grad():
            model.pos_embed[:, 1:] = 0
            logits: Tensor = model(image)
            model.pos_embed.copy_(own)
        return logits

    expected = {
        "shuffle": divergence(lambda image, n: model(shuffle_grid(image, tile_orders(3, n, 2), 2))),
        "shift": divergence(lambda image, n: model(shift(image, 2 * shift_directions(3, n)))),
        "hide": divergence(lambda image, n: model(hide_patches(image, random_order(3, n, 16), 8, (4, 4)))),
        "zero": divergence(without_positions),
    }
    assert found.shuffled[2].divergence.value == pytest.approx(expected["shuffle"], rel=1e-4)
    assert found.shifted[2].divergence.value == pytest.approx(expected["shift"], rel=1e-4)
    assert found.occluded["random"][0.5].divergence.value == pytest.approx(expected["hide"], rel=1e-4)
    assert found.positions["zeroed"].divergence.value == pytest.approx(expected["zero"], rel=1e-4)
    assert min(expected.values()) > 1e-3


def test_positions_are_read_out_of_rolled_images_as_by_hand() -> None:
    loaded = opened(VIT)
    found = measured([loaded]).models[0]
    assert found.layers == ("embedding", "layer 0", "layer 1")
    assert list(found.read_out) == ["images as they are", "rolled images", "rolled images, no positions"]
    model, images = loaded.model, inputs()
    assert isinstance(model, VisionTransformer)
    rolled = roll_each(images, roll_offsets(0, torch.arange(14), (8, 8)))
    for condition, shown in (("images as they are", images), ("rolled images", rolled)):
        by_hand = ReadOut((4, 4))
        with torch.no_grad():
            by_hand.add(model.tokens(shown)[:, 1:].unflatten(1, (4, 4)), torch.arange(14) % 2 == 1)
        assert found.read_out[condition][0] == pytest.approx(by_hand.r_squared(), abs=1e-6)
    assert found.read_out["rolled images"][0] > found.read_out["rolled images, no positions"][0] + 0.2


def test_a_cnn_is_asked_without_its_zero_padding() -> None:
    found = measured([opened(CNN, scale=0.02)]).models[0]
    assert found.kind == "CNN" and found.layers == ("unit 0", "unit 1") and found.positions == {}
    assert list(found.read_out)[-1] == "rolled images, no zero padding"
    assert set(found.shifted) == {1, 2} == set(found.equivariance)
    assert all(len(errors) == 2 for errors in found.equivariance.values())
    assert set(found.occluded) == {"random", "centre first"}


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [opened(VIT, "vit"), opened(CNN, "cnn", scale=0.02)]
    one, other = (measured(models, batch_size=size, layer_images=6) for size in (14, 3))
    assert all(same(*pair) for pair in zip(one.models, other.models, strict=True))
    monkeypatch.setattr(one_pass, "MAP_BYTES", 1)  # layers are then looked at image by image
    assert same(measured(models, layer_images=6).models[1], one.models[1])


def test_a_models_numbers_do_not_depend_on_those_beside_it() -> None:
    vit, cnn, other = opened(VIT, "vit"), opened(CNN, "cnn", scale=0.02), opened(BAG, "bag", seed=1)
    together = measured([cnn, vit, other])
    assert together.rollout_of == "vit" and [model.name for model in together.models] == ["cnn", "vit", "bag"]
    assert all("rollout" in model.occluded for model in together.models)
    assert same(measured([vit]).models[0], together.models[1])
    assert same(measured([vit, cnn]).models[1], together.models[0])


def test_models_keep_their_weights_and_have_no_hook() -> None:
    models = [opened(VIT, "vit"), opened(CNN, "cnn", scale=0.02)]
    before = [{name: value.clone() for name, value in one.model.state_dict().items()} for one in models]
    measured(models, transplant=opened(VIT, seed=2))
    for one, states in zip(models, before, strict=True):
        assert all(torch.equal(value, states[name]) for name, value in one.model.state_dict().items())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in one.model.modules())


def test_transplanting_a_models_own_positions_changes_nothing() -> None:
    loaded = opened(VIT)
    own, others = (measured([loaded], transplant=donor).models[0] for donor in (loaded, opened(VIT, seed=5)))
    assert own.positions["transplanted"].divergence.value == pytest.approx(0, abs=1e-12)
    assert others.positions["transplanted"].divergence.value > 1e-3
    assert list(own.positions) == ["zeroed", "shuffled", "transplanted"]


def test_what_cannot_be_transplanted_is_said() -> None:
    with pytest.raises(ConfigError, match="bag has no table of position embeddings"):
        measured([opened(VIT)], transplant=opened(BAG, "bag"))
    wide = opened(replace(VIT, width=32), "wide")
    found = measured([opened(VIT)], transplant=wide)
    assert "transplanted" not in found.models[0].positions
    assert "have 32 numbers a patch, those of tiny 16" in " ".join(found.notes)


def test_without_labels_accuracy_is_left_out() -> None:
    with_labels, without = measured([opened(VIT)]), measured([opened(VIT)], pictures(labels=False))
    assert without.models[0].shuffled[2].accuracy is None and not without.has_labels
    assert "The images have no labels, so that accuracy is left out." in without.notes
    assert without.models[0].shuffled[2].agreement == with_labels.models[0].shuffled[2].agreement
    assert without.class_names == NAMES  # the model's
    agreement = [by_share.agreement.value for by_share in without.models[0].occluded["random"].values()]
    assert without.models[0].areas["random"].value == pytest.approx(np.trapezoid(agreement, dx=0.25))


def test_the_area_is_that_under_the_curve() -> None:
    found = measured([opened(VIT)], shares=(0.125, 0.5)).models[0]
    for order, by_share in found.occluded.items():
        shares, accuracies = list(by_share), [one.accuracy.value for one in by_share.values() if one.accuracy]
        assert shares == [0, 0.125, 0.5, 1]
        assert found.areas[order].value == pytest.approx(np.trapezoid(accuracies, shares))


def test_one_image_has_numbers_without_intervals() -> None:
    found = measured([opened(VIT), opened(CNN, "cnn", scale=0.02)], pictures(1))
    assert found.images == 1 and all(model.read_out == {} for model in found.models)
    assert all(row.size.low is None for row in found.effects) and found.effects
    assert "a single image" in " ".join(found.notes)


def test_layers_of_some_images_are_looked_at() -> None:
    loaded = opened(VIT)
    whole, some = (measured([loaded], layer_images=most) for most in (500, 6))
    assert "on 6 of the 14 images" in " ".join(some.notes) and "evenly spaced" not in " ".join(whole.notes)
    assert some.models[0].shifted[1].divergence.value == pytest.approx(whole.models[0].shifted[1].divergence.value)
    chosen = torch.tensor([n * 14 // 6 for n in range(6)])
    by_hand = ReadOut((4, 4))
    assert isinstance(loaded.model, VisionTransformer)
    with torch.no_grad():
        by_hand.add(loaded.model.tokens(inputs()[chosen])[:, 1:].unflatten(1, (4, 4)), torch.arange(6) % 2 == 1)
    assert some.models[0].read_out["images as they are"][0] == pytest.approx(by_hand.r_squared(), abs=1e-6)


def test_models_of_other_sizes_are_shown_the_same_changes() -> None:
    large = opened(replace(VIT, image_size=(12, 12)), "large")
    found = measured([opened(VIT), large], grids=(1, 2, 3))
    assert list(found.models[0].shuffled) == [1, 2] and list(found.models[1].shuffled) == [1, 2, 3]
    assert "do not divide into 3 x 3 tiles" in " ".join(found.notes)
    assert "preprocess images differently" in " ".join(found.notes)
    assert "preprocess images differently" not in " ".join(measured([opened(VIT), opened(BAG)]).notes)
    assert found.models[1].image_size == (12, 12)
    assert list(found.models[1].occluded["rollout"]) == list(found.models[0].occluded["rollout"])


def test_models_of_one_name_are_told_apart() -> None:
    found = measured([opened(VIT), opened(BAG), opened(VIT, "a\x1b[31m")])
    assert [model.name for model in found.models][:2] == ["tiny", "tiny (2)"]
    assert "\x1b" not in found.models[2].name
    assert "tiny (2) has no table of position embeddings, so that none were changed." in found.notes


def test_the_result_is_plain_and_says_where_it_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    found = measured([opened(VIT), opened(CNN, "cnn", scale=0.02)], progress=True)
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["models"][0]["shuffled"]["2"]["agreement"]["value"] == found.models[0].shuffled[2].agreement.value
    assert set(found.provenance["models"]) == {"tiny", "cnn"} and found.provenance["threads"] == 1
    assert found.provenance["forward_passes"] > 14 * 2 * 15
    assert {row.of for row in found.effects} == {"tiny", "cnn", "tiny minus cnn"}
    assert "noise, 2 models" in capsys.readouterr().err


class Headless(nn.Module):
    """Features of a map, without a place for a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * 8 * 8, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(images.flatten(1))
        return logits


def test_what_cannot_be_measured_is_one_clear_line() -> None:
    vit = opened(VIT)
    cases: list[tuple[type[Exception], str, list[LoadedModel], dict[str, Any]]] = [
        (ConfigError, "no model was named", [], {}),
        (ConfigError, "batch_size is 0", [vit], {"batch_size": 0}),
        (ConfigError, "layer_images is 1", [vit], {"layer_images": 1}),
        (ConfigError, "a share of patches is 1", [vit], {"shares": (1,)}),
        (ConfigError, "resamples is 0", [vit], {"resamples": 0}),
        (ConfigError, "a grid is 0", [vit], {"grids": (0,)}),
        (ConfigError, "only 1 x 1 is left", [vit], {"grids": (1,)}),
        (ConfigError, "training mode", [replace(vit, model=VisionTransformer(VIT).train())], {}),
        (InputError, "no image", [vit], {"images": pictures(0)}),
        (InputError, "40.png: is spoilt", [vit], {"images": pictures(41)}),
        (CheckpointError, "answers with the classes", [vit, replace(vit, class_names=("a", "b", "c"))], {}),
        (CheckpointError, "and they differ", [replace(vit, class_names=("a", "b", "c"))], {}),
        (CheckpointError, "has 4 classes", [replace(opened(replace(VIT, classes=4)), class_names=())], {}),
        (CheckpointError, "no classification head", [opened(replace(VIT, classes=0))], {}),
        (CaptureError, "no layer whose map", [replace(vit, model=Headless().eval(), kind="function")], {}),
    ]
    for error, words, models, options in cases:
        with pytest.raises(error, match=words) as caught:
            measured(models, **options)
        assert len(str(caught.value).splitlines()) <= 3


def test_broken_weights_are_named() -> None:
    broken = opened(VIT, "broken")
    with torch.no_grad():
        broken.model.get_parameter("head.bias")[0] = torch.nan
    with pytest.raises(NumericError, match="broken: a logit is NaN"):
        measured([broken])
