from __future__ import annotations

import pytest

from vitreous.training.config import TrainConfig
from vitreous.training.loop import train
from vitreous.training.recipes import PRESETS


def test_every_recipe_is_a_config_and_says_what_it_reached() -> None:
    for name, recipe in PRESETS.items():
        assert isinstance(recipe(), TrainConfig)
        for word in (f"vitreous train --preset {name}", "seconds", "cores", "%", "seeds"):
            assert word in (recipe.__doc__ or ""), (name, word)


@pytest.mark.slow
def test_digits_reach_98_percent(tmp_path) -> None:
    pytest.importorskip("sklearn")
    result = train(PRESETS["digits"](), tmp_path / "run", progress=False)
    assert result.evaluation.images == 360
    assert result.evaluation.top1 >= 0.98
