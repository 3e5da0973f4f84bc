from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitreous.data.gather import gather_pictures
from vitreous.data.sizes import group_by_size
from vitreous.errors import ConfigError, InputError


def draw(path: Path, height: int, width: int) -> Path:
    ramp = np.arange(height * width, dtype=np.uint16).reshape(height, width) % 251
    Image.fromarray(ramp.astype(np.uint8)).save(path)
    return path


def test_pictures_of_a_size_are_cut_to_whole_patches_at_the_centre(tmp_path: Path) -> None:
    for name, size in {"a": (19, 23), "b": (16, 24), "c": (18, 22), "d": (10, 9)}.items():
        draw(tmp_path / f"{name}.png", *size)
    (tmp_path / "e.png").write_text("<html>")
    draw(tmp_path / "f.png", 7, 60)
    groups = group_by_size(gather_pictures(tmp_path), (8, 8))
    assert list(groups) == [(16, 16), (16, 24), (8, 8)]
    names = [[Path(name).stem for name in group.names] for group in groups.values()]
    assert names == [["a", "c", "e", "f"], ["b"], ["d"]]
    first = groups[16, 16]
    whole = np.arange(19 * 23).reshape(19, 23) % 251
    np.testing.assert_array_equal(np.asarray(first.read(0))[..., 0], whole[1:17, 3:19])
    with pytest.raises(InputError, match=r"e\.png: not a readable"):
        first.read(2)
    with pytest.raises(InputError, match="7 x 60 pixels cannot be cut to 16 x 16"):
        first.read(3)


def test_too_many_sizes_are_refused_with_the_numbers(tmp_path: Path) -> None:
    for count in range(1, 14):
        draw(tmp_path / f"{count:02}.png", 8, 8 * count)
    with pytest.raises(ConfigError, match="the 13 images have 13 sizes in whole patches, 12 can be grouped"):
        group_by_size(gather_pictures(tmp_path), (8, 8))
    with pytest.raises(InputError, match="smaller than a patch"):
        group_by_size(gather_pictures(tmp_path), (16, 16))
