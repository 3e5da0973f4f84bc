"""Linear probe: logistic regression from frozen features to classes, a layer at a time.

Least squares are what few-shot evaluation has; this one is logistic regression, as in most published linear probes
(CLIP's by L-BFGS, MAE's and DINO's by SGD). With its squared weights penalised it has one best solution, which L-BFGS
finds without a learning rate, a number of epochs or a seed: a probe is then a property of the features alone. Features
are whitened first (mean 0, deviation 1), so that one penalty fits all layers. With features x, labels y, N images,

    minimise  -1/N sum log softmax(x W + b)[y] + l2 / 2 |W|^2,

the penalty being tried out: a tenth of the training images is held out, the best of five penalties by them is taken
(the largest of those that are equal), and all training images are then learned with it. The test part chooses nothing.

Source: Radford et al. 2021, arXiv 2103.00020, appendix A.3, for L-BFGS and the search; scikit-learn's
`LogisticRegression(C=1 / (l2 * N))` finds the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vitreous.data.order import epoch_order
from vitreous.errors import ConfigError, InputError, NumericError
from vitreous.training.features import Features
from vitreous.training.few_shot import LinearReadOut

PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""Weights of the squared weights that are tried, the largest first."""

_HELD_OUT = 10  # one of so many training images chooses the penalty
_ROUNDS = 1000  # of L-BFGS, at most
_MEMORY = 20  # steps that L-BFGS remembers
_SLOPE = 1e-4  # largest entry of the gradient at which it is done, as in scikit-learn
_ROWS = 8192  # images whose logits are in memory at once
_EXACT = 2**30  # bytes of float64 features; larger ones are taken as float32
_STD_FLOOR = 1e-5


@dataclass(frozen=True)
class LinearProbe:
    """How well classes are read from each layer by logistic regression.

    Attributes:
        layers: names, first layer first.
        accuracy: (layers,) float64, shares of the test images that are right, in [0, 1].
        learned: (layers,) float64, the same of the training images.
        penalties: of each layer the weight of the squared weights.
        notes: always empty; few shots and few neighbours have some.
    """

    layers: tuple[str, ...]
    accuracy: Tensor
    learned: Tensor
    penalties: tuple[float, ...]
    notes: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """How the classes were read."""
        return "logistic regression"

    @property
    def lines(self) -> dict[str, Tensor]:
        """(layers,) by what they are of: a column of a table, a line of a figure."""
        return {"test images": self.accuracy, "training images": self.learned}

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "how": "linear",
            "accuracy": dict(zip(self.layers, self.accuracy.tolist(), strict=True)),
            "train_accuracy": dict(zip(self.layers, self.learned.tolist(), strict=True)),
            "l2": dict(zip(self.layers, self.penalties, strict=True)),
        }


def linear_probe(
    learned: Features,
    tested: Features,
    classes: int,
    *,
    penalties: Sequence[float] = PENALTIES,
    advance: Callable[[int, str], None] = lambda layers, note: None,
) -> LinearProbe:
    """Accuracy of every layer.

    Args:
        learned: of training images.
        tested: of other images, from the same layers.
        classes: how many there are.
        penalties: to choose from; a single one is taken as it is.
        advance: called with 1 and the layer's name after each layer.

    Raises:
        ConfigError: if there is no penalty, or one is not above 0.
        InputError: if fewer than two training images are there to choose a penalty with.
        NumericError: if a feature is NaN or infinite.
    """
    if not penalties or not min(penalties) > 0:
        raise ConfigError(f"penalties is {tuple(penalties)!r}; give at least one, each above 0")
    accuracy, right, chosen = [], [], []
    for layer, values, test_values in zip(learned.layers, learned.values, tested.values, strict=True):
        l2 = _best_penalty(values, learned.labels, classes, penalties)
        read_out = fit_logistic(values, learned.labels, classes, l2=l2)
        accuracy.append(read_out.accuracy(test_values, tested.labels))
        right.append(read_out.accuracy(values, learned.labels))
        chosen.append(l2)
        advance(1, layer)
    return LinearProbe(
        learned.layers,
        torch.tensor(accuracy, dtype=torch.float64),
        torch.tensor(right, dtype=torch.float64),
        tuple(chosen),
    )


def fit_logistic(
    features: Tensor, labels: Tensor, classes: int, *, l2: float, start: LinearReadOut | None = None
) -> LinearReadOut:
    """The one best solution of the head of this file, to a gradient of 1e-4; in float64, of large sets in float32.

    Args:
        features: (images, width).
        labels: (images,) int64.
        classes: how many there are.
        l2: weight of the squared weights of whitened features, above 0.
        start: a solution nearby, to be quicker from.

    Raises:
        NumericError: if a feature is NaN or infinite.
    """
    if not features.isfinite().all():
        raise NumericError("a feature is NaN or infinite; the model's weights are broken")
    mean, deviation = _statistics(features)
    inputs = _whitened(features, mean, deviation)  # (images, width + 1), the last column 1
    weights = torch.zeros(features.shape[1] + 1, classes, dtype=torch.float64)  # the last row is the bias
    if start is not None:
        weights[:-1] = start.weights * deviation[:, None]
        weights[-1] = start.bias + mean @ start.weights
    penalty = torch.full((len(weights), 1), l2, dtype=torch.float64)
    penalty[-1] = 0
    weights.grad = torch.zeros_like(weights)
    search = torch.optim.LBFGS(
        [weights],
        max_iter=_ROUNDS,
        history_size=_MEMORY,
        tolerance_grad=_SLOPE,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def loss_and_slope() -> float:
        loss = (penalty * weights * weights).sum().item() / 2
        slope = penalty * weights
        for part, truth in zip(inputs.split(_ROWS), labels.split(_ROWS), strict=True):
            shares = (part @ weights.to(part)).log_softmax(1)  # (images, classes)
            loss -= shares.gather(1, truth[:, None]).double().sum().item() / len(features)
            wrong = shares.exp()
            wrong.scatter_add_(1, truth[:, None], wrong.new_full((len(truth), 1), -1.0))
            slope += part.T @ wrong / len(features)
        assert weights.grad is not None
        weights.grad.copy_(slope)
        return loss

    search.step(loss_and_slope)
    scaled = weights[:-1] / deviation[:, None]
    return LinearReadOut(scaled, weights[-1] - mean @ scaled)


def _best_penalty(features: Tensor, labels: Tensor, classes: int, penalties: Sequence[float]) -> float:
    """The one that does best on a tenth of the images that the others were learned without."""
    if len(penalties) == 1:
        return penalties[0]
    if len(labels) < 2:
        raise InputError(f"there is {len(labels)} training image; a linear probe needs at least 2")
    order = epoch_order(len(labels), seed=0, epoch=0)
    held_out, others = order.tensor_split([max(1, len(order) // _HELD_OUT)])
    best, best_accuracy = penalties[0], -1.0
    start = None
    for l2 in penalties:
        start = fit_logistic(features[others], labels[others], classes, l2=l2, start=start)
        accuracy = start.accuracy(features[held_out], labels[held_out])
        if accuracy > best_accuracy:
            best, best_accuracy = l2, accuracy
    return best


def _whitened(features: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """(images, width) -> (images, width + 1): mean 0, deviation 1, and behind them 1 for the bias."""
    size = (len(features), features.shape[1] + 1)
    exact = 8 * size[0] * size[1] <= _EXACT
    inputs = torch.ones(size, dtype=torch.float64 if exact else torch.float32)
    for part, filled in zip(features.split(_ROWS), inputs.split(_ROWS), strict=True):
        filled[:, :-1] = (part.double() - mean) / deviation
    return inputs


def _statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each feature, float64: (width,) and (width,)."""
    mean = torch.stack([part.double().sum(0) for part in features.split(_ROWS)]).sum(0) / len(features)
    squares = torch.stack([(part.double() - mean).square().sum(0) for part in features.split(_ROWS)]).sum(0)
    return mean, (squares / len(features)).sqrt() + _STD_FLOOR
