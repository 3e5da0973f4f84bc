from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vitreous.arrangement.answers import Reading
from vitreous.arrangement.bootstrap import Means
from vitreous.arrangement.experiments import GridShuffle, Occlusion, PositionEmbeddings, PositionReadOut, Shown
from vitreous.arrangement.subject import Subject
from vitreous.arrangement.without import find_position_table
from vitreous.checkpoints.loaded import LoadedModel
from vitreous.data.preprocess import Preprocess
from vitreous.errors import ConfigError
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer

VIT = ViTConfig((8, 8), (2, 2), width=16, depth=2, heads=2, classes=3)
HYBRID = ViTConfig((8, 8), (2, 2), stem=(1, 1), stem_width=32, stem_root="small", width=16, depth=1, heads=2, classes=3)


def subject(config: ViTConfig = VIT) -> Subject:
    generator = torch.Generator().manual_seed(0)
    model = VisionTransformer(config, generator=generator).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.3)
    loaded = LoadedModel(model, "tiny", Preprocess((8, 8), "squash", 1.0), (), "vitreous", "")
    return Subject(loaded, "tiny", images(1))


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def shown(model: Subject, *, orders: dict[str, Tensor] | None = None) -> Shown:
    unchanged, maps = model.read_layers(images())
    return Shown(
        images(), torch.arange(4), None, torch.ones(4, 3).double(), unchanged, maps,
        torch.tensor([False, True, False, True]), orders or {},
    )  # fmt: skip


def test_a_subject_tells_what_was_found_in_the_model() -> None:
    vit, hybrid = subject(), subject(HYBRID)
    assert vit.attends and vit.table is not None and vit.classes == 3 and vit.notes == []
    assert vit.parameters == sum(weight.numel() for weight in vit.loaded.model.parameters())
    assert vit.given(images()).is_contiguous()
    assert hybrid.given(images()).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(vit.read(images()).logits, vit.read_layers(images())[0].logits) and vit.passes == 8


def test_the_rollout_comes_with_the_answers() -> None:
    from vitreous.capture.watch import watch_attention
    from vitreous.measures.rollout import attention_rollout

    vit = subject()
    reading, order, grid = vit.attended(vit.read, images())
    with torch.no_grad(), watch_attention(vit.loaded.model) as watched:
        vit.loaded.model(images())
    rollout = attention_rollout(watched.layers, watched.layout)[:, 1:]  # the class token is no patch
    assert torch.equal(order, rollout.argsort(1, descending=True)) and grid == (4, 4)
    assert torch.equal(reading.logits, vit.read(images()).logits)


def test_several_changes_are_averaged_image_by_image() -> None:
    means, model = Means(), subject()
    batch = shown(model)
    others = [Reading(batch.unchanged.logits * factor, batch.unchanged.features * factor) for factor in (0.0, -1.0)]
    batch.count(means, *others)
    assert means.images == 4 and means.measure(3).value == pytest.approx(-0.5)  # cosines of 0 and -1


def test_what_a_model_loses_depends_on_its_kind() -> None:
    assert PositionReadOut(subject(), 0).without == "no positions"
    assert PositionReadOut(subject(HYBRID), 0).without == "no positions, no zero padding"


def test_the_read_out_leaves_the_model_as_it_was() -> None:
    model = subject()
    before = model.read(images()).logits
    read_out = PositionReadOut(model, 0)
    read_out.add(shown(model))
    assert torch.equal(model.read(images()).logits, before)
    assert all(len(errors) == 3 for errors in read_out.result().values())


def test_a_model_without_a_table_is_not_asked_for_positions() -> None:
    bag = subject(ViTConfig(**{**VIT.__dict__, "positions": "none", "class_token": False, "pooling": "mean"}))
    positions = PositionEmbeddings(bag, 0, None)
    positions.add(shown(bag))
    assert positions.answers == {} and PositionReadOut(bag, 0).without == ""


def test_positions_of_another_width_are_refused() -> None:
    wide = VisionTransformer(ViTConfig(**{**VIT.__dict__, "width": 32})).eval()
    with pytest.raises(ConfigError, match="32 numbers a patch"):
        PositionEmbeddings(subject(), 0, find_position_table(wide, images(1)))


def test_passes_are_made_only_where_something_changes() -> None:
    model = subject()
    batch = shown(model, orders={"random": torch.arange(16).expand(4, -1)})
    before = model.passes
    GridShuffle(model, (1, 2), 0).add(batch)
    assert model.passes - before == 4  # none for one tile
    occlusion = Occlusion(model, (4, 4), (4, 8))
    occlusion.add(batch)
    assert model.passes - before == 4 + 1 + 8  # one image with everything hidden, none with nothing
    occlusion.add(batch)
    assert model.passes - before == 4 + 1 + 16 and list(occlusion.answers["random"]) == [0, 4, 8, 16]
