"""Trains, loads and looks inside Vision Transformers.

The names below are the public surface. They are imported when first used, so that `import vitreous` and
`vitreous --help` do not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitreous.arrangement.measure import measure_arrangement as measure_arrangement
    from vitreous.capture.operator import AttentionOperator as AttentionOperator
    from vitreous.capture.watch import watch_attention as watch_attention
    from vitreous.checkpoints.convert import convert as convert
    from vitreous.checkpoints.saving import save as save
    from vitreous.checkpoints.sources import load as load
    from vitreous.errors import VitreousError as VitreousError
    from vitreous.inspecting.inspector import inspect_model as inspect_model
    from vitreous.inspection import Inspection as Inspection
    from vitreous.model.config import ViTConfig as ViTConfig
    from vitreous.model.vit import VisionTransformer as VisionTransformer
    from vitreous.pages.arrangement import write_arrangement as write_arrangement
    from vitreous.pages.comparison import write_comparison as write_comparison
    from vitreous.pages.report import write_report as write_report
    from vitreous.tokens import TokenLayout as TokenLayout
    from vitreous.training.config import TrainConfig as TrainConfig
    from vitreous.training.loop import train as train

__version__ = "0.1.0"

_HOME = {
    "AttentionOperator": "vitreous.capture.operator",
    "Inspection": "vitreous.inspection",
    "TokenLayout": "vitreous.tokens",
    "TrainConfig": "vitreous.training.config",
    "ViTConfig": "vitreous.model.config",
    "VisionTransformer": "vitreous.model.vit",
    "VitreousError": "vitreous.errors",
    "convert": "vitreous.checkpoints.convert",
    "inspect_model": "vitreous.inspecting.inspector",
    "load": "vitreous.checkpoints.sources",
    "measure_arrangement": "vitreous.arrangement.measure",
    "save": "vitreous.checkpoints.saving",
    "train": "vitreous.training.loop",
    "watch_attention": "vitreous.capture.watch",
    "write_arrangement": "vitreous.pages.arrangement",
    "write_comparison": "vitreous.pages.comparison",
    "write_report": "vitreous.pages.report",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'vitreous' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
