from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitreous.arrangement.face_models import LEARNING_RATES, MODELS, Convolutions, make_model, pixels_seen
from vitreous.arrangement.face_places import GAP, KINDS, SIDE, STEP
from vitreous.arrangement.faces import draw_faces, standardised
from vitreous.model.vit import VisionTransformer

CONVOLUTIONS = ("CNN", "CNN without padding", "BagNet")
PATCH = 6


def trained_a_little(name: str) -> nn.Module:
    """A model in eval mode whose weights and running means are no longer the first ones."""
    model = make_model(name, 3).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for step in range(2):
        images, kinds = draw_faces(1, 8 * step, 8, ("right", "swapped"))
        loss = F.binary_cross_entropy_with_logits(model(standardised(images))[:, 0], (kinds == 0).float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def faces(kind: str = "right", count: int = 8) -> Tensor:
    return standardised(draw_faces(2, 0, count, (kind,))[0])


def patches_in_order(images: Tensor, order: Tensor) -> Tensor:
    patches = F.unfold(images, PATCH, stride=PATCH)[:, :, order]
    return F.fold(patches, images.shape[-2:], PATCH, stride=PATCH)


@pytest.mark.parametrize("name", MODELS)
def test_sizes_are_about_equal(name: str) -> None:
    assert 80_000 < sum(parameter.numel() for parameter in make_model(name, 0).parameters()) < 200_000
    assert set(LEARNING_RATES) == set(MODELS)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_feature_depends_on_as_many_pixels_as_the_model_says(name: str) -> None:
    model = trained_a_little(name)
    assert isinstance(model, Convolutions)
    generator = torch.Generator().manual_seed(0)
    reached = torch.zeros(120, 120, dtype=torch.bool)
    for _ in range(4):  # a ReLU stops some paths, not always the same
        images = torch.randn(1, 3, 120, 120, generator=generator, requires_grad=True)
        features = model.features(images)
        features[0, :, features.shape[2] // 2, features.shape[3] // 2].sum().backward()
        assert images.grad is not None
        reached |= images.grad[0].abs().sum(0) > 0
    rows, columns = reached.any(1).nonzero()[:, 0], reached.any(0).nonzero()[:, 0]
    assert int(rows[-1] - rows[0]) + 1 == model.sees
    assert int(columns[-1] - columns[0]) + 1 == model.sees


def test_what_is_said_to_be_seen_is_a_face_or_a_part_of_it() -> None:
    assert [pixels_seen(make_model(name, 0)) for name in MODELS] == [44, 44, 7, SIDE, SIDE]
    assert pixels_seen(make_model("BagNet", 0)) == GAP + 1  # never two parts
    assert pixels_seen(Convolutions(((4, 3, 4), (4, 3, 4), (4, 3, 4)))) == 43
    assert pixels_seen(Convolutions(((4, 3, 4), (4, 3, 4), (4, 3, 4), (4, 3, 4)))) == SIDE


def test_without_padding_a_cnn_is_the_mean_of_what_it_makes_of_each_window_alone() -> None:
    model = trained_a_little("CNN without padding")
    assert isinstance(model, Convolutions)
    images = torch.randn(2, 3, 52, 52, generator=torch.Generator().manual_seed(0))
    side, stride = model.sees, model.stride
    windows = [
        images[:, :, row : row + side, column : column + side]
        for row in range(0, 52 - side + 1, stride)
        for column in range(0, 52 - side + 1, stride)
    ]
    assert len(windows) == 9
    slow = torch.stack([model(window) for window in windows]).mean(0)  # the head is linear: means may change places
    torch.testing.assert_close(model(images), slow, rtol=1e-4, atol=1e-5)


def moved(images: Tensor, by: int) -> Tensor:
    """The image on ground that goes on for longer than any window, `by` pixels further down and to the right."""
    return F.pad(images, (52 + by, 52 - by, 52 + by, 52 - by), mode="replicate")


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_face_moved_by_the_stride_gets_the_same_answer_where_no_border_is_near(name: str) -> None:
    model = trained_a_little(name)
    assert isinstance(model, Convolutions)
    images = faces(count=4)
    still = model(moved(images, 0))
    torch.testing.assert_close(model(moved(images, model.stride)), still, rtol=0, atol=1e-5)
    assert (model(moved(images, 1)) - still).abs().max() > 1e-4  # between two strides windows cut parts elsewhere


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_bagnet_gives_the_same_answer_wherever_the_parts_are(kind: str) -> None:
    model = trained_a_little("BagNet")
    assert isinstance(model, Convolutions)
    assert model.stride == STEP
    torch.testing.assert_close(model(faces(kind)), model(faces()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["CNN", "CNN without padding", "ViT, 1-D positions"])
def test_the_others_can_give_another(name: str) -> None:
    model = trained_a_little(name)
    for kind in KINDS[1:]:
        assert (model(faces(kind)) - model(faces())).abs().max() > 1e-3, kind


def test_without_positions_the_order_of_patches_does_not_matter_and_with_them_it_does() -> None:
    order = torch.randperm((SIDE // PATCH) ** 2, generator=torch.Generator().manual_seed(0))
    images = faces()
    bag, sequence = trained_a_little("ViT, no positions"), trained_a_little("ViT, 1-D positions")
    torch.testing.assert_close(bag(patches_in_order(images, order)), bag(images), rtol=0, atol=1e-5)
    assert (sequence(patches_in_order(images, order)) - sequence(images)).abs().max() > 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_first_weights_depend_on_the_seed_alone(name: str) -> None:
    before = torch.get_rng_state()
    one, same, other = make_model(name, 4), make_model(name, 4), make_model(name, 5)
    assert torch.equal(torch.get_rng_state(), before)
    for key, weight in one.state_dict().items():
        assert torch.equal(weight, same.state_dict()[key])
    assert any(not torch.equal(weight, other.state_dict()[key]) for key, weight in one.state_dict().items())


def test_positions_start_as_large_as_is_said_and_only_one_of_the_two_has_them() -> None:
    model, bag = make_model("ViT, 1-D positions", 0), make_model("ViT, no positions", 0)
    assert isinstance(model, VisionTransformer) and isinstance(bag, VisionTransformer)
    assert model.pos_embed is not None
    assert model.pos_embed.std().item() == pytest.approx(0.5, rel=0.05)
    assert bag.pos_embed is None
