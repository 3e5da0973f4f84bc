from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from vitreous.errors import ConfigError
from vitreous.training import neighbours as module
from vitreous.training.features import Features
from vitreous.training.neighbours import nearest_neighbours, possible_neighbours, vote

GENERATOR = torch.Generator().manual_seed(0)
KNOWN = torch.randn(70, 6, generator=GENERATOR)
LABELS = torch.randint(0, 4, (70,), generator=GENERATOR)
ASKED = torch.randn(45, 6, generator=GENERATOR)


def slow_vote(k: int, *, weighted: bool) -> list[int]:
    """Every cosine by itself, the k largest, one vote after the other."""
    answers = []
    for asked in ASKED.double().tolist():
        likeness = []
        for known, label in zip(KNOWN.double().tolist(), LABELS.tolist(), strict=True):
            product = sum(a * b for a, b in zip(asked, known, strict=True))
            likeness.append((product / math.hypot(*asked) / math.hypot(*known), label))
        votes = [0.0] * 4
        for cosine, label in sorted(likeness, reverse=True)[:k]:
            votes[label] += math.exp(cosine / 0.07) if weighted else 1
        answers.append(votes.index(max(votes)))
    return answers


@pytest.mark.parametrize("k", [1, 5, 20, 70])
def test_votes_equal_a_slow_loop(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS", 16)  # several parts
    weighted, plain = vote(KNOWN, LABELS, ASKED, 4, neighbours=(k,))[:, 0].tolist()
    assert weighted == slow_vote(k, weighted=True)
    assert plain == slow_vote(k, weighted=False)


def test_votes_equal_scikit_learns() -> None:
    def dinos(distances: np.ndarray) -> np.ndarray:
        return np.exp((1 - distances) / 0.07)

    found = vote(KNOWN, LABELS, ASKED, 4, neighbours=(3, 11))
    for row, weights in enumerate((dinos, "uniform")):
        for column, k in enumerate((3, 11)):
            theirs = KNeighborsClassifier(k, weights=weights, metric="cosine", algorithm="brute")
            expected = theirs.fit(KNOWN.numpy(), LABELS.numpy()).predict(ASKED.numpy())
            assert found[row, column].tolist() == expected.tolist()
    assert not torch.equal(found[0, 1], found[1, 1])  # weights matter here


def test_accuracy_is_of_each_layer_and_number_of_neighbours() -> None:
    truth = vote(KNOWN, LABELS, ASKED, 4, neighbours=(5,))[0, 0]
    learned = Features(("a", "b"), (KNOWN, -KNOWN), LABELS, torch.arange(70))
    tested = Features(("a", "b"), (ASKED, ASKED), truth, torch.arange(45))
    found = nearest_neighbours(learned, tested, 4, neighbours=(5, 1, 71))
    assert found.neighbours == (5, 1)
    assert found.notes == ("71 neighbours are left out: there are only 70 training images",)
    assert found.weighted[0, 0] == 1.0 > found.weighted[1, 0]
    assert (
        found.plain[0, 1]
        == found.weighted[0, 1]
        == (vote(KNOWN, LABELS, ASKED, 4, neighbours=(1,))[0] == truth).double().mean()
    )
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["weighted"]["a"]["5"] == 1.0


def test_the_length_of_a_vector_does_not_matter() -> None:
    lengths = torch.linspace(0.01, 100, 70)[:, None]
    assert torch.equal(
        vote(KNOWN * lengths, LABELS, ASKED * 3, 4, neighbours=(7,)), vote(KNOWN, LABELS, ASKED, 4, neighbours=(7,))
    )


def test_too_many_neighbours_are_refused() -> None:
    both = Features(("a",), (KNOWN,), LABELS, torch.arange(70))
    with pytest.raises(ConfigError, match="only 70 training images"):
        nearest_neighbours(both, both, 4, neighbours=(71, 100))
    with pytest.raises(ConfigError, match="neighbours"):
        nearest_neighbours(both, both, 4, neighbours=(0,))


def test_a_few_training_images_are_enough_for_the_nearest_one() -> None:
    assert possible_neighbours(10) == (10, 20, 100, 200)
    assert possible_neighbours(9) == (1, 10, 20, 100, 200)
    few = Features(("a",), (KNOWN[:3],), torch.arange(3), torch.arange(3))
    found = nearest_neighbours(few, few, 4, neighbours=possible_neighbours(3))
    assert found.neighbours == (1,) and found.weighted.tolist() == [[1.0]]
