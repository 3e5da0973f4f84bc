from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import scipy.special
import torch
from torch import Tensor, nn

from vitreous.arrangement.answers import Reader, Reading, compare, summarised
from vitreous.arrangement.bootstrap import Means, Weights
from vitreous.arrangement.layers import SpatialLayers
from vitreous.errors import CheckpointError, NumericError, ShapeError
from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer
from vitreous.training.features import _ReadOut

CONFIG = ViTConfig((8, 8), (4, 4), width=16, depth=2, heads=2, classes=5)


def drawn(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.1)
    return model.eval()


def images(count: int = 3, side: int = 8) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "config",
    [CONFIG, replace(CONFIG, pooling="mean"), replace(CONFIG, hidden_head=True), replace(CONFIG, pooling="map")],
)
def test_the_vector_is_what_the_head_reads(config: ViTConfig) -> None:
    model = drawn(VisionTransformer(config))
    assert isinstance(model, VisionTransformer)
    reader = Reader(model, images(), "tiny")
    found = reader.read(images())
    with torch.no_grad():
        torch.testing.assert_close(found.features, _ReadOut(model)(images()), atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(found.logits, model(images()))
    assert reader.reads_head and reader.classes == 5
    assert not any(module._forward_hooks for module in model.modules())


def test_a_distilled_model_has_the_vectors_of_both_heads() -> None:
    model = drawn(VisionTransformer(replace(CONFIG, distillation=True)))
    assert isinstance(model, VisionTransformer)
    found = Reader(model, images(), "tiny").read(images())
    with torch.no_grad():
        both = model.read_out(model.forward_features(images()))
    torch.testing.assert_close(found.features, both.flatten(1))


def test_timms_and_torchvisions_heads_are_found() -> None:
    import timm
    import torchvision

    vit = drawn(timm.create_model("test_vit", num_classes=7, img_size=32))
    found = Reader(vit, images(1, 32), "timm").read(images(2, 32))
    with torch.no_grad():
        expected = vit.forward_head(vit.forward_features(images(2, 32)), pre_logits=True)
    torch.testing.assert_close(found.features, expected)
    resnet = torchvision.models.resnet18(num_classes=4).eval()
    found = Reader(resnet, images(1, 32), "resnet").read(images(2, 32))
    with torch.no_grad():
        torch.testing.assert_close(resnet.fc(found.features), found.logits)


def test_layers_and_answers_come_from_one_pass() -> None:
    model = drawn(VisionTransformer(CONFIG))
    reader, layers = Reader(model, images(), "tiny"), SpatialLayers(model, images())
    reading, maps = reader.read_layers(layers, images())
    alone = reader.read(images())
    assert torch.equal(reading.logits, alone.logits) and torch.equal(reading.features, alone.features)
    assert maps.keys() == layers.read(images())[1].keys()


class Pooled(nn.Module):
    """A classifier whose last layer is no linear one."""

    def __init__(self, output: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.output = output

    def forward(self, images: Tensor) -> object:
        logits = self.conv(images).mean((2, 3))
        return {"object": SimpleNamespace(logits=logits), "tensor": logits, "nan": logits * torch.nan, "none": None}[
            self.output
        ]


def test_without_a_head_the_logits_stand_for_the_vector() -> None:
    model = Pooled("tensor").eval()
    reader = Reader(model, images(), "pooled")
    found = reader.read(images())
    assert not reader.reads_head and torch.equal(found.features, found.logits)


def test_logits_in_an_output_object_are_found() -> None:
    torch.manual_seed(0)
    model = Pooled("object").eval()
    assert Reader(model, images(), "object").read(images()).logits.shape == (3, 4)


def test_what_is_no_classifier_is_refused() -> None:
    with pytest.raises(CheckpointError, match="tiny has no classification head"):
        Reader(VisionTransformer(replace(CONFIG, classes=0)).eval(), images(), "tiny")
    with pytest.raises(CheckpointError, match="pooled has no classification head"):
        Reader(Pooled("none").eval(), images(), "pooled")
    with pytest.raises(NumericError, match="pooled: a logit is NaN"):
        Reader(Pooled("nan").eval(), images(), "pooled")
    with pytest.raises(ShapeError, match="does not divide into patches"):
        Reader(VisionTransformer(CONFIG).eval(), images(1, 9), "tiny")


def random_reading(seed: int, images: int = 6) -> Reading:
    generator = torch.Generator().manual_seed(seed)
    return Reading(2 * torch.randn(images, 4, generator=generator), torch.randn(images, 5, generator=generator))


def test_answers_are_compared_as_scipy_does_and_a_slow_loop() -> None:
    one, other, labels = random_reading(0), random_reading(1), torch.tensor([0, 1, 2, 3, 0, 1])
    found = compare(one, other, labels)
    before, after = (scipy.special.softmax(reading.logits.double().numpy(), axis=1) for reading in (one, other))
    for image in range(6):
        assert found[image, 0] == float(other.logits[image].argmax() == labels[image])
        assert found[image, 1] == float(other.logits[image].argmax() == one.logits[image].argmax())
        divergence = scipy.special.rel_entr(before[image], after[image]).sum()
        assert found[image, 2].item() == pytest.approx(divergence, rel=1e-12)
        first, second = one.features[image].double(), other.features[image].double()
        cosine = (first @ second / (first.norm() * second.norm())).item()
        assert found[image, 3].item() == pytest.approx(cosine, abs=1e-12)
    assert 0 < found[:, 0].sum() < 6 and 0 < found[:, 1].sum() < 6  # so that both answers were seen


def test_equal_answers_agree_and_do_not_diverge() -> None:
    one = random_reading(0)
    found = compare(one, one, None)
    assert found[:, 0].isnan().all()
    assert found[:, 1].eq(1).all() and found[:, 2].eq(0).all()
    torch.testing.assert_close(found[:, 3], torch.ones(6).double())


def test_vectors_of_nothing_are_equal_to_each_other_alone() -> None:
    nothing, something = Reading(torch.zeros(1, 2), torch.zeros(1, 3)), Reading(torch.zeros(1, 2), torch.ones(1, 3))
    assert compare(nothing, nothing, None)[0, 3] == 1 and compare(nothing, something, None)[0, 3] == 0


def test_a_summary_has_no_accuracy_without_labels() -> None:
    for labels, share in ((None, None), (random_reading(1).logits.argmax(1), 1.0)):
        means = Means()
        means.add(compare(random_reading(0), random_reading(1), labels), Weights(0, 20).of(torch.arange(6)))
        found = summarised(means)
        assert (found.accuracy and found.accuracy.value) == share
        assert found.agreement.low is not None and found.divergence.value > 0
