from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vitreous.data.datasets import open_dataset
from vitreous.data.transforms import to_tensor
from vitreous.errors import NumericError
from vitreous.training import held_out
from vitreous.training.config import TrainConfig
from vitreous.training.distributed import Ranks
from vitreous.training.held_out import held_out_images, look


class Redness(nn.Module):
    """Logits for blue and red: how bright each colour is."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((-2, -1))[:, [2, 0]]


@pytest.mark.parametrize("in_memory", [True, False])
def test_every_image_of_the_test_part_is_looked_at_once(
    tiny_run: TrainConfig, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    if not in_memory:
        monkeypatch.setattr(held_out, "keep_pixels", lambda *_, **__: None)
    images = open_dataset(tiny_run.data)
    seen: list[Tensor] = []

    class Remember(Redness):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images)
            return super().forward(images)

    part = held_out_images(images, tiny_run, Ranks(), progress=False)
    found = look(Remember(), part, torch.device("cpu"), Ranks(), lambda: False)
    assert found is not None and found[0].images == 6 and found[0].top1 == 1 and found[1] == {}
    expected = torch.stack([to_tensor(images.read(n), tiny_run.preprocess) for n in range(6)])
    assert torch.equal(torch.cat(seen), expected)
    assert look(Redness(), part, torch.device("cpu"), Ranks(), lambda: True) is None


def test_shares_of_the_test_part_are_apart_and_have_as_many_batches_each(tiny_run: TrainConfig) -> None:
    images = open_dataset(tiny_run.data)
    shares = [held_out_images(images, tiny_run, Ranks(rank, 4), progress=False) for rank in range(4)]
    assert sorted(torch.cat([share.indices for share in shares]).tolist()) == list(range(6))
    assert {share.batches for share in shares} == {2} and {share.batch_size for share in shares} == {1}


def test_a_logit_that_is_no_number_stops_the_run(tiny_run: TrainConfig) -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean((-2, -1))[:, :2] / 0

    part = held_out_images(open_dataset(tiny_run.data), tiny_run, Ranks(), progress=False)
    with pytest.raises(NumericError, match="not finite"):
        look(Broken(), part, torch.device("cpu"), Ranks(), lambda: False)
