from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from vitreous.errors import ConfigError, InputError, NumericError
from vitreous.training.features import Features
from vitreous.training.few_shot import few_shot, few_shot_order, few_shot_samples, fit_few_shot


def clouds(images: int, width: int, classes: int, seed: int, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """Features around a centre for each class, in units and with means of their own: (images, width) and (images,)."""
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % classes
    noise = torch.randn(images, width, generator=generator)
    scales = torch.linspace(0.1, 5, width)
    return (centres[labels] + spread * noise) * scales + 3, labels


def features(values: Tensor, labels: Tensor) -> Features:
    return Features(("a", "b"), (values, values.flip(0) * 2), labels, torch.arange(len(labels)))


def dense(inputs: Tensor, labels: Tensor, classes: int, asked: Tensor, l2: float) -> np.ndarray:
    """The scores of `asked`, by solving the normal equations as they are written, in numpy's float64."""
    known, wanted = inputs.double().numpy(), asked.double().numpy()
    mean, deviation = known.mean(0), known.std(0) + 1e-5
    known = np.hstack([(known - mean) / deviation, np.full((len(known), 1), 100.0)])
    wanted = np.hstack([(wanted - mean) / deviation, np.full((len(wanted), 1), 100.0)])
    targets = np.full((len(known), classes), -1.0)
    targets[np.arange(len(known)), labels.numpy()] = 1.0
    weights = np.linalg.solve(known.T @ known + l2 * np.eye(known.shape[1]), known.T @ targets)
    return wanted @ weights


@pytest.mark.parametrize(("images", "width"), [(8, 30), (60, 12), (13, 12), (12, 12)])
def test_scores_equal_a_dense_solve_whichever_matrix_is_smaller(images: int, width: int) -> None:
    values, labels = clouds(images, width, 4, seed=0)
    asked, _ = clouds(50, width, 4, seed=1)
    read_out = fit_few_shot(values, labels, 4)
    scores = (asked.double() @ read_out.weights + read_out.bias).numpy()
    expected = dense(values, labels, 4, asked, 2.0**10)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-10)
    assert read_out.predict(asked).tolist() == expected.argmax(1).tolist()


def test_a_feature_that_never_changes_counts_for_nothing() -> None:
    values, labels = clouds(20, 6, 2, seed=0)
    still = torch.cat([values, torch.full((20, 1), 7.0)], dim=1)
    read_out = fit_few_shot(still, labels, 2)
    np.testing.assert_allclose(read_out.weights[:6], fit_few_shot(values, labels, 2).weights, atol=1e-12)
    assert read_out.weights[6].abs().max() < 1e-9


def test_images_are_drawn_as_big_vision_draws_them() -> None:
    labels = torch.tensor([0, 1, 0, 2, 1, 0, 2, 2, 1, 0])
    for seed in range(3):
        generator = np.random.default_rng(seed)
        expected = [generator.permutation(np.where(labels.numpy() == n)[0]).tolist() for n in range(3)]
        assert [of_class.tolist() for of_class in few_shot_order(labels, 3, seed)] == expected
    drawn = {n for seed in range(3) for of_class in few_shot_order(labels, 3, seed) for n in of_class[:2].tolist()}
    assert few_shot_samples(labels, 3, shots=(1, 2), seeds=3).tolist() == sorted(drawn)


def test_accuracy_equals_a_slow_loop_over_layers_shots_and_draws() -> None:
    values, labels = clouds(60, 10, 4, seed=0, spread=2)
    asked, truth = clouds(40, 10, 4, seed=1, spread=2)
    learned, tested = features(values, labels), features(asked, truth)
    found = few_shot(learned, tested, labels, 4, shots=(1, 5), seeds=2, l2=10.0)
    assert found.accuracy.shape == (2, 2, 2)
    for seed in range(2):
        order = few_shot_order(labels, 4, seed)
        for column, shots in enumerate((1, 5)):
            chosen = torch.cat([of_class[:shots] for of_class in order])
            for layer in range(2):
                scores = dense(learned.values[layer][chosen], labels[chosen], 4, tested.values[layer], 10.0)
                right = (scores.argmax(1) == truth.numpy()).mean()
                assert found.accuracy[layer, column, seed].item() == right
    assert found.accuracy[:, 1].mean() > 0.5 and not torch.equal(found.accuracy[0], found.accuracy[1])


def test_features_of_the_images_drawn_are_enough() -> None:
    values, labels = clouds(200, 6, 4, seed=0)
    asked, truth = clouds(40, 6, 4, seed=1)
    samples = few_shot_samples(labels, 4, shots=(1, 2), seeds=2)
    assert len(samples) < 20
    some = Features(("a",), (values[samples],), labels[samples], samples)
    whole = Features(("a",), (values,), labels, torch.arange(200))
    tested = Features(("a",), (asked,), truth, torch.arange(40))
    options = {"shots": (1, 2), "seeds": 2}
    few, all_of_them = (few_shot(learned, tested, labels, 4, **options) for learned in (some, whole))
    assert torch.equal(few.accuracy, all_of_them.accuracy)
    with pytest.raises(ConfigError, match=r"the features of image \d+ are asked for"):
        few_shot(some, tested, labels, 4, shots=(3,), seeds=2)


def test_shots_that_there_are_no_images_for_are_left_out_and_named() -> None:
    values, _ = clouds(9, 5, 3, seed=0)
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 2])
    found = few_shot(features(values, labels), features(values, labels), labels, 3, shots=(1, 2, 5, 6), seeds=1)
    assert found.shots == (1, 2, 5)
    assert found.notes == (
        "6 shots are left out: no class has so many training images",
        "2 shots: the smallest class has only 1 to draw from",
        "5 shots: the smallest class has only 1 to draw from",
    )


def test_results_become_plain_data() -> None:
    values, labels = clouds(40, 5, 2, seed=0, spread=0.1)
    found = few_shot(features(values, labels), features(values, labels), labels, 2, shots=(1, 5), seeds=3)
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["shots"] == [1, 5]
    assert plain["accuracy"]["a"] == {"1": [1.0, 1.0, 1.0], "5": [1.0, 1.0, 1.0]}


def test_what_cannot_be_is_refused() -> None:
    values, labels = clouds(8, 3, 2, seed=0)
    both = features(values, labels)
    with pytest.raises(InputError, match="class 2 has no training image"):
        few_shot(both, both, labels, 3)
    with pytest.raises(ConfigError, match="seeds"):
        few_shot(both, both, labels, 2, seeds=0)
    with pytest.raises(ConfigError, match="shots"):
        few_shot(both, both, labels, 2, shots=(0,))
    with pytest.raises(ConfigError, match="l2 is 0"):
        fit_few_shot(values, labels, 2, l2=0)
    values[3, 1] = torch.nan
    with pytest.raises(NumericError, match="NaN"):
        fit_few_shot(values, labels, 2)
