from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from vitreous.data.order import epoch_order
from vitreous.errors import ConfigError, InputError, NumericError
from vitreous.training import linear_probe as module
from vitreous.training.features import Features
from vitreous.training.linear_probe import fit_logistic, linear_probe


def clouds(images: int, width: int, classes: int, seed: int, spread: float = 2.0) -> tuple[Tensor, Tensor]:
    """Features around a centre for each class, in units of their own: (images, width) and (images,)."""
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (images,), generator=generator)
    noise = torch.randn(images, width, generator=generator)
    return (centres[labels] + spread * noise) * torch.linspace(0.1, 5, width) + 3, labels


@pytest.mark.parametrize("l2", [1e-1, 1e-3])
def test_weights_equal_scikit_learns(l2: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS", 64)  # several parts
    monkeypatch.setattr(module, "_SLOPE", 1e-9)
    values, labels = clouds(300, 8, 4, seed=0)
    found = fit_logistic(values, labels, 4, l2=l2)
    known = values.double().numpy()
    mean, deviation = known.mean(0), known.std(0) + 1e-5
    theirs = LogisticRegression(C=1 / (l2 * 300), tol=1e-10, max_iter=5000)
    theirs.fit((known - mean) / deviation, labels.numpy())
    weights = found.weights.numpy() * deviation[:, None]
    np.testing.assert_allclose(weights, theirs.coef_.T, atol=2e-6)
    bias = found.bias.numpy() + mean @ found.weights.numpy()
    np.testing.assert_allclose(bias - bias.mean(), theirs.intercept_ - theirs.intercept_.mean(), atol=2e-6)


def test_large_sets_are_solved_in_float32_to_nearly_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    values, labels = clouds(300, 8, 4, seed=0)
    exact = fit_logistic(values, labels, 4, l2=0.01)
    monkeypatch.setattr(module, "_EXACT", 0)
    rounded = fit_logistic(values, labels, 4, l2=0.01)
    assert not torch.equal(rounded.weights, exact.weights)
    torch.testing.assert_close(rounded.weights, exact.weights, atol=1e-3, rtol=1e-3)


def test_no_weights_have_a_smaller_loss() -> None:
    values, labels = clouds(80, 3, 3, seed=0)
    known = values.double().numpy()
    known = (known - known.mean(0)) / (known.std(0) + 1e-5)

    def loss(flat: np.ndarray) -> float:
        weights, bias = flat[:9].reshape(3, 3), flat[9:]
        shares = log_softmax(known @ weights + bias, axis=1)
        return -shares[np.arange(80), labels.numpy()].mean() + 0.01 / 2 * (weights**2).sum()

    found = fit_logistic(values, labels, 3, l2=0.01)
    deviation = values.double().std(0, correction=0) + 1e-5
    ours = np.concatenate(
        [(found.weights * deviation[:, None]).flatten(), found.bias + values.double().mean(0) @ found.weights]
    )
    assert loss(ours) <= minimize(loss, np.zeros(12), method="BFGS").fun + 1e-9


def test_a_start_changes_the_way_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SLOPE", 1e-8)
    values, labels = clouds(120, 5, 3, seed=0)
    near = fit_logistic(values, labels, 3, l2=0.1)
    torch.testing.assert_close(
        fit_logistic(values, labels, 3, l2=0.01, start=near).weights,
        fit_logistic(values, labels, 3, l2=0.01).weights,
        atol=1e-4,
        rtol=1e-4,
    )


def test_the_penalty_is_chosen_by_held_out_training_images() -> None:
    values, labels = clouds(200, 40, 3, seed=0, spread=6)
    asked, truth = clouds(100, 40, 3, seed=1, spread=6)
    learned = Features(("a",), (values,), labels, torch.arange(200))
    tested = Features(("a",), (asked,), truth, torch.arange(100))
    steps: list[str] = []
    found = linear_probe(learned, tested, 3, advance=lambda layers, note: steps.append(note))
    order = epoch_order(200, seed=0, epoch=0)
    held_out, others = order[:20], order[20:]
    accuracies = {
        l2: fit_logistic(values[others], labels[others], 3, l2=l2).accuracy(values[held_out], labels[held_out])
        for l2 in module.PENALTIES
    }
    best = max(l2 for l2, accuracy in accuracies.items() if accuracy == max(accuracies.values()))
    assert len(set(accuracies.values())) > 1 and found.penalties == (best,)
    chosen = fit_logistic(values, labels, 3, l2=best)
    assert found.accuracy.tolist() == [chosen.accuracy(asked, truth)]
    assert found.learned.tolist() == [chosen.accuracy(values, labels)]
    assert steps == ["a"]
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["accuracy"] == {"a": found.accuracy.item()} and plain["l2"] == {"a": best}


def test_of_penalties_that_do_as_well_the_largest_is_taken() -> None:
    values, labels = clouds(60, 4, 3, seed=0, spread=0.1)
    both = Features(("a",), (values,), labels, torch.arange(60))
    found = linear_probe(both, both, 3, penalties=(0.1, 0.01, 0.001))
    assert found.accuracy.item() == 1.0 and found.penalties == (0.1,)


def test_what_cannot_be_is_refused() -> None:
    values, labels = clouds(10, 3, 2, seed=0)
    learned = Features(("a",), (values,), labels, torch.arange(10))
    with pytest.raises(ConfigError, match="penalties"):
        linear_probe(learned, learned, 2, penalties=())
    with pytest.raises(ConfigError, match="above 0"):
        linear_probe(learned, learned, 2, penalties=(0.1, 0.0))
    one = Features(("a",), (values[:1],), labels[:1], torch.arange(1))
    with pytest.raises(InputError, match="at least 2"):
        linear_probe(one, learned, 2)
    values[3, 1] = torch.inf
    with pytest.raises(NumericError, match="NaN or infinite"):
        linear_probe(learned, learned, 2)
