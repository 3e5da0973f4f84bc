"""The model card: what is in a saved folder, for people."""

from __future__ import annotations

from collections.abc import Sequence

from vitreous.checkpoints.timm_layout import timm_differences
from vitreous.data.preprocess import Preprocess
from vitreous.model.config import ViTConfig

_FRONT = """---
library_name: timm
pipeline_tag: image-classification
tags:
- image-classification
- timm
- transformers
- vitreous
---
"""


def model_card(config: ViTConfig, preprocess: Preprocess, class_names: Sequence[str]) -> str:
    """README.md of a saved model: front matter that the Hugging Face Hub reads, sizes, how to open it."""
    height, width = config.image_size
    patch_height, patch_width = config.patch_size
    resize = f"{preprocess.resize}, crop fraction {preprocess.crop_fraction:g}"
    rows = {
        "parameters": f"{config.parameters:,}",
        "image": f"{height} x {width} pixels, {config.channels} channels",
        "patches": f"{config.rows} x {config.columns} of {patch_height} x {patch_width} pixels",
        "width, depth, heads": f"{config.width}, {config.depth}, {config.heads}",
        "prefix tokens": f"{int(config.class_token)} class, {config.registers} registers",
        "pooling": config.pooling,
        "classes": f"{config.classes}" + (", named in config.json" if class_names else ""),
        "resize": f"{resize}, {preprocess.interpolation}",
        "mean, std": f"{list(preprocess.mean)}, {list(preprocess.std)}",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"{_FRONT}\n# Vision Transformer\n\n| | |\n| --- | --- |\n{table}\n\n{_how_to_open(config)}"


def _how_to_open(config: ViTConfig) -> str:
    lines = ["```python", "import vitreous", "", 'model = vitreous.load("this-folder")']
    differences = timm_differences(config)
    if not differences:
        lines += [
            "",
            "import timm",
            "",
            'model = timm.create_model("local-dir:this-folder", pretrained=True)',
            "",
            "from transformers import AutoModelForImageClassification",
            "",
            'model = AutoModelForImageClassification.from_pretrained("this-folder")',
        ]
    lines += ["```", ""]
    if differences:
        lines += [
            f"timm and transformers do not open it: they have no word for {' and '.join(differences)}.",
            "",
        ]
    return "\n".join(lines)
