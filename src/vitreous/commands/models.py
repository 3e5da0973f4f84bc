"""describe, convert."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from vitreous.commands.words import Model, Settings, print_json


@dataclass(frozen=True)
class Describe:
    """Say what a model file holds and how it was read: architecture, preprocessing, each decision and its reason."""

    model: Model
    """cifar10-ti4, a file, a folder, timm:NAME, hf:NAME, torchvision:NAME or package.module:function."""
    settings: Settings = ()
    """What the file does not settle, such as heads=6 image_size=[384,384] weights=student preprocess.std=[1,1,1]."""
    strict: bool = False
    """Refuse weights that are NaN or infinite; without it they are named."""
    json: bool = False
    """Print one JSON object."""

    def run(self) -> None:
        """Describes and prints."""
        from vitreous.checkpoints.asked import settings_from_words
        from vitreous.checkpoints.sources import describe
        from vitreous.summaries import description

        described = describe(self.model, strict=self.strict, **settings_from_words(self.settings))
        if self.json:
            print_json(described)
        else:
            print(description(described))


@dataclass(frozen=True)
class Convert:
    """Write a model in a format that others read, and read it again to see that nothing was lost.

    timm: a folder that vitreous, timm and transformers open. transformers: a folder with a Hugging Face ViT. google:
    one .npz file with the names of google-research/vision_transformer. onnx: one .onnx file for other runtimes.
    """

    model: Model
    """cifar10-ti4, a file, a folder, timm:NAME, hf:NAME, torchvision:NAME or package.module:function."""
    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """The folder, or the file, to write."""
    to: Literal["timm", "transformers", "google", "onnx"] = "timm"
    """The format."""
    settings: Settings = ()
    """What the file does not settle, such as heads=6 image_size=[384,384] weights=student preprocess.std=[1,1,1]."""
    strict: bool = False
    """Refuse weights that are NaN or infinite; without it they are named."""

    def run(self) -> None:
        """Converts, checks, says what was written."""
        from vitreous.checkpoints.asked import settings_from_words
        from vitreous.checkpoints.convert import convert
        from vitreous.summaries import conversion

        done = convert(self.model, self.out, to=self.to, strict=self.strict, **settings_from_words(self.settings))
        print(conversion(done, self.out, self.to))
