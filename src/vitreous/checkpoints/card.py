"""The model card: what is in a saved folder, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from vitreous.checkpoints.timm_layout import timm_differences
from vitreous.checkpoints.timm_preprocess import preprocess_to_timm
from vitreous.data.preprocess import Preprocess
from vitreous.model.config import ViTConfig

Layout = Literal["timm", "transformers"]
"""Whose layout a folder has."""

_FRONT = """---
library_name: {layout}
pipeline_tag: image-classification
tags:
- image-classification
{tags}
---
"""

_PLACES = {
    "stem": "", "layers": ", at the start of each layer", "layers-shared": ", shared, at the start of each layer",
}  # fmt: skip


def model_card(config: ViTConfig, preprocess: Preprocess, class_names: Sequence[str], layout: Layout = "timm") -> str:
    """README.md of a saved model: front matter that the Hugging Face Hub reads, sizes, how to open it.

    Args:
        config: the architecture.
        preprocess: what an image goes through before the model.
        class_names: one for each class, or none.
        layout: whose layout the folder has; timm's opens with transformers too, unless timm lacks a word for it.
    """
    libraries = ("timm", "transformers", "vitreous") if layout == "timm" else ("transformers", "vitreous")
    front = _FRONT.format(layout=layout, tags="\n".join(f"- {library}" for library in libraries))
    table = "\n".join(f"| {name} | {value} |" for name, value in _rows(config, preprocess, class_names).items())
    opening = _how_to_open(config, preprocess, layout)
    return f"{front}\n# Vision Transformer\n\n| | |\n| --- | --- |\n{table}\n\n{opening}"


def _rows(config: ViTConfig, preprocess: Preprocess, class_names: Sequence[str]) -> dict[str, str]:
    height, width = config.image_size
    patch_height, patch_width = config.patch_size
    resize = f"{preprocess.resize}, crop fraction {preprocess.crop_fraction:g}"
    rows = {
        "parameters": f"{config.parameters:,}",
        "image": f"{height} x {width} pixels, {config.channels} channels",
        "patches": f"{config.rows} x {config.columns} of {patch_height} x {patch_width} pixels",
        "width, depth, heads": f"{config.width}, {config.depth}, {config.heads}",
        "prefix tokens": f"{int(config.class_token)} class, {config.registers} registers",
        "positions": config.positions + _PLACES[config.positions_at],
        "activation": "SwiGLU" if config.gated_mlp else config.activation,
        "LayerNorm epsilon": f"{config.norm_eps:g}",
        "pooling": config.pooling,
        "classes": f"{config.classes}" + (", named in config.json" if class_names else ""),
        "prepared to": "{} x {} pixels".format(*preprocess.image_size),
        "resize": f"{resize}, {preprocess.interpolation} by {preprocess.resampler}",
        "mean, std": f"{list(preprocess.mean)}, {list(preprocess.std)}",
    }
    if config.distillation:
        rows["prefix tokens"] = f"1 class, 1 distillation, {config.registers} registers"
    if config.stem is not None:
        root = "" if config.stem_root == "imagenet" else ", a 3x3 root at stride 1"
        rows["stem"] = f"ResNet of {list(config.stem)} units, {config.stem_width} channels{root}"
    return rows


def _how_to_open(config: ViTConfig, preprocess: Preprocess, layout: Layout) -> str:
    lines = ["```python", "import vitreous", "", 'model = vitreous.load("this-folder")']
    differences = timm_differences(config) if layout == "timm" else []
    if layout == "timm" and not differences:
        lines += ["", "import timm", "", 'model = timm.create_model("local-dir:this-folder", pretrained=True)']
    made_up = layout == "timm" and config.gated_mlp and config.layer_scale is None
    if not differences and not made_up:
        lines += [
            "",
            "from transformers import AutoModelForImageClassification",
            "",
            'model = AutoModelForImageClassification.from_pretrained("this-folder")',
        ]
    lines += ["```", ""]
    if differences:
        lines += [f"timm and transformers do not open it: they have no word for {' and '.join(differences)}.", ""]
    elif layout == "timm":
        if made_up:
            lines += ["transformers opens it, too, but makes up a layer scale that is not there: do not use it.\n"]
        _, otherwise = preprocess_to_timm(preprocess)
        lines += [f"{sentence}.\n" for sentence in _about_pictures(config, preprocess, otherwise)]
    return "\n".join(lines)


def _about_pictures(config: ViTConfig, preprocess: Preprocess, otherwise: Sequence[str]) -> list[str]:
    """Where another library's pictures, or its positions for them, come out otherwise."""
    sentences = [f"Pictures come out a little otherwise there: {sentence}" for sentence in otherwise]
    if preprocess.image_size != config.image_size and config.positions == "learned" and config.resampling != "timm":
        sentences.append(
            f"Positions are moved to the pictures' grid by timm's rule there, by {config.resampling}'s here"
        )
    return sentences
