from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from vitreous.errors import InputError, OutputError
from vitreous.inspection import Inspection
from vitreous.tokens import TokenLayout


def example(with_tables: bool = True) -> Inspection:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    return Inspection(
        layout=TokenLayout(1, 2, 3, 8, 4, 0),
        images=4,
        attention_distance=draw(3, 2),
        attention_distance_spread=draw(3, 2),
        attention_distance_histogram=(100 * draw(3, 2, 8)).long(),
        attention_distance_renormalized=draw(3, 2),
        attention_entropy=draw(3, 2),
        attention_entropy_spread=draw(3, 2),
        attention_entropy_histogram=(100 * draw(3, 2, 8)).long(),
        prefix_mass=draw(3, 2),
        prefix_mass_spread=draw(3, 2),
        prefix_mass_histogram=(100 * draw(3, 2, 8)).long(),
        rollout_mean=draw(2, 3),
        rollout=draw(2, 2, 3),
        class_attention=draw(2, 3, 2, 2, 3),
        thumbnails=(255 * draw(2, 16, 12, 3)).to(torch.uint8),
        image_names=("c\u202e.png", "<d>.png"),
        predictions=((("cat", 0.75), ("dog", 0.25)), (("dog", 1.0),)),
        filters=draw(5, 3, 8, 4) if with_tables else None,
        filters_variance=draw(5) if with_tables else None,
        position_similarity=draw(2, 3, 2, 3) if with_tables else None,
        position_structure={"locality": 0.5} if with_tables else {},
        skipped=(("e.png", "not a readable image"),),
        provenance={"model": "example", "notes": ["one"], "versions": {"torch": "2"}},
    )


@pytest.mark.parametrize("with_tables", [True, False])
def test_what_is_saved_loads_bit_for_bit_without_a_model(tmp_path: Path, with_tables: bool) -> None:
    before = example(with_tables)
    before.save(tmp_path / "inspection.safetensors")
    after = Inspection.load(tmp_path / "inspection.safetensors")
    for item in fields(Inspection):
        a, b = getattr(before, item.name), getattr(after, item.name)
        assert (torch.equal(a, b) and a.dtype == b.dtype) if isinstance(a, Tensor) else a == b, item.name


def test_every_number_is_in_the_json() -> None:
    inspection = example()
    plain = json.loads(json.dumps(inspection.to_dict(), allow_nan=False))
    assert set(plain) == {item.name for item in fields(Inspection)} - {"thumbnails"} | {"depth_trend"}
    for item in fields(Inspection):
        value = getattr(inspection, item.name)
        if isinstance(value, Tensor) and item.name != "thumbnails":
            torch.testing.assert_close(torch.tensor(plain[item.name]), value, rtol=1e-6, atol=0)
    assert plain["layout"]["class_token"] == 0 and plain["predictions"][0][0] == ["cat", 0.75]


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    example().save(whole)
    for name, content in {"cut": whole.read_bytes()[:-9], "empty": b"", "text": b"<html>"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name} cannot be read as an inspection"):
            Inspection.load(tmp_path / name)
    save_file({"a": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match="no inspection"):
        Inspection.load(tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match="cannot be read"):
        Inspection.load(tmp_path / "missing")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        example().save(tmp_path / "file" / "inspection.safetensors")
