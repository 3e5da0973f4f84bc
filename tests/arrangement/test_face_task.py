from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitreous.arrangement import face_task as module
from vitreous.arrangement.face_models import MODELS
from vitreous.arrangement.face_task import (
    KINDS_SEEN,
    KINDS_UNSEEN,
    SEEN,
    Settings,
    example_images,
    face_accuracy,
    measured_faces,
    run_faces,
    train_on_faces,
)
from vitreous.arrangement.faces import draw_faces, standardised
from vitreous.arrangement.result import Faces
from vitreous.errors import ConfigError, InputError, NumericError, OutputError

TINY: Mapping[str, Any] = {"steps": 2, "batch_size": 6, "test_images": 8, "threads": 1, "progress": False}
FAST = "CNN without padding"


class Says(nn.Module):
    """Answers every batch with the same logits in turn."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.repeat(-(-len(images) // len(self.logits)))[: len(images), None]


class Knows(nn.Module):
    """Knows the wrong faces of some kinds by heart, and takes all others for right ones."""

    def __init__(self, kinds: tuple[str, ...]) -> None:
        super().__init__()
        wrong = [standardised(draw_faces(module._TEST_SEED, 0, 300, (kind,))[0]) for kind in kinds]
        self.known = {image.numpy().tobytes() for images in wrong for image in images}

    def forward(self, images: Tensor) -> Tensor:
        return torch.tensor([[-1.0 if image.numpy().tobytes() in self.known else 1.0] for image in images])


@pytest.mark.parametrize("name", MODELS)
def test_a_run_is_a_function_of_its_seed(name: str) -> None:
    settings = Settings(name, 1, steps=2, batch_size=6)
    one, same = train_on_faces(settings), train_on_faces(settings)
    other = train_on_faces(Settings(name, 2, steps=2, batch_size=6))
    assert not one.training
    for key, weight in one.state_dict().items():
        assert torch.equal(weight, same.state_dict()[key])
    assert any(not torch.equal(weight, other.state_dict()[key]) for key, weight in one.state_dict().items())


def test_a_cnn_learns_the_task() -> None:
    model = train_on_faces(Settings(FAST, 0, steps=40, batch_size=24))
    assert face_accuracy(model, ("displaced",), 100) > 0.7


def test_accuracy_counts_right_answers() -> None:
    assert face_accuracy(Says(5.0), KINDS_SEEN, 600) == 0.5
    assert face_accuracy(Says(-5.0), KINDS_SEEN, 600) == 0.5
    assert face_accuracy(Says(5.0, -5.0), KINDS_SEEN, 8) == 0.5  # right faces half, wrong ones half
    assert face_accuracy(Knows(KINDS_SEEN), KINDS_SEEN, 600) == 1.0
    assert face_accuracy(Knows(("displaced",)), KINDS_SEEN, 600) == 0.75  # takes every swapped face for a right one
    assert face_accuracy(Knows(("turned",)), ("turned",), 40) == 1.0


def test_a_model_that_sees_no_arrangement_is_right_in_exactly_half_of_the_cases() -> None:
    model = train_on_faces(Settings("BagNet", 0, steps=4, batch_size=6))
    assert [face_accuracy(model, (kind,), 100) for kind in (*KINDS_SEEN, *KINDS_UNSEEN)] == [0.5] * 5


def test_a_run_is_tested_on_kinds_seen_and_unseen_and_answers_the_examples() -> None:
    faces = run_faces(2, models=[FAST, "BagNet"], **TINY)
    assert faces.seeds == (0, 1)
    assert (faces.kinds_seen, faces.kinds_unseen) == (KINDS_SEEN, KINDS_UNSEEN)
    assert not set(KINDS_SEEN) & set(KINDS_UNSEEN)
    assert [model.name for model in faces.models] == [FAST, "BagNet"]
    for model in faces.models:
        assert tuple(model.accuracies) == (SEEN, *KINDS_UNSEEN)
        assert all(len(shares) == 2 for shares in model.accuracies.values())
        trained = [train_on_faces(Settings(model.name, seed, 2, 6)) for seed in (0, 1)]
        assert model.parameters == sum(parameter.numel() for parameter in trained[0].parameters())
        expected = [face_accuracy(one, ("turned",), 8) for one in trained]
        assert list(model.accuracies["turned"]) == expected
        answers = trained[0](standardised(example_images(faces)))[:, 0].sigmoid()
        assert model.answers == pytest.approx(answers.tolist(), abs=1e-6)
    assert set(faces.provenance) >= {"vitreous", "torch", "machine", "threads", "date", "seconds"}
    assert Faces.from_dict(json.loads(json.dumps(faces.to_dict()))) == faces


def test_a_second_call_goes_on_where_the_first_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_faces(2, models=[FAST], folder=tmp_path / "kept", **TINY)
    files = sorted((tmp_path / "kept").iterdir())
    assert [file.name for file in files] == ["cnn-without-padding_seed-0.json", "cnn-without-padding_seed-1.json"]
    files[1].unlink()
    train, trained = module.train_on_faces, []

    def watched(settings: Settings, **options: Any) -> nn.Module:
        trained.append(settings.seed)
        return train(settings, **options)

    monkeypatch.setattr(module, "train_on_faces", watched)
    again = run_faces(2, models=[FAST], folder=tmp_path / "kept", **TINY)
    assert trained == [1]
    assert again.models[0].accuracies == whole.models[0].accuracies
    assert again.models[0].answers == whole.models[0].answers
    assert again.models[0].seconds[0] == whole.models[0].seconds[0]  # of the run that was kept
    run_faces(1, models=[FAST], folder=tmp_path / "kept", **TINY)
    assert trained == [1]


def test_what_was_measured_at_release_is_read_where_there_is_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MEASURED", tmp_path / "faces.json")
    assert measured_faces() is None
    faces = run_faces(1, models=[FAST], **TINY)
    (tmp_path / "faces.json").write_text(json.dumps(faces.to_dict()))
    assert measured_faces() == faces


def test_files_of_other_runs_are_refused_before_any_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_faces(1, models=[FAST], folder=tmp_path, **TINY)
    monkeypatch.setattr(module, "train_on_faces", None)
    with pytest.raises(InputError, match=r"seed-0\.json is a run with other settings"):
        run_faces(2, models=["BagNet", FAST], folder=tmp_path, **{**TINY, "steps": 3})
    file = tmp_path / "cnn-without-padding_seed-0.json"
    for spoilt in ('{"model"', "[]", "{}", b"\xff"):
        file.write_bytes(spoilt if isinstance(spoilt, bytes) else spoilt.encode())
        with pytest.raises(InputError, match="is no finished run"):
            run_faces(1, models=[FAST], folder=tmp_path, **TINY)
    file.write_text('{"result": {}}')
    with pytest.raises(InputError, match="other settings"):
        run_faces(1, models=[FAST], folder=tmp_path, **TINY)


def test_a_folder_that_cannot_be_written_is_seen_before_any_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "train_on_faces", None)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        run_faces(1, folder=tmp_path / "file", **TINY)


def test_what_is_going_on_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    run_faces(1, models=[FAST], **{**TINY, "progress": True})
    printed = capsys.readouterr()
    assert "run 1 of 1: CNN without padding, seed 0" in printed.err
    assert printed.out == ""


def test_the_same_steps_with_threads_and_generator_left_as_they_were() -> None:
    before = torch.get_rng_state()
    run_faces(1, models=[FAST], **{**TINY, "threads": 2, "steps": 1, "test_images": 4})
    assert torch.get_num_threads() == 1
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loss_that_is_no_number_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "make_model", lambda name, seed: Broken())
    with pytest.raises(NumericError, match="BagNet, seed 0: the loss of step 1 is nan"):
        train_on_faces(Settings("BagNet", 0, steps=2, batch_size=6))


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(float("nan")))

    def forward(self, images: Tensor) -> Tensor:
        return self.weight * images.flatten(1)[:, :1]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"seeds": 0}, "seeds"),
        ({"steps": 0}, "steps"),
        ({"batch_size": 8}, "multiple of 6"),
        ({"test_images": 2}, "at least 4"),
        ({"test_images": 6}, "multiple of 4"),
        ({"models": []}, "models is empty"),
        ({"models": ["AlexNet"]}, "choose one of CNN"),
        ({"threads": 0}, "threads"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        run_faces(**{"seeds": 1, **TINY, **changes})
