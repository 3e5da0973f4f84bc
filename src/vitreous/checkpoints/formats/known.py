"""Every format, in the order in which they are asked whether a file is theirs: the most particular names first."""

from __future__ import annotations

from typing import Protocol

from vitreous.checkpoints.formats import (
    beit,
    big_vision,
    clip,
    deit,
    dino,
    dinov2,
    dinov3,
    google,
    hf_beit,
    hf_clip,
    hf_dino,
    hf_vit,
    mae,
    own,
    timm,
    torchvision,
    vit_pytorch,
)
from vitreous.checkpoints.reading import Found, Reading


class Format(Protocol):
    """What each of the modules offers; see `reading`."""

    TITLE: str

    def recognises(self, found: Found) -> bool:
        """Whether the names are its own."""

    def read(self, found: Found) -> Reading:
        """Architecture, plan and decisions."""


FORMATS: tuple[Format, ...] = (
    own, google, big_vision, hf_clip, hf_dino, hf_beit, hf_vit, torchvision, clip, vit_pytorch,
    dinov3, dinov2, dino, beit, mae, deit, timm,
)  # fmt: skip
