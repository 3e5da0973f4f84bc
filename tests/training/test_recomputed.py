from __future__ import annotations

import torch

from vitreous.model.config import ViTConfig
from vitreous.model.vit import VisionTransformer
from vitreous.training.recomputed import recompute_blocks

CONFIG = ViTConfig((16, 16), (4, 4), classes=3, width=16, depth=4, heads=2, dropout=0.2, drop_path=0.2)


def _gradients(recomputed: bool) -> tuple[dict[str, torch.Tensor], int]:
    """Gradients of one step, and the bytes that the forward pass kept for them."""
    model = VisionTransformer(CONFIG, generator=torch.Generator().manual_seed(0)).train()
    if recomputed:
        recompute_blocks(model)
    torch.manual_seed(1)
    images = torch.randn(8, 3, 16, 16)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(images).square().sum() + model.forward_features(images).square().sum()
    loss.backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}, sum(
        kept.values()
    )


def test_the_gradients_have_the_same_bits_and_the_activations_are_gone() -> None:
    plain, kept = _gradients(recomputed=False)
    again, left = _gradients(recomputed=True)
    assert plain.keys() == again.keys() and len(plain) > 40
    for name, gradient in plain.items():
        assert torch.equal(gradient, again[name]), name
    assert left < kept / 3
