from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from vitreous.arrangement.inputs import check_class_counts, choose_images, common_classes, open_images
from vitreous.checkpoints.loaded import LoadedModel
from vitreous.data.preprocess import Preprocess
from vitreous.errors import CheckpointError, ConfigError, InputError


def loaded(name: str, class_names: tuple[str, ...]) -> LoadedModel:
    return LoadedModel(nn.Identity(), name, Preprocess((8, 8), "squash", 1.0), class_names, "vitreous", "")


def write(file: Path, grey: int) -> None:
    file.parent.mkdir(exist_ok=True, parents=True)
    Image.new("RGB", (4, 4), (grey, grey, grey)).save(file)


def test_a_data_set_has_labels() -> None:
    images = open_images("synthetic:48x3x8")
    assert len(images) == 12 and images.labelled is not None
    assert images.labels is not None and images.labels.tolist() == list(images.labelled.labels)


def test_some_are_evenly_spaced_and_keep_their_labels() -> None:
    whole = open_images("synthetic:48x3x8")
    some = open_images("synthetic:48x3x8", most=5)
    assert some.samples.tolist() == [0, 2, 4, 7, 9]
    assert whole.labels is not None and some.labels is not None
    assert torch.equal(some.labels, whole.labels[some.samples])
    assert some.pictures.read(3).tobytes() == whole.pictures.read(7).tobytes()
    assert choose_images(whole, 12) is whole and choose_images(whole, None) is whole


def test_folders_of_folders_are_classes_and_pictures_are_not(tmp_path: Path) -> None:
    for number, name in enumerate(["cat", "dog"]):
        write(tmp_path / "both" / name / "0.png", 10 * number)
    (tmp_path / "both" / "README.md").write_text("two classes")
    write(tmp_path / "plain" / "0.png", 3)
    write(tmp_path / "plain" / "1.png", 4)
    both, plain = open_images(tmp_path / "both"), open_images([tmp_path / "plain"])
    assert both.labelled is not None and both.labelled.class_names == ("cat", "dog")
    assert both.labels is not None and both.labels.tolist() == [0, 1]
    assert plain.labels is None and plain.labelled is None and len(plain) == 2
    assert len(open_images([tmp_path / "plain" / "0.png", tmp_path / "both"])) == 3
    write(tmp_path / "both" / "beside.png", 3)
    assert open_images(tmp_path / "both").labelled is None  # a picture beside folders


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="most is 0"):
        open_images("synthetic:48x3x8", most=0)
    with pytest.raises(InputError):
        open_images(tmp_path / "nothing.png")
    with pytest.raises(ConfigError, match="no image was named"):
        open_images([])


def test_classes_are_the_labels_or_the_models() -> None:
    images = open_images("synthetic:48x3x8")
    assert images.labelled is not None
    names = images.labelled.class_names
    assert common_classes([loaded("a", names), loaded("b", ())], images) == names
    assert common_classes([loaded("a", ())], images) == names


def test_models_of_other_classes_are_refused_in_one_line(tmp_path: Path) -> None:
    write(tmp_path / "0.png", 3)
    images = open_images(tmp_path)
    assert common_classes([loaded("a", ("x", "y")), loaded("b", ("x", "y"))], images) == ("x", "y")
    assert common_classes([loaded("a", ())], images) == ()
    with pytest.raises(CheckpointError, match=r"a answers with the classes x, y \(2 in all\), b with y, x") as caught:
        common_classes([loaded("a", ("x", "y")), loaded("b", ("y", "x"))], images)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(CheckpointError, match="only the model has x"):
        common_classes([loaded("a", ("x", "y"))], open_images("synthetic:48x3x8"))


def test_names_from_a_file_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    write(tmp_path / "0.png", 3)
    with pytest.raises(CheckpointError) as caught:
        common_classes([loaded("a", ("\x1b[31mred",)), loaded("b\n", ("z",))], open_images(tmp_path))
    assert "\x1b" not in str(caught.value) and "\n" not in str(caught.value)


def test_numbers_of_logits_must_agree() -> None:
    check_class_counts([("a", 3), ("b", 3)], ())
    check_class_counts([("a", 2)], ("x", "y"))
    with pytest.raises(CheckpointError, match="b has 4 classes, a has 3"):
        check_class_counts([("a", 3), ("b", 4)], ())
    with pytest.raises(CheckpointError, match="a has 3 classes, the data has 2"):
        check_class_counts([("a", 3)], ("x", "y"))
