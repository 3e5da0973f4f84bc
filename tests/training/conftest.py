"""A run that takes a moment."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from vitreous.data.augmentation import Augmentation
from vitreous.data.preprocess import Preprocess
from vitreous.model.config import ViTConfig
from vitreous.training.config import Optim, TrainConfig


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Noisy red and blue squares: 14 to train with, 6 to test."""
    noise = torch.Generator().manual_seed(0)
    for part, count in (("train", 7), ("test", 3)):
        for name, channel in (("blue", 2), ("red", 0)):
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for n in range(count):
                pixels = torch.randint(0, 100, (8, 8, 3), generator=noise, dtype=torch.uint8)
                pixels[..., channel] += 120
                Image.fromarray(pixels.numpy()).save(folder / f"{n}.png")
    return tmp_path / "photos"


@pytest.fixture
def tiny_run(photos: Path) -> TrainConfig:
    """Two epochs of four steps, everything on that draws random numbers."""
    return TrainConfig(
        data=str(photos),
        model=ViTConfig((8, 8), (4, 4), classes=2, width=8, depth=2, heads=2, mlp_ratio=2.0, dropout=0.1),
        preprocess=Preprocess((8, 8), "squash", 1.0),
        optimizer=Optim(learning_rate=0.02, warmup=2),
        augmentation=Augmentation(shift=1, rotation=5, scale=0.1, flip=True),
        epochs=2,
        batch_size=4,
        label_smoothing=0.1,
        threads=1,
    )
