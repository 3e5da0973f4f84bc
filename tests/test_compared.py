import math

import pytest
import torch

from vitreous.compared import Compared, compare
from vitreous.errors import ConfigError
from vitreous.inspection import Inspection
from vitreous.tokens import TokenLayout


def make(model, *, rows=2, columns=2, patch=3, prefix=1, layers=2, names=("a", "b"), source=None):
    """Two heads whose numbers are 1 and 3 in every layer; image n of the shown has a rollout of n."""
    heads = torch.tensor([[1.0, 3.0]]).repeat(layers, 1)
    layout = TokenLayout(prefix, rows, columns, patch, patch, class_token=0 if prefix else None)
    shown = torch.arange(len(names))[:, None, None]
    values = dict.fromkeys(("attention_distance", "attention_entropy", "prefix_mass"), heads)
    others = {f"{name}_{kind}": heads for name in values for kind in ("spread", "histogram")}
    return Inspection(
        layout=layout,
        images=len(names),
        **values,
        **others,
        attention_distance_renormalized=heads,
        rollout_mean=torch.ones(rows, columns),
        rollout=shown.expand(-1, rows, columns).float(),
        class_attention=torch.ones(len(names), layers, 2, rows, columns),
        thumbnails=shown[..., None].expand(-1, layout.image_height, layout.image_width, 3).to(torch.uint8),
        image_names=tuple(names),
        provenance={"model": model, "source": source or f"somewhere/{model}"},
    )


def test_models_of_one_image_size_are_measured_in_pixels_and_bits():
    compared = compare([make("a"), make("b")])
    distance, entropy = compared.distance(), compared.entropy()
    assert distance.words == "mean attention distance (pixels)"
    assert distance.values["b"].tolist() == [[1, 3], [1, 3]]
    assert distance.uniform["a"] == pytest.approx((0 + 3 + 3 + math.hypot(3, 3)) / 4)
    assert entropy.uniform["a"] == pytest.approx(math.log2(5))
    assert distance.written(1.25) == "1.2 px" and distance.change(-0.001) == "+0.00 px"
    assert compared.caveats() == []


def test_models_of_different_sizes_are_measured_in_diagonals_and_shares_of_the_highest_entropy():
    compared = compare([make("a"), make("b", rows=4, columns=3)])
    assert compared.distance().values["b"][0].tolist() == pytest.approx([1 / 15, 3 / 15])  # 12 x 9 pixels
    assert compared.distance().uniform["a"] == pytest.approx((6 + math.hypot(3, 3)) / 4 / math.hypot(6, 6))
    assert compared.entropy().values["b"][0].tolist() == pytest.approx([1 / math.log2(13), 3 / math.log2(13)])
    assert compared.entropy().uniform == pytest.approx({"a": 1, "b": 1})
    assert "diagonals" in compared.distance().words
    assert compared.distance().top == pytest.approx(1.08 * 3 / math.hypot(6, 6))  # the largest of all values


def test_the_same_pixels_in_another_grid_stay_pixels():
    compared = compare([make("a"), make("b", rows=1, columns=1, patch=6)])
    assert compared.is_same_size
    assert compared.distance().unit == "pixels"
    assert any("the grids differ" in caveat.lower() for caveat in compared.caveats())


def test_models_without_prefix_tokens_have_no_prefix_mass():
    mass = compare([make("a"), make("b", prefix=0)]).prefix_mass()
    assert list(mass.values) == ["a"]
    assert mass.uniform == {"a": 0.2}


def test_shown_images_are_those_in_common_each_with_its_own_rollout():
    compared = compare([make("a", names=("x", "y", "z")), make("b", names=("z", "w", "y"))])
    assert compared.images == ("y", "z")
    rollouts = {name: rollouts[:, 0, 0].tolist() for name, (_, rollouts) in compared.shown().items()}
    assert rollouts == {"a": [1, 2], "b": [2, 0]}
    thumbnails = {name: thumbnails[:, 0, 0, 0].tolist() for name, (thumbnails, _) in compared.shown().items()}
    assert thumbnails == rollouts


def test_names_are_made_different_by_their_source_or_a_number():
    twice = compare([make("m", source="run-1/m"), make("m", source="run-2/m")])
    assert list(twice.inspections) == ["run-1/m", "run-2/m"]
    same = compare([make("m"), make("m"), make("m")])
    assert list(same.inspections) == ["somewhere/m", "somewhere/m (2)", "somewhere/m (3)"]


def test_a_made_up_name_is_not_one_that_a_model_has():
    names = compare([make("m (2)", source="s"), make("m", source="s"), make("m", source="s (2)")]).inspections
    assert len(names) == 3


def test_checkpoints_of_one_run_are_sorted_by_epoch():
    compared = compare([make("epoch-0010"), make("epoch-0002"), make("epoch-0000")])
    assert compared.epochs == (0, 2, 10)
    assert list(compared.inspections) == ["epoch 0", "epoch 2", "epoch 10"]
    assert compared.inspections["epoch 2"].provenance["model"] == "epoch-0002"


@pytest.mark.parametrize(
    "other",
    [
        make("final"),
        make("epoch-0000"),
        make("epoch-0001", layers=3),
        make("epoch-0001", prefix=2),
        make("epoch-0001", source="elsewhere/epoch-0001"),
    ],
)
def test_anything_else_is_no_run(other):
    assert compare([make("epoch-0000"), other]).epochs == ()


def test_chosen_checkpoints_are_evenly_spaced_with_the_first_and_the_last():
    compared = compare([make(f"epoch-{epoch:04d}") for epoch in range(0, 100, 5)])
    few = compared.chosen(4)
    assert few.epochs == (0, 30, 65, 95)
    assert list(few.inspections) == ["epoch 0", "epoch 30", "epoch 65", "epoch 95"]
    assert compared.chosen(20) is compared


def test_other_numbers_of_models_are_refused():
    for inspections in ([], [make("a")]):
        with pytest.raises(ConfigError, match="at least 2 models"):
            compare(inspections)
    with pytest.raises(ConfigError, match="13 models are too many"):
        compare([make(str(index)) for index in range(13)])
    assert isinstance(compare([make(str(index)) for index in range(12)]), Compared)
